/* One hidden ReLU layer with squared error, row by row, fused: hpo_bench/models/relu_regression.py says what is computed.

   A tile of columns goes through everything while it is in the first cache; of the activations only the mask leaves it,
   a bit a number. A row is computed by the same operations in the same order wherever it stands, in tiles of any size
   and with registers of any width (lanes.h), so its numbers depend on no other row and on no processor.

   Included by relu_regression_both.c, once for float and once for double. */

#include "lanes.h"
#include "weight_update.h"
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

/* The row's Euclidean norm; its numbers are followed by zeros up to whole sums. */
static REAL NAME(norm)(const REAL *padded, long count) {
    VEC squares[PARTS];
    REAL root[LANES];
    for (int part = 0; part < PARTS; part++) squares[part] = ZERO();
    for (long p = 0; p < count; p += SUM_LANES) {
        UNROLL for (int part = 0; part < PARTS; part++) {
            VEC each = LOAD(padded + p + part * LANES);
            squares[part] = FMA(each, each, squares[part]);
        }
    }
    STORE(root, SQRT(SPREAD(FOLD(squares))));
    return root[0];
}

/* sums (R, ADAMW_SUMS), see `adamw_sums`, of an update of AdamW with the first terms[r] terms of a Neumann series from
   vectors (R, P):  term <- term - (H (d * term) + lr wd term).

   `rule` has the memories before the update, gradients (R, P) are those of the loss. Unless `longest` (R) is NULL, each
   term but the first is shortened to that norm where it is longer. */
int NAME(adamw_products)(
    long rows, int hidden, int inputs, const REAL *weights, const NAME(batch) *batch, const REAL *inner,
    const uint8_t *masks, const NAME(rule) *rule, const REAL *gradients, const REAL *vectors, const int *terms,
    const REAL *longest, REAL *sums) {
    NAME(shape) s = NAME(shape_of)(hidden, inputs);
    NAME(room) room = NAME(make_room)(s);
    long padded = (s.weights + SUM_LANES - 1) / SUM_LANES * SUM_LANES;
    REAL *term = aligned_alloc(64, (5 * padded * sizeof(REAL) + 63) / 64 * 64);
    if (!room.all || !term) {
        free(room.all);
        free(term);
        return 1;
    }
    REAL *sum = term + padded, *through = sum + padded, *scaled = through + padded, *product = scaled + padded;
    long kept = (long)s.hidden * s.per_unit, mask_bytes = NAME(mask_bytes)(hidden, inputs, batch->columns);
    memset(term, 0, 5 * padded * sizeof(REAL));
    for (long r = 0; r < rows; r++) {
        NAME(batch) b = NAME(own_batch)(batch, r);
        NAME(rule) own = NAME(own_rule)(rule, r, s.weights);
        const REAL *w = weights + r * s.weights, *g = gradients + r * s.weights;
        NAME(adamw) u = NAME(adamw_of)(w, g, &own);
        memcpy(term, vectors + r * s.weights, sizeof(REAL) * s.weights);
        memcpy(sum, term, sizeof(REAL) * s.weights);
        NAME(unpack)(w, s, &room.own);
        if (terms[r] > 1) NAME(adamw_through)(&u, s.weights, through);
        for (int j = 1; j < terms[r]; j++) {
            for (long p = 0; p < padded; p += LANES) STORE(scaled + p, MUL(LOAD(through + p), LOAD(term + p)));
            NAME(row_product)(s, &room, b, masks + r * mask_bytes, inner + r * kept, scaled, product);
            for (long p = 0; p < padded; p += LANES) {
                VEC change = ADD(LOAD(product + p), MUL(NAME(adamw_decay)(&u, p, s.weights - p), LOAD(term + p)));
                STORE(term + p, SUB(LOAD(term + p), change));
            }
            REAL norm = longest ? NAME(norm)(term, padded) : 0;
            if (longest && norm > longest[r]) NAME(scale)(term, padded, longest[r] / norm);
            for (long p = 0; p < padded; p += LANES) STORE(sum + p, ADD(LOAD(sum + p), LOAD(term + p)));
        }
        NAME(adamw_sums)(&u, s.weights, sum, sums + r * ADAMW_SUMS);
    }
    free(room.all);
    free(term);
    return 0;
}

