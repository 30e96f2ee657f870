/* One hidden ReLU layer with squared error, row by row, fused: hpo_bench/models/relu_regression.py says what is computed.

   A tile of columns goes through everything while it is in the first cache; of the activations only the mask leaves it,
   a bit a number. A row is computed by the same operations in the same order wherever it stands, in tiles of any size
   and with registers of any width (lanes.h), so its numbers depend on no other row and on no processor.

   Included by relu_regression_both.c, once for float and once for double. */

#include "lanes.h"
#include <time.h>

#ifndef FORWARD_UNITS
/* Hidden units and registers of columns worked on at once on the way forward, units and inputs on the way back: as many
   sums as there are registers for, beside the operands. */
#define FORWARD_UNITS 5
#define BACKWARD_INPUTS 5
#if defined(LANES_AVX512)
#define FORWARD_COLUMNS 5
#define BACKWARD_UNITS 5
#define UNITS_MULTIPLE 5
#else
#define FORWARD_COLUMNS 2
#define BACKWARD_UNITS 2
#define UNITS_MULTIPLE 10 /* of both */
#endif
#ifndef TILE
#define TILE 640 /* columns, unless the inputs need more of the first cache than TILE_BYTES; a multiple of SUM_LANES */
#endif
#define TILE_BYTES 26000
#define LEAST_TILE 80
enum { SAVES_MASK, NEEDS_MASK, NO_MASK };
#endif

/* Sizes of a network and of its gradient: H units, d inputs, K = d + 1 numbers a unit, P weights in all. */
typedef struct {
    int hidden, inputs, per_unit, units; /* units: hidden and some that are all zero */
    long weights;
} NAME(shape);

/* A set of columns: inputs (K, columns), whose last row is 1 where there is a column and 0 in the padding, and targets
   (columns); those of repetition r begin `apart` * r numbers later. */
typedef struct {
    long columns, count;
    const REAL *inputs, *targets;
    long inputs_apart, targets_apart;
} NAME(batch);

/* A hyperparameter: repetition r's value for weight p is at r * row + p * weight. */
typedef struct {
    const REAL *values;
    long row, weight;
} NAME(hyper);

/* Weights (units, d), biases (units) and second layer (units) of one row, with its last bias. */
typedef struct {
    REAL *first, *bias, *second, last;
} NAME(layers);

/* Room for one row's work. */
typedef struct {
    REAL *sums, *slopes, *inner;
    NAME(layers) own, along, through;
    void *all;
} NAME(room);

static NAME(shape) NAME(shape_of)(int hidden, int inputs) {
    int units = (hidden + UNITS_MULTIPLE - 1) / UNITS_MULTIPLE * UNITS_MULTIPLE;
    return (NAME(shape)){hidden, inputs, inputs + 1, units, (long)hidden * inputs + 2 * hidden + 1};
}

static long NAME(mask_row)(long columns) { return columns / LANES * BITS_BYTES; }

/* Bytes of one row's mask. */
long NAME(mask_bytes)(int hidden, int inputs, long columns) {
    return NAME(shape_of)(hidden, inputs).units * NAME(mask_row)(columns);
}

static REAL *NAME(take)(char **from, long count) {
    REAL *taken = (REAL *)*from;
    *from += (count * sizeof(REAL) + 63) / 64 * 64;
    return taken;
}

static NAME(layers) NAME(take_layers)(char **from, NAME(shape) s) {
    REAL *first = NAME(take)(from, (long)s.units * s.inputs);
    REAL *bias = NAME(take)(from, s.units), *second = NAME(take)(from, s.units);
    return (NAME(layers)){first, bias, second, 0};
}

/* Sets `all` to NULL if there is no memory. */
static NAME(room) NAME(make_room)(NAME(shape) s) {
    NAME(room) room;
    long numbers = (long)s.units * (s.per_unit * (SUM_LANES + 1) + 3 * (s.inputs + 2)) + TILE;
    char *from = room.all = aligned_alloc(64, (numbers * sizeof(REAL) + 12 * 64 + 63) / 64 * 64);
    if (!from) return room;
    room.sums = NAME(take)(&from, (long)s.units * s.per_unit * SUM_LANES);
    room.inner = NAME(take)(&from, (long)s.units * s.per_unit);
    room.slopes = NAME(take)(&from, TILE);
    room.own = NAME(take_layers)(&from, s);
    room.along = NAME(take_layers)(&from, s);
    room.through = NAME(take_layers)(&from, s);
    return room;
}