static double NAME(now)(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* Where what can be asked of the last update is kept, of all rows: weights, memories and gradient before it, inner
   (R, H, K) and masks (R, mask_bytes) as linearise has them. */
typedef struct {
    REAL *weights, *memory[MEMORIES], *gradient, *inner;
    uint8_t *masks;
} NAME(last);

/* Working space for one row's updates, beside that for its products. */
typedef struct {
    REAL *gradient, *weights, *buffer, *product, *inner;
    uint8_t *mask;
    void *all;
} NAME(space);

/* Sets `all` to NULL if there is no memory. */
static NAME(space) NAME(make_space)(NAME(shape) s, long mask_bytes) {
    NAME(space) space;
    long kept = (long)s.units * s.per_unit, numbers = 4 * s.weights + kept;
    char *from = space.all = aligned_alloc(64, (numbers * sizeof(REAL) + mask_bytes + 7 * 64) / 64 * 64);
    if (!from) return space;
    space.gradient = NAME(take)(&from, s.weights);
    space.weights = NAME(take)(&from, s.weights);
    space.buffer = NAME(take)(&from, s.weights);
    space.product = NAME(take)(&from, s.weights);
    space.inner = NAME(take)(&from, kept);
    space.mask = (uint8_t *)from;
    return space;
}

/* The tangents of row r before its update of SGD become those after it. The weights before it are in `room->own`, its
   mask and inner products in `space`. */
static void NAME(push_tangents)(
    NAME(shape) s, NAME(room) *room, NAME(batch) b, const NAME(space) *space, const NAME(rule) *own,
    const NAME(tangents) *t, long rows, long r) {
    NAME(made) made = {space->weights, space->buffer, own->memory[0], own->hypers};
    for (long i = 0; i < t->count; i++) {
        REAL *weights = t->weights + (i * rows + r) * s.weights, *buffer = t->buffer + (i * rows + r) * s.weights;
        if (t->discount != 1) {
            NAME(scale)(weights, s.weights, (REAL)t->discount);
            NAME(scale)(buffer, s.weights, (REAL)t->discount);
        }
        NAME(row_product)(s, room, b, space->mask, space->inner, weights, space->product);
        REAL slope = *NAME(own_hyper)(t->slopes[i], r).values;
        NAME(push_tangent)(s.weights, &made, t->names[i], slope, space->product, weights, buffer);
    }
}

/* What is kept of the last update of row r. */
static void NAME(keep_last)(
    NAME(shape) s, const NAME(room) *room, const NAME(space) *space, const REAL *weights, const NAME(rule) *own,
    const NAME(last) *last, long mask_bytes, long r) {
    long kept = (long)s.hidden * s.per_unit;
    memcpy(last->weights + r * s.weights, weights, sizeof(REAL) * s.weights);
    for (int m = 0; m < MEMORIES; m++) {
        long size = NAME(memory_size)(m, s.weights);
        if (own->memory[m]) memcpy(last->memory[m] + r * size, own->memory[m], sizeof(REAL) * size);
    }
    memcpy(last->gradient + r * s.weights, space->gradient, sizeof(REAL) * s.weights);
    memcpy(last->inner + r * kept, room->inner, sizeof(REAL) * kept);
    memcpy(last->masks + r * mask_bytes, space->mask, mask_bytes);
}

/* `number` weight updates of every row, one row after another: weights (R, P) and the rule's memories are changed in
   place, and so are the tangents, unless they are NULL; they are for SGD alone.

   Before update t, finite (number, R) gets 0 if weights and training loss are finite, else NaN; where recorded[t], the
   training loss and those of the `others` (up to two more batches) are the next row of losses (1 + others, recorded, R).
   `seconds` grows by the time that the others took. Unless `last` is NULL, it takes what can be asked of the last
   update. */
int NAME(updates)(
    long rows, int hidden, int inputs, REAL *weights, const NAME(rule) *rule, const NAME(batch) *batch, long number,
    const uint8_t *recorded, long others, const NAME(batch) *other, REAL *finite, REAL *losses, double *seconds,
    const NAME(last) *last, const NAME(tangents) *tangents) {
    NAME(shape) s = NAME(shape_of)(hidden, inputs);
    NAME(room) room = NAME(make_room)(s);
    long mask_bytes = NAME(mask_bytes)(hidden, inputs, batch->columns), kept = 0;
    NAME(space) space = NAME(make_space)(s, mask_bytes);
    if (!room.all || !space.all) {
        free(room.all);
        free(space.all);
        return 1;
    }
    for (long t = 0; t < number; t++) kept += recorded[t] != 0;
    for (long r = 0; r < rows; r++) {
        NAME(batch) b = NAME(own_batch)(batch, r);
        NAME(rule) own = NAME(own_rule)(rule, r, s.weights);
        REAL *w = weights + r * s.weights;
        for (long t = 0, row = 0; t < number; t++) {
            NAME(unpack)(w, s, &room.own);
            REAL loss = NAME(row_gradient)(s, &room, b, space.mask, space.gradient);
            if (last && t == number - 1) NAME(keep_last)(s, &room, &space, w, &own, last, mask_bytes, r);
            if (tangents) {
                memcpy(space.weights, w, sizeof(REAL) * s.weights);
                memcpy(space.buffer, own.memory[0], sizeof(REAL) * s.weights);
                memcpy(space.inner, room.inner, sizeof(REAL) * s.hidden * s.per_unit);
            }
            finite[t * rows + r] = FMA1(loss, 0, NAME(all_finite)(w, s.weights));
            NAME(update)(s.weights, w, space.gradient, &own);
            if (tangents) NAME(push_tangents)(s, &room, b, &space, &own, tangents, rows, r);
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
        }
    }
    free(room.all);
    free(space.all);
    return 0;
}