static int NAME(tile)(NAME(shape) s) {
    int tile = TILE;
    while (tile > LEAST_TILE && (long)tile * s.per_unit * sizeof(REAL) > TILE_BYTES) tile /= 2;
    return tile;
}

/* A row of P numbers as layers; the surplus units stay out of everything, being zero. */
static void NAME(unpack)(const REAL *row, NAME(shape) s, NAME(layers) *into) {
    const REAL *bias = row + (long)s.hidden * s.inputs, *second = bias + s.hidden;
    long surplus = s.units - s.hidden;
    memcpy(into->first, row, sizeof(REAL) * s.hidden * s.inputs);
    memset(into->first + (long)s.hidden * s.inputs, 0, sizeof(REAL) * surplus * s.inputs);
    memcpy(into->bias, bias, sizeof(REAL) * s.hidden);
    memset(into->bias + s.hidden, 0, sizeof(REAL) * surplus);
    memcpy(into->second, second, sizeof(REAL) * s.hidden);
    memset(into->second + s.hidden, 0, sizeof(REAL) * surplus);
    into->last = second[s.hidden];
}

/* Adds what FORWARD_UNITS units put out on `width` registers of columns to `totals`: w2 . relu(W x + b), or, given the
   mask, W x + b where it lets them through. */
ALWAYS void NAME(forward_block)(
    const int width, const int mode, const REAL *first, const REAL *bias, const REAL *second, int inputs, const REAL *x,
    long stride, uint8_t *mask, long mask_row, VEC *totals) {
    VEC sums[FORWARD_UNITS][FORWARD_COLUMNS];
    UNROLL for (int u = 0; u < FORWARD_UNITS; u++) {
        UNROLL for (int j = 0; j < width; j++) sums[u][j] = SPREAD(bias[u]);
    }
    for (int k = 0; k < inputs; k++) {
        VEC column[FORWARD_COLUMNS];
        UNROLL for (int j = 0; j < width; j++) {
            column[j] = LOAD(x + k * stride + j * LANES);
            HOLD(column[j]);
        }
        UNROLL for (int u = 0; u < FORWARD_UNITS; u++) {
            VEC weight = SPREAD(first[u * inputs + k]);
            HOLD(weight);
            UNROLL for (int j = 0; j < width; j++) sums[u][j] = FMA(weight, column[j], sums[u][j]);
        }
    }
    UNROLL for (int u = 0; u < FORWARD_UNITS; u++) {
        UNROLL for (int j = 0; j < width; j++) {
            uint8_t *bits = mask + u * mask_row + j * BITS_BYTES;
            if (mode == NEEDS_MASK) {
                totals[j] = ADD_WHERE(LOAD_BITS(bits), sums[u][j], totals[j]);
            } else {
                if (mode == SAVES_MASK) SAVE_BITS(bits, GREATER(sums[u][j], ZERO()));
                totals[j] = FMA(SPREAD(second[u]), RELU(sums[u][j]), totals[j]);
            }
        }
    }
}

ALWAYS void NAME(forward_columns)(
    const int width, const int mode, const NAME(layers) *net, NAME(shape) s, const REAL *x, long stride, uint8_t *mask,
    long mask_row, REAL *out) {
    VEC totals[FORWARD_COLUMNS];
    UNROLL for (int j = 0; j < width; j++) totals[j] = SPREAD(net->last);
    for (int u = 0; u < s.units; u += FORWARD_UNITS)
        NAME(forward_block)(
            width, mode, net->first + (long)u * s.inputs, net->bias + u, net->second + u, s.inputs, x, stride,
            mask + u * mask_row, mask_row, totals);
    UNROLL for (int j = 0; j < width; j++) STORE(out + j * LANES, totals[j]);
}

/* out (columns) = what a network puts out on one tile; `mode` says what becomes of the mask. */
ALWAYS void NAME(forward)(
    const int mode, const NAME(layers) *net, NAME(shape) s, const REAL *x, long stride, uint8_t *mask, long mask_row,
    REAL *out, int columns) {
    int c = 0;
#define COLUMNS(width)                                                                                                 \
    NAME(forward_columns)(width, mode, net, s, x + c, stride, mask + c / LANES * BITS_BYTES, mask_row, out + c)
    for (; c + FORWARD_COLUMNS * LANES <= columns; c += FORWARD_COLUMNS * LANES) COLUMNS(FORWARD_COLUMNS);
    switch ((columns - c) / LANES) {
#if FORWARD_COLUMNS > 2
    case 4: COLUMNS(4); break;
    case 3: COLUMNS(3); break;
    case 2: COLUMNS(2); break;
#endif
    case 1: COLUMNS(1); break;
    }
#undef COLUMNS
}
static __attribute__((noinline)) void NAME(forward_saves)(
    const NAME(layers) *net, NAME(shape) s, const REAL *x, long stride, uint8_t *mask, long mask_row, REAL *out,
    int columns) {
    NAME(forward)(SAVES_MASK, net, s, x, stride, mask, mask_row, out, columns);
}
static __attribute__((noinline)) void NAME(forward_needs)(
    const NAME(layers) *net, NAME(shape) s, const REAL *x, long stride, uint8_t *mask, long mask_row, REAL *out,
    int columns) {
    NAME(forward)(NEEDS_MASK, net, s, x, stride, mask, mask_row, out, columns);
}
static __attribute__((noinline)) void NAME(forward_alone)(
    const NAME(layers) *net, NAME(shape) s, const REAL *x, long stride, uint8_t *mask, long mask_row, REAL *out,
    int columns) {
    NAME(forward)(NO_MASK, net, s, x, stride, mask, mask_row, out, columns);
}

/* What one tile adds to mask (units, columns) . (slopes * x)^T (columns, K), for `wide` inputs of BACKWARD_UNITS units:
   kept in `sums` (unit, K, SUM_LANES) between tiles, and put into `inner` (unit, K) after the last one. */
ALWAYS void NAME(backward_block)(
    const int wide, const uint8_t *mask, long mask_row, const REAL *slopes, const REAL *x, long stride, int columns,
    REAL *sums, REAL *inner, int per_unit, int begins, int ends) {
    VEC found[BACKWARD_UNITS][BACKWARD_INPUTS][PARTS];
    for (int part = 0; part < PARTS; part++) {
        VEC acc[BACKWARD_UNITS][BACKWARD_INPUTS];
        UNROLL for (int u = 0; u < BACKWARD_UNITS; u++) {
            UNROLL for (int k = 0; k < wide; k++)
                acc[u][k] = begins ? ZERO() : LOAD(sums + (u * per_unit + k) * SUM_LANES + part * LANES);
        }
        for (int c = part * LANES; c < columns; c += SUM_LANES) {
            VEC slope = LOAD(slopes + c);
            MASK on[BACKWARD_UNITS];
            UNROLL for (int u = 0; u < BACKWARD_UNITS; u++)
                on[u] = LOAD_BITS(mask + u * mask_row + c / LANES * BITS_BYTES);
            UNROLL for (int k = 0; k < wide; k++) {
                VEC column = LOAD(x + k * stride + c);
                HOLD(column);
                UNROLL for (int u = 0; u < BACKWARD_UNITS; u++) acc[u][k] = FMA_WHERE(on[u], slope, column, acc[u][k]);
            }
        }
        UNROLL for (int u = 0; u < BACKWARD_UNITS; u++) {
            UNROLL for (int k = 0; k < wide; k++) {
                if (ends)
                    found[u][k][part] = acc[u][k];
                else
                    STORE(sums + (u * per_unit + k) * SUM_LANES + part * LANES, acc[u][k]);
            }
        }
    }
    if (!ends) return;
    UNROLL for (int u = 0; u < BACKWARD_UNITS; u++) {
        UNROLL for (int k = 0; k < wide; k++) inner[u * per_unit + k] = FOLD(found[u][k]);
    }
}

#define BACKWARD(wide)                                                                                                 \
    static __attribute__((noinline)) void NAME(backward_##wide)(                                                       \
        const uint8_t *mask, long mask_row, const REAL *slopes, const REAL *x, long stride, int columns, REAL *sums,   \
        REAL *inner, int per_unit, int begins, int ends) {                                                             \
        NAME(backward_block)                                                                                           \
        (wide, mask, mask_row, slopes, x, stride, columns, sums, inner, per_unit, begins, ends);                       \
    }
BACKWARD(5)
BACKWARD(4)
BACKWARD(3)
BACKWARD(2)
BACKWARD(1)
#undef BACKWARD

/* The inputs of all units, in groups as even as can be. */
static void NAME(backward)(
    const uint8_t *mask, long mask_row, NAME(shape) s, const REAL *slopes, const REAL *x, long stride, int columns,
    REAL *sums, REAL *inner, int begins, int ends) {
#define CASE(wide)                                                                                                     \
    case wide:                                                                                                         \
        NAME(backward_##wide)(                                                                                         \
            mask + u * mask_row, mask_row, slopes, x + k * stride, stride, columns, sums + at * SUM_LANES, inner + at, \
            s.per_unit, begins, ends);                                                                                 \
        break;
    for (int k = 0, groups = (s.per_unit + BACKWARD_INPUTS - 1) / BACKWARD_INPUTS; groups > 0; groups--) {
        int width = (s.per_unit - k + groups - 1) / groups;
        for (int u = 0; u < s.units; u += BACKWARD_UNITS) {
            long at = (long)u * s.per_unit + k;
            switch (width) { CASE(5) CASE(4) CASE(3) CASE(2) CASE(1) }
        }
        k += width;
    }
#undef CASE
}

/* Loss of one row, whose weights are in `room->own`; unless `mask` is NULL, the mask, the inner products (units, K) in
   `room->inner`, and the sum of the slopes. */
static REAL NAME(row_loss)(NAME(shape) s, NAME(room) *room, NAME(batch) b, uint8_t *mask, REAL *slope_sum) {
    long mask_row = NAME(mask_row)(b.columns), step = NAME(tile)(s);
    VEC squares[PARTS], slope_sums[PARTS], scale = SPREAD((REAL)(2.0 / b.count));
    for (int part = 0; part < PARTS; part++) squares[part] = slope_sums[part] = ZERO();
    for (long begin = 0; begin < b.columns; begin += step) {
        int width = b.columns - begin < step ? (int)(b.columns - begin) : (int)step;
        const REAL *x = b.inputs + begin, *y = b.targets + begin, *here = x + s.inputs * b.columns;
        uint8_t *bits = mask ? mask + NAME(mask_row)(begin) : NULL;
        REAL *out = room->slopes;
        if (mask)
            NAME(forward_saves)(&room->own, s, x, b.columns, bits, mask_row, out, width);
        else
            NAME(forward_alone)(&room->own, s, x, b.columns, bits, 0, out, width);
        for (int c = 0; c < width; c += SUM_LANES) {
            UNROLL for (int part = 0; part < PARTS; part++) {
                int at = c + part * LANES;
                VEC error = KEEP(GREATER(LOAD(here + at), ZERO()), SUB(LOAD(out + at), LOAD(y + at)));
                squares[part] = FMA(error, error, squares[part]);
                VEC slope = MUL(error, scale);
                slope_sums[part] = ADD(slope_sums[part], slope);
                STORE(out + at, slope);
            }
        }
        if (mask)
            NAME(backward)(
                bits, mask_row, s, out, x, b.columns, width, room->sums, room->inner, begin == 0,
                begin + step >= b.columns);
    }
    *slope_sum = FOLD(slope_sums);
    return FOLD(squares) / (REAL)b.count;
}

/* Loss and gradient (P) of the row in `room->own`; its inner products stay in `room->inner`. */
static REAL NAME(row_gradient)(NAME(shape) s, NAME(room) *room, NAME(batch) b, uint8_t *mask, REAL *gradient) {
    REAL *bias = gradient + (long)s.hidden * s.inputs, *second = bias + s.hidden;
    REAL loss = NAME(row_loss)(s, room, b, mask, second + s.hidden);
    for (int h = 0; h < s.hidden; h++) {
        const REAL *inner = room->inner + (long)h * s.per_unit, *first = room->own.first + (long)h * s.inputs;
        REAL out = room->own.second[h], total = 0;
        for (int k = 0; k < s.inputs; k++) {
            gradient[(long)h * s.inputs + k] = out * inner[k];
            total = FMA1(first[k], inner[k], total);
        }
        bias[h] = out * inner[s.inputs];
        second[h] = FMA1(room->own.bias[h], inner[s.inputs], total);
    }
    return loss;
}

/* result (P) = H vector for the row in `room->own`, whose mask and inner products are given. */
static void NAME(row_product)(
    NAME(shape) s, NAME(room) *room, NAME(batch) b, const uint8_t *mask, const REAL *kept, const REAL *vector,
    REAL *result) {
    NAME(layers) *w = &room->own, *v = &room->along, *a = &room->through;
    NAME(unpack)(vector, s, v);
    for (int h = 0; h < s.units; h++) {
        REAL own = w->second[h], along = v->second[h];
        long at = (long)h * s.inputs;
        for (int k = 0; k < s.inputs; k++) {
            REAL part = own * v->first[at + k];
            a->first[at + k] = FMA1(along, w->first[at + k], part);
        }
        REAL part = own * v->bias[h];
        a->bias[h] = FMA1(along, w->bias[h], part);
    }
    a->last = v->last;
    long mask_row = NAME(mask_row)(b.columns), step = NAME(tile)(s);
    VEC slope_sums[PARTS], scale = SPREAD((REAL)(2.0 / b.count));
    for (int part = 0; part < PARTS; part++) slope_sums[part] = ZERO();
    for (long begin = 0; begin < b.columns; begin += step) {
        int width = b.columns - begin < step ? (int)(b.columns - begin) : (int)step;
        const REAL *x = b.inputs + begin, *here = x + s.inputs * b.columns;
        const uint8_t *bits = mask + NAME(mask_row)(begin);
        REAL *out = room->slopes;
        NAME(forward_needs)(a, s, x, b.columns, (uint8_t *)bits, mask_row, out, width);
        for (int c = 0; c < width; c += SUM_LANES) {
            UNROLL for (int part = 0; part < PARTS; part++) {
                int at = c + part * LANES;
                VEC slope = KEEP(GREATER(LOAD(here + at), ZERO()), MUL(LOAD(out + at), scale));
                slope_sums[part] = ADD(slope_sums[part], slope);
                STORE(out + at, slope);
            }
        }
        NAME(backward)(
            bits, mask_row, s, out, x, b.columns, width, room->sums, room->inner, begin == 0, begin + step >= b.columns);
    }
    REAL *bias = result + (long)s.hidden * s.inputs, *second = bias + s.hidden;
    for (int h = 0; h < s.hidden; h++) {
        const REAL *inner = room->inner + (long)h * s.per_unit, *before = kept + (long)h * s.per_unit;
        const REAL *first = w->first + (long)h * s.inputs, *first_v = v->first + (long)h * s.inputs;
        REAL own = w->second[h], along = v->second[h], total = 0;
        for (int k = 0; k < s.inputs; k++) {
            REAL part = along * before[k];
            result[(long)h * s.inputs + k] = FMA1(own, inner[k], part);
            total = FMA1(first_v[k], before[k], total);
            total = FMA1(first[k], inner[k], total);
        }
        REAL part = along * before[s.inputs];
        bias[h] = FMA1(own, inner[s.inputs], part);
        total = FMA1(v->bias[h], before[s.inputs], total);
        second[h] = FMA1(w->bias[h], inner[s.inputs], total);
    }
    second[s.hidden] = FOLD(slope_sums);
}

static NAME(batch) NAME(own_batch)(const NAME(batch) *b, long row) {
    NAME(batch) own = *b;
    own.inputs += row * b->inputs_apart;
    own.targets += row * b->targets_apart;
    return own;
}

/* Losses (R) of one batch for all rows and, unless gradient is NULL, gradient (R, P), inner (R, H, K) and masks
   (R, mask_bytes).

   Returns 0, or 1 if there is no memory, as all that follow do. */
int NAME(linearise)(
    long rows, int hidden, int inputs, const REAL *weights, const NAME(batch) *batch, REAL *loss, REAL *gradient,
    REAL *inner, uint8_t *masks) {
    NAME(shape) s = NAME(shape_of)(hidden, inputs);
    NAME(room) room = NAME(make_room)(s);
    if (!room.all) return 1;
    long kept = (long)s.hidden * s.per_unit, mask_bytes = NAME(mask_bytes)(hidden, inputs, batch->columns);
    for (long r = 0; r < rows; r++) {
        NAME(batch) b = NAME(own_batch)(batch, r);
        REAL slopes;
        NAME(unpack)(weights + r * s.weights, s, &room.own);
        if (!gradient) {
            loss[r] = NAME(row_loss)(s, &room, b, NULL, &slopes);
            continue;
        }
        loss[r] = NAME(row_gradient)(s, &room, b, masks + r * mask_bytes, gradient + r * s.weights);
        memcpy(inner + r * kept, room.inner, sizeof(REAL) * kept);
    }
    free(room.all);
    return 0;
}

/* H v for n vectors (n, R, P) of every row, from what linearise kept. */
int NAME(products)(
    long rows, int hidden, int inputs, const REAL *weights, const NAME(batch) *batch, const REAL *inner,
    const uint8_t *masks, long n, const REAL *vectors, REAL *results) {
    NAME(shape) s = NAME(shape_of)(hidden, inputs);
    NAME(room) room = NAME(make_room)(s);
    if (!room.all) return 1;
    long kept = (long)s.hidden * s.per_unit, mask_bytes = NAME(mask_bytes)(hidden, inputs, batch->columns);
    for (long r = 0; r < rows; r++) {
        NAME(batch) b = NAME(own_batch)(batch, r);
        NAME(unpack)(weights + r * s.weights, s, &room.own);
        for (long m = 0; m < n; m++) {
            long at = (m * rows + r) * s.weights;
            NAME(row_product)(s, &room, b, masks + r * mask_bytes, inner + r * kept, vectors + at, results + at);
        }
    }
    free(room.all);
    return 0;
}

/* sums (R, P) of the first `terms` terms of a Neumann series: term <- term - (H + wd)(lr * term), from vectors (R, P).
   Every operation but the product is rounded by itself, as torch does them one after another. */
int NAME(series)(
    long rows, int hidden, int inputs, const REAL *weights, const NAME(batch) *batch, const REAL *inner,
    const uint8_t *masks, long terms, const REAL *vectors, const NAME(hyper) *lr, const NAME(hyper) *decay,
    REAL *sums) {
    NAME(shape) s = NAME(shape_of)(hidden, inputs);
    NAME(room) room = NAME(make_room)(s);
    REAL *term = aligned_alloc(64, (3 * s.weights * sizeof(REAL) + 63) / 64 * 64);
    if (!room.all || !term) {
        free(room.all);
        free(term);
        return 1;
    }
    REAL *scaled = term + s.weights, *product = scaled + s.weights;
    long kept = (long)s.hidden * s.per_unit, mask_bytes = NAME(mask_bytes)(hidden, inputs, batch->columns);
    for (long r = 0; r < rows; r++) {
        NAME(batch) b = NAME(own_batch)(batch, r);
        const REAL *own_lr = lr->values + r * lr->row, *own_decay = decay->values + r * decay->row;
        REAL *sum = sums + r * s.weights;
        memcpy(term, vectors + r * s.weights, sizeof(REAL) * s.weights);
        memcpy(sum, term, sizeof(REAL) * s.weights);
        NAME(unpack)(weights + r * s.weights, s, &room.own);
        for (long j = 1; j < terms; j++) {
            for (long p = 0; p < s.weights; p++) scaled[p] = own_lr[p * lr->weight] * term[p];
            NAME(row_product)(s, &room, b, masks + r * mask_bytes, inner + r * kept, scaled, product);
            for (long p = 0; p < s.weights; p++) {
                REAL through_decay = own_decay[p * decay->weight] * scaled[p];
                REAL change = product[p] + through_decay;
                term[p] = term[p] - change;
                sum[p] = sum[p] + term[p];
            }
        }
    }
    free(room.all);
    free(term);
    return 0;
}

/* The hyperparameters of one update of one row. */
typedef struct {
    NAME(hyper) lr, decay, momentum;
} NAME(hypers);

ALWAYS VEC NAME(of_weights)(NAME(hyper) h, long p) { return h.weight ? LOAD(h.values + p) : SPREAD(*h.values); }
ALWAYS REAL NAME(of_weight)(NAME(hyper) h, long p) { return h.values[p * h.weight]; }

/* 0 if all numbers are finite, else NaN. */
static REAL NAME(all_finite)(const REAL *numbers, long count) {
    VEC sums = ZERO();
    long p = 0;
    for (; p + LANES <= count; p += LANES) sums = FMA(LOAD(numbers + p), ZERO(), sums);
    REAL each[LANES], total = 0;
    STORE(each, sums);
    for (int lane = 0; lane < LANES; lane++) total += each[lane];
    for (; p < count; p++) total = FMA1(numbers[p], 0, total);
    return total;
}

/* m <- mu m + (g + wd w), w <- w - lr m, as hpo_bench.core.update.advance makes them with torch.addcmul. */
static void NAME(update)(long count, REAL *weights, REAL *buffer, const REAL *gradient, NAME(hypers) h) {
    long p = 0;
    for (; p + LANES <= count; p += LANES) {
        VEC w = LOAD(weights + p), decayed = FMA(NAME(of_weights)(h.decay, p), w, LOAD(gradient + p));
        VEC m = FMA(NAME(of_weights)(h.momentum, p), LOAD(buffer + p), decayed);
        VEC lr = SUB(ZERO(), NAME(of_weights)(h.lr, p));
        STORE(buffer + p, m);
        STORE(weights + p, FMA(lr, m, w));
    }
    for (; p < count; p++) {
        REAL decayed = FMA1(NAME(of_weight)(h.decay, p), weights[p], gradient[p]);
        buffer[p] = FMA1(NAME(of_weight)(h.momentum, p), buffer[p], decayed);
        weights[p] = FMA1(-NAME(of_weight)(h.lr, p), buffer[p], weights[p]);
    }
}

static double NAME(now)(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* `number` weight updates of every row, one row after another: weights and buffer (R, P) are changed in place.

   Before update t, finite (number, R) gets 0 if weights and training loss are finite, else NaN; where recorded[t], the
   training loss and those of the `others` (up to two more batches) are the next row of losses (1 + others, recorded, R).
   `seconds` grows by the time that the others took.

   Unless last_inner is NULL, what can be asked of the last update is kept: weights and buffer before it (R, P), inner
   (R, H, K) and masks (R, mask_bytes) as linearise has them. */
int NAME(updates)(
    long rows, int hidden, int inputs, REAL *weights, REAL *buffer, const NAME(batch) *batch, long number,
    const NAME(hyper) *lr, const NAME(hyper) *decay, const NAME(hyper) *momentum, const uint8_t *recorded, long others,
    const NAME(batch) *other, REAL *finite, REAL *losses, double *seconds, REAL *last_weights, REAL *last_buffer,
    REAL *last_inner, uint8_t *last_masks) {
    NAME(shape) s = NAME(shape_of)(hidden, inputs);
    NAME(room) room = NAME(make_room)(s);
    long mask_bytes = NAME(mask_bytes)(hidden, inputs, batch->columns), kept = 0;
    char *more = aligned_alloc(64, (s.weights * sizeof(REAL) + mask_bytes + 2 * 64) / 64 * 64);
    if (!room.all || !more) {
        free(room.all);
        free(more);
        return 1;
    }
    REAL *gradient = (REAL *)more;
    uint8_t *mask = (uint8_t *)(gradient + s.weights);
    for (long t = 0; t < number; t++) kept += recorded[t] != 0;
    for (long r = 0; r < rows; r++) {
        NAME(batch) b = NAME(own_batch)(batch, r);
        NAME(hypers) h = {*lr, *decay, *momentum};
        h.lr.values += r * lr->row;
        h.decay.values += r * decay->row;
        h.momentum.values += r * momentum->row;
        REAL *w = weights + r * s.weights, *m = buffer + r * s.weights;
        for (long t = 0, row = 0; t < number; t++) {
            int keeps = last_inner && t == number - 1;
            uint8_t *own_mask = keeps ? last_masks + r * mask_bytes : mask;
            NAME(unpack)(w, s, &room.own);
            REAL loss = NAME(row_gradient)(s, &room, b, own_mask, gradient);
            if (keeps) {
                memcpy(last_weights + r * s.weights, w, sizeof(REAL) * s.weights);
                memcpy(last_buffer + r * s.weights, m, sizeof(REAL) * s.weights);
                memcpy(last_inner + r * s.hidden * s.per_unit, room.inner, sizeof(REAL) * s.hidden * s.per_unit);
            }
            finite[t * rows + r] = FMA1(loss, 0, NAME(all_finite)(w, s.weights));
            if (recorded[t]) {
                losses[row * rows + r] = loss;
                double begin = NAME(now)();
                for (long o = 0; o < others; o++) {
                    REAL slopes, found = NAME(row_loss)(s, &room, NAME(own_batch)(other + o, r), NULL, &slopes);
                    losses[((o + 1) * kept + row) * rows + r] = found;
                }
                *seconds += NAME(now)() - begin;
                row++;
            }
            NAME(update)(s.weights, w, m, gradient, h);
        }
    }
    free(room.all);
    free(more);
    return 0;
}
