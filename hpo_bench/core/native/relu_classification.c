/* One hidden ReLU layer with softmax cross-entropy, row by row: hpo_bench/models/relu_classification.py says what is
   computed, in the same names.

   A batch is a list of pointers to rows of the dataset, so nothing is gathered. Each large product is made in tiles that
   live in registers: on the way forward inner products along the inputs, on the way back sums over the batch, which the
   weight update takes up at once, so that there is no array of the gradient.

   The rules of lanes.h hold: an inner product is SUM_LANES sums, each in the order of the inputs, folded; a sum over the
   batch is in the order of its rows. So tiles, blocks and registers change nothing, and no repetition sees another.

   Arrays of activations are (units, columns), a column for each row of the batch, padded with zeros to whole SUM_LANES.

   Included twice by relu_classification_both.c, for float and double. */

#if defined(LANES_AVX512) /* 25 sums, 5 units and a row fit 32 registers, */
#define FORWARD_UNITS 5
#define FORWARD_ROWS 5
#define BACKWARD_VECTORS 7 /* of inputs at once on the way back: 784 inputs are a whole number of tiles */
#else /* 12 sums, 3 units and a row fit 16 */
#define FORWARD_UNITS 3
#define FORWARD_ROWS 4
#define BACKWARD_VECTORS 12
#endif
#define SMALL_UNITS 5 /* outputs of a product with a matrix of activations at once, */
#define SMALL_VECTORS 2
#define MOST_OTHERS 8 /* vectors that a series is multiplied by */
#define AHEAD_LINES 7  /* of memory that are asked for at once, */
#define LINE ((long)(64 / sizeof(REAL)))
#define BLOCK 80       /* rows whose inputs stay in the second cache while all units read them, */
#define BACK_BLOCK 64  /* and of which a few columns stay in the first; multiples of SUM_LANES */

typedef WHOLE NAME(integers) __attribute__((vector_size(sizeof(VEC))));
#define INTEGERS NAME(integers)

/* The first n numbers (none if n < 0), and zeros; never reads beyond them. */
ALWAYS VEC NAME(load_part)(const REAL *p, long n) {
    if (n >= LANES) return LOAD(p);
    REAL numbers[LANES] = {0};
    for (long i = 0; i < n; i++) numbers[i] = p[i];
    return LOAD(numbers);
}

ALWAYS void NAME(store_part)(REAL *p, VEC v, long n) {
    if (n >= LANES) {
        STORE(p, v);
        return;
    }
    REAL numbers[LANES];
    STORE(numbers, v);
    for (long i = 0; i < n; i++) p[i] = numbers[i];
}

ALWAYS VEC NAME(where)(INTEGERS on, VEC v) { return (VEC)(on & (INTEGERS)v); }
ALWAYS VEC NAME(choose)(INTEGERS on, VEC yes, VEC no) { return (VEC)((on & (INTEGERS)yes) | (~on & (INTEGERS)no)); }
ALWAYS INTEGERS NAME(whole_load)(const WHOLE *p) { return (INTEGERS)LOAD((const REAL *)p); }

/* e^x for x <= 0; NaN stays. x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its series. */
ALWAYS VEC NAME(exp)(VEC x) {
    const REAL factors[] = {1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
                            1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    VEC shift = SPREAD(ROUNDING), least = SPREAD(LEAST_EXPONENT);
    x = NAME(choose)((INTEGERS)(x < least), least, x);
    VEC shifted = FMA(x, SPREAD((REAL)1.44269504088896340736), shift);
    INTEGERS n = (INTEGERS)shifted - (INTEGERS)shift;
    VEC whole = SUB(shifted, shift);
    VEC r = FMA(whole, SPREAD((REAL)-LN2_LOW), FMA(whole, SPREAD((REAL)-LN2_HIGH), x));
    VEC series = SPREAD(factors[EXP_TERMS]);
    UNROLL for (int i = EXP_TERMS - 1; i >= 2; i--) series = FMA(series, r, SPREAD(factors[i]));
    VEC power = ADD(FMA(MUL(series, r), r, r), SPREAD(1));
    INTEGERS half = n >> 1, rest = n - half; /* in two steps, so that what is nearly 0 is not 0 */
    VEC first = (VEC)((half + EXPONENT_BIAS) << MANTISSA), second = (VEC)((rest + EXPONENT_BIAS) << MANTISSA);
    return MUL(MUL(power, first), second);
}

/* ln x for x >= 1; NaN and infinity stay. x = 2^e (1 + f), and ln(1 + f) = 2 artanh(f / (2 + f)) by its series. */
ALWAYS VEC NAME(log)(VEC x) {
    INTEGERS root = (INTEGERS)SPREAD((REAL)0.70710678118654752440), above = (INTEGERS)x - root;
    VEC f = SUB((VEC)((above & (((WHOLE)1 << MANTISSA) - 1)) + root), SPREAD(1));
    VEC s = f / ADD(f, SPREAD(2)), square = MUL(s, s), series = ZERO();
    UNROLL for (int k = LOG_TERMS; k >= 1; k--) series = FMA(series, square, SPREAD((REAL)(2.0 / (2 * k + 1))));
    VEC exponent = __builtin_convertvector(above >> MANTISSA, VEC);
    VEC of_f = SUB(f, MUL(s, SUB(f, MUL(series, square))));
    VEC result = FMA(exponent, SPREAD((REAL)0.69314718055994530942), of_f);
    return NAME(choose)((INTEGERS)(SUB(x, x) == ZERO()), result, x);
}

/* `FOLD` of four groups of sums at once: sums (PARTS, apart), the first four of each part. */
ALWAYS void NAME(fold_four)(const VEC *sums, int apart, REAL *out) {
#if defined(LANES_AVX512) && REAL_BITS == 32
    VEC ab = ADD(_mm512_shuffle_f32x4(sums[0], sums[1], 0x44), _mm512_shuffle_f32x4(sums[0], sums[1], 0xEE));
    VEC cd = ADD(_mm512_shuffle_f32x4(sums[2], sums[3], 0x44), _mm512_shuffle_f32x4(sums[2], sums[3], 0xEE));
    VEC four = ADD(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    four = ADD(four, _mm512_permute_ps(four, 0x4E));
    four = ADD(four, _mm512_permute_ps(four, 0xB1));
    __m512i order = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(order, four)));
    (void)apart;
#elif defined(LANES_AVX2) && REAL_BITS == 32
    VEC a = ADD(sums[0], sums[apart]), b = ADD(sums[1], sums[apart + 1]);
    VEC c = ADD(sums[2], sums[apart + 2]), d = ADD(sums[3], sums[apart + 3]);
    VEC ab = ADD(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    VEC cd = ADD(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
    VEC four = ADD(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    four = ADD(_mm256_shuffle_ps(four, four, 0x88), _mm256_shuffle_ps(four, four, 0xDD));
    _mm_storeu_ps(out, _mm_unpacklo_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
#else
    for (int i = 0; i < 4; i++) {
        VEC own[PARTS];
        for (int part = 0; part < PARTS; part++) own[part] = sums[part * apart + i];
        out[i] = FOLD(own);
    }
#endif
}

/* Inner products of U rows and N rows of K numbers: out (U, stride). */
ALWAYS void NAME(inner_tile)(
    const int U, const int N, const REAL *const *left, const REAL *const *right, int K, REAL *out, long stride) {
    const REAL *a[FORWARD_UNITS], *b[FORWARD_ROWS];
    VEC parts[PARTS * FORWARD_UNITS * FORWARD_ROWS];
    UNROLL for (int i = 0; i < U; i++) a[i] = left[i];
    UNROLL for (int j = 0; j < N; j++) b[j] = right[j];
    int whole = K - K % SUM_LANES;
    UNROLL for (int part = 0; part < PARTS; part++) {
        VEC sums[FORWARD_UNITS][FORWARD_ROWS], column[FORWARD_UNITS];
        int k = part * LANES;
        UNROLL for (int i = 0; i < U; i++)
            UNROLL for (int j = 0; j < N; j++) sums[i][j] = ZERO();
        for (; k < whole; k += SUM_LANES) {
            UNROLL for (int i = 0; i < U; i++) {
                column[i] = LOAD(a[i] + k);
                HOLD(column[i]);
            }
            UNROLL for (int j = 0; j < N; j++) {
                VEC row = LOAD(b[j] + k);
                HOLD(row);
                UNROLL for (int i = 0; i < U; i++) sums[i][j] = FMA(column[i], row, sums[i][j]);
            }
        }
        if (whole < K) {
            UNROLL for (int i = 0; i < U; i++) column[i] = NAME(load_part)(a[i] + k, K - k);
            UNROLL for (int j = 0; j < N; j++) {
                VEC row = NAME(load_part)(b[j] + k, K - k);
                UNROLL for (int i = 0; i < U; i++) sums[i][j] = FMA(column[i], row, sums[i][j]);
            }
        }
        UNROLL for (int i = 0; i < U; i++)
            UNROLL for (int j = 0; j < N; j++) parts[(part * U + i) * N + j] = sums[i][j];
    }
    REAL folded[FORWARD_UNITS * FORWARD_ROWS];
    int at = 0;
    UNROLL for (; at + 4 <= U * N; at += 4) NAME(fold_four)(parts + at, U * N, folded + at);
    for (; at < U * N; at++) {
        VEC own[PARTS];
        for (int part = 0; part < PARTS; part++) own[part] = parts[part * U * N + at];
        folded[at] = FOLD(own);
    }
    for (int i = 0; i < U; i++) memcpy(out + i * stride, folded + i * N, N * sizeof(REAL));
}

/* One routine for each size of tile, so that its sums are in registers. */
#define INNER(SIZE, U, N)                                                                                              \
    static __attribute__((noinline)) void NAME(inner_##SIZE)(                                                          \
        const REAL *const *left, const REAL *const *right, int K, REAL *out, long stride) {                            \
        NAME(inner_tile)(U, N, left, right, K, out, stride);                                                           \
    }
INNER(many_many, FORWARD_UNITS, FORWARD_ROWS)
INNER(many_one, FORWARD_UNITS, 1)
INNER(two_many, 2, FORWARD_ROWS)
INNER(two_one, 2, 1)
INNER(one_many, 1, FORWARD_ROWS)
INNER(one_one, 1, 1)

#define INNER_ROWS(UNITS)                                                                                              \
    do {                                                                                                               \
        for (; b + FORWARD_ROWS <= end; b += FORWARD_ROWS)                                                             \
            NAME(inner_##UNITS##_many)(left + i, right + b, K, out + i * stride + b, stride);                          \
        for (; b < end; b++) NAME(inner_##UNITS##_one)(left + i, right + b, K, out + i * stride + b, stride);          \
    } while (0)

/* Inner products of M rows and B rows of K numbers: out (M, stride). */
static void NAME(inner)(
    const REAL *const *left, int M, const REAL *const *right, long B, int K, REAL *out, long stride) {
    for (long begin = 0; begin < B; begin += BLOCK) {
        long end = begin + BLOCK < B ? begin + BLOCK : B;
        for (int i = 0; i < M;) {
            long b = begin;
            if (M - i >= FORWARD_UNITS) {
                INNER_ROWS(many);
                i += FORWARD_UNITS;
            } else if (M - i >= 2) {
                INNER_ROWS(two);
                i += 2;
            } else {
                INNER_ROWS(one);
                i += 1;
            }
        }
    }
}

/* Inner products of B rows with each other: out (B, stride), of which one half is computed and the other is the same. */
static void NAME(inner_of_rows)(const REAL *const *rows, long B, int K, REAL *out, long stride) {
    const REAL *const *left = rows, *const *right = rows;
    for (long i = 0, end = B; i < B;) {
        long b = i;
        if (B - i >= FORWARD_UNITS) {
            INNER_ROWS(many);
            i += FORWARD_UNITS;
        } else if (B - i >= 2) {
            INNER_ROWS(two);
            i += 2;
        } else {
            INNER_ROWS(one);
            i += 1;
        }
    }
    for (long i = 1; i < B; i++)
        for (long b = 0; b < i; b++) out[i * stride + b] = out[b * stride + i];
}

/* A hyperparameter of R repetitions, `row` numbers apart: one value each, or, where `weight` is 1, one for each weight. */
typedef struct {
    const REAL *values;
    long row, weight;
} NAME(hyper);

/* One update of one repetition's weights, and the hyperparameters in force; `new_` may be where the old ones are.
   `finite` takes up w - w: NaN once a new weight is not finite. */
typedef struct {
    const REAL *weights, *buffer;
    REAL *new_weights, *new_buffer;
    NAME(hyper) lr, weight_decay, momentum;
    int each; /* whether a hyperparameter has a value for each weight */
    REAL finite[SUM_LANES];
} NAME(update);

/* The end of a series, p = alpha v + sums over the batch, which is stored if `total` says where, and its products with
   other vectors. dots (n, H, SUM_LANES): a unit's sums are its own, so that tiles may come in any order. */
typedef struct {
    const REAL *vector, *const *others;
    int n, H;
    REAL alpha, *dots, *total;
} NAME(end_of_series);

enum NAME(use) { NAME(STORED), NAME(TAKEN_BY_UPDATE), NAME(TAKEN_BY_SERIES) };

/* What becomes of sums over the batch: they are stored, or made use of where they are. */
typedef struct {
    REAL *stored;
    NAME(update) *update;
    NAME(end_of_series) *series;
} NAME(target);

ALWAYS NAME(hyper) NAME(of_row)(const NAME(hyper) *hyper, long r) {
    return (NAME(hyper)){hyper->values + r * hyper->row, hyper->row, hyper->weight};
}
ALWAYS VEC NAME(value)(const NAME(hyper) *hyper, long at, long n) {
    return hyper->weight ? NAME(load_part)(hyper->values + at, n) : SPREAD(*hyper->values);
}

ALWAYS NAME(update) NAME(update_of)(
    const REAL *weights, const REAL *buffer, const NAME(hyper) *lr, const NAME(hyper) *weight_decay,
    const NAME(hyper) *momentum, long r) {
    int each = lr->weight || weight_decay->weight || momentum->weight;
    return (NAME(update)){
        weights, buffer, NULL, NULL, NAME(of_row)(lr, r), NAME(of_row)(weight_decay, r), NAME(of_row)(momentum, r),
        each, {0}};
}

/* g + wd w, mu m + that, w - lr that, for V registers of sums, the last of them of n numbers: as `advance` of
   hpo_bench/core/update.py, which fuses the same. */
ALWAYS VEC NAME(advance_by)(
    const int each, const int V, const NAME(update) *u, long at, const VEC *gradient, long n, VEC finite) {
    const REAL *weights = u->weights + at, *buffer = u->buffer + at;
    REAL *new_weights = u->new_weights + at, *new_buffer = u->new_buffer + at;
    VEC decay = SPREAD(*u->weight_decay.values), keeps = SPREAD(*u->momentum.values), lr = SPREAD(*u->lr.values);
    UNROLL for (int j = 0; j < V; j++) {
        long own = at + j * LANES;
        if (each) {
            decay = NAME(value)(&u->weight_decay, own, n);
            keeps = NAME(value)(&u->momentum, own, n);
            lr = NAME(value)(&u->lr, own, n);
        }
        VEC w = NAME(load_part)(weights + j * LANES, n), m = NAME(load_part)(buffer + j * LANES, n);
        m = FMA(keeps, m, FMA(decay, w, gradient[j]));
        w = FMA(-lr, m, w);
        NAME(store_part)(new_buffer + j * LANES, m, n);
        NAME(store_part)(new_weights + j * LANES, w, n);
        finite = ADD(finite, SUB(w, w));
    }
    return finite;
}

ALWAYS VEC NAME(advance)(const int V, const NAME(update) *u, long at, const VEC *gradient, long n, VEC finite) {
    if (u->each) return NAME(advance_by)(1, V, u, at, gradient, n, finite);
    return NAME(advance_by)(0, V, u, at, gradient, n, finite);
}

/* V registers, of n numbers, of sums of unit h and the inputs from k on. */
ALWAYS void NAME(take)(
    const enum NAME(use) use, const int V, const NAME(target) *t, int h, int k, int K, const VEC *sums, int n,
    VEC *finite) {
    long at = (long)h * K + k;
    if (use == NAME(STORED)) {
        UNROLL for (int j = 0; j < V; j++) NAME(store_part)(t->stored + at + j * LANES, sums[j], n);
    } else if (use == NAME(TAKEN_BY_UPDATE)) {
        *finite = NAME(advance)(V, t->update, at, sums, n, *finite);
    } else {
        const NAME(end_of_series) *series = t->series;
        UNROLL for (int j = 0; j < V; j++) {
            long own = at + j * LANES;
            VEC p = FMA(SPREAD(series->alpha), NAME(load_part)(series->vector + own, n), sums[j]);
            if (series->total != NULL) NAME(store_part)(series->total + own, p, n);
            for (int other = 0; other < series->n; other++) {
                REAL *dot = series->dots + ((long)other * series->H + h) * SUM_LANES + (k + j * LANES) % SUM_LANES;
                STORE(dot, FMA(p, NAME(load_part)(series->others[other] + own, n), LOAD(dot)));
            }
        }
    }
}

/* out (M, stride) = bias + A In, or out += A In: A (M, K) with any steps between its numbers, In (K, stride). */
ALWAYS void NAME(small_tile)(
    const int U, const int V, const REAL *A, long step, long inner_step, int K, const REAL *in, long stride,
    const REAL *bias, REAL *out) {
    VEC sums[SMALL_UNITS][SMALL_VECTORS];
    UNROLL for (int i = 0; i < U; i++)
        UNROLL for (int j = 0; j < V; j++)
            sums[i][j] = bias != NULL ? SPREAD(bias[i]) : LOAD(out + i * stride + j * LANES);
    for (int k = 0; k < K; k++) {
        VEC column[SMALL_VECTORS];
        UNROLL for (int j = 0; j < V; j++) column[j] = LOAD(in + k * stride + j * LANES);
        UNROLL for (int i = 0; i < U; i++) {
            VEC factor = SPREAD(A[i * step + k * inner_step]);
            UNROLL for (int j = 0; j < V; j++) sums[i][j] = FMA(factor, column[j], sums[i][j]);
        }
    }
    UNROLL for (int i = 0; i < U; i++)
        UNROLL for (int j = 0; j < V; j++) STORE(out + i * stride + j * LANES, sums[i][j]);
}

static void NAME(small)(
    const REAL *A, long step, long inner_step, int M, int K, const REAL *in, long stride, long columns,
    const REAL *bias, REAL *out) {
    for (long c = 0; c < columns;) {
        int pair = columns - c >= SMALL_VECTORS * LANES;
        for (int m = 0; m < M;) {
            int many = M - m >= SMALL_UNITS;
            const REAL *own = A + m * step, *start = bias == NULL ? NULL : bias + m;
            REAL *place = out + m * stride + c;
            if (many && pair) NAME(small_tile)(SMALL_UNITS, SMALL_VECTORS, own, step, inner_step, K, in + c, stride, start, place);
            else if (many) NAME(small_tile)(SMALL_UNITS, 1, own, step, inner_step, K, in + c, stride, start, place);
            else if (pair) NAME(small_tile)(1, SMALL_VECTORS, own, step, inner_step, K, in + c, stride, start, place);
            else NAME(small_tile)(1, 1, own, step, inner_step, K, in + c, stride, start, place);
            m += many ? SMALL_UNITS : 1;
        }
        c += pair ? SMALL_VECTORS * LANES : LANES;
    }
}

/* Sum of each of M rows of columns, in the order of SUM_LANES. */
static void NAME(row_sums)(const REAL *rows, int M, long stride, REAL *out) {
    for (int m = 0; m < M; m++) {
        VEC sums[PARTS];
        for (int part = 0; part < PARTS; part++) {
            sums[part] = ZERO();
            for (long c = part * LANES; c < stride; c += SUM_LANES) sums[part] = ADD(sums[part], LOAD(rows + m * stride + c));
        }
        out[m] = FOLD(sums);
    }
}

/* Rows that are going to be read next, of `length` numbers each, and how far they have been asked for: they lie anywhere
   in memory, and come while other things are computed. */
typedef struct {
    const REAL **rows;
    long count, length, row, at;
} NAME(ahead);

ALWAYS void NAME(ask)(NAME(ahead) *ahead, long times) {
    for (long i = 0; i < times && ahead->row < ahead->count; i++) {
        const REAL *from = ahead->rows[ahead->row] + ahead->at;
        UNROLL for (int line = 0; line < AHEAD_LINES; line++) __builtin_prefetch(from + line * LINE, 0, 2);
        ahead->at += AHEAD_LINES * LINE;
        if (ahead->at >= ahead->length) ahead->at = 0, ahead->row++;
    }
}

/* Sizes of a problem, where the weights of a repetition lie, and its working space. */
typedef struct {
    int H, d, C;
    long P, most;                 /* numbers of weights, and of the columns of any batch */
    const REAL **rows, **left, **right; /* pointers to rows: of a batch, and of what is multiplied */
    NAME(ahead) ahead;            /* rows of the next batch */
    WHOLE *classes;               /* of a batch; -1 in the padding */
    int *active, *counts;         /* (H, BACK_BLOCK) and (H,): rows for which a unit is on */
    REAL *hidden, *chances, *slopes;    /* kept from a forward pass: (H, columns), (C, columns), (C, columns) */
    REAL *inner, *change;         /* (H, columns) */
    REAL *scores;                 /* (C, columns) */
    REAL *small;                  /* gradients of b1, W2, b2 */
    REAL *space;                  /* (P,) */
} NAME(problem);

/* Rows of a dataset: `chosen` row numbers, or the first `count` in their order. */
typedef struct {
    const REAL *inputs;
    const int64_t *targets, *chosen;
    long count;
} NAME(batch);

ALWAYS long NAME(columns)(long count) { return (count + SUM_LANES - 1) / SUM_LANES * SUM_LANES; }
ALWAYS const REAL *NAME(b1)(const NAME(problem) *p, const REAL *w) { return w + (long)p->H * p->d; }
ALWAYS const REAL *NAME(W2)(const NAME(problem) *p, const REAL *w) { return w + (long)p->H * p->d + p->H; }
ALWAYS const REAL *NAME(b2)(const NAME(problem) *p, const REAL *w) { return w + p->P - p->C; }

/* Sums over some rows of the batch of unit h's slopes times an input, for V registers of inputs from k on. `active` lists
   the rows, all others have a slope of 0; without `first` the sums go on from those in `space`. Meanwhile the weights of
   the next unit are asked for, and a part of the next batch. */
ALWAYS void NAME(outer_tile)(
    const enum NAME(use) use, const int V, NAME(problem) *p, const REAL *slopes, int h, int k, int first, int last,
    const NAME(target) *target, VEC *finite) {
    VEC sums[BACKWARD_VECTORS];
    const REAL *const *rows = p->rows;
    const int *active = p->active + h * BACK_BLOCK, count = p->counts[h], K = p->d;
    REAL *before = p->space + (long)h * K + k;
    int n = V > 1 ? LANES : K - k;
    if (use == NAME(TAKEN_BY_UPDATE) && last && h + 1 < p->H) {
        long next = (long)(h + 1) * K + k;
        UNROLL for (int j = 0; j < V; j++) {
            __builtin_prefetch(target->update->weights + next + j * LANES);
            __builtin_prefetch(target->update->buffer + next + j * LANES);
        }
    }
    if (last) NAME(ask)(&p->ahead, 1 + p->ahead.count / p->H);
    UNROLL for (int j = 0; j < V; j++) sums[j] = first ? ZERO() : NAME(load_part)(before + j * LANES, n);
    for (int i = 0; i < count; i++) {
        const REAL *row = rows[active[i]] + k;
        VEC slope = SPREAD(slopes[active[i]]);
        UNROLL for (int j = 0; j < V; j++) sums[j] = FMA(slope, NAME(load_part)(row + j * LANES, n), sums[j]);
    }
    if (last) {
        NAME(take)(use, V, target, h, k, K, sums, n, finite);
    } else {
        UNROLL for (int j = 0; j < V; j++) NAME(store_part)(before + j * LANES, sums[j], n);
    }
}

/* One routine for each size of tile, as for inner products. */
#define OUTER_TILE(USE, SIZE, V)                                                                                       \
    static __attribute__((noinline)) void NAME(outer_##USE##_##SIZE)(                                                  \
        NAME(problem) *p, const REAL *slopes, int h, int k, int first, int last, const NAME(target) *target,           \
        VEC *finite) {                                                                                                 \
        NAME(outer_tile)(NAME(USE), V, p, slopes, h, k, first, last, target, finite);                                  \
    }
OUTER_TILE(STORED, many, BACKWARD_VECTORS)
OUTER_TILE(STORED, one, 1)
OUTER_TILE(TAKEN_BY_UPDATE, many, BACKWARD_VECTORS)
OUTER_TILE(TAKEN_BY_UPDATE, one, 1)
OUTER_TILE(TAKEN_BY_SERIES, many, BACKWARD_VECTORS)
OUTER_TILE(TAKEN_BY_SERIES, one, 1)

/* Which of `count` slopes are not 0. */
static int NAME(find_active)(const REAL *slopes, long from, long to, int *active) {
    int found = 0;
    for (long b = from; b < to; b++) {
        active[found] = (int)b;
        found += slopes[b] != 0;
    }
    return found;
}

/* Sums over a batch of B rows of E (M, stride) times K inputs, a few columns of all rows at a time, which stay in the
   first cache. Rows that a unit is not on for are left out: their slopes are 0, and adding 0 changes no bit. */
#define OUTER(USE)                                                                                                     \
    static void NAME(outer_##USE)(                                                                                     \
        NAME(problem) *p, const REAL *E, long stride, long B, NAME(target) target) {                                   \
        VEC finite = ZERO();                                                                                           \
        int M = p->H, K = p->d;                                                                                        \
        for (long from = 0; from < B; from += BACK_BLOCK) {                                                            \
            long to = from + BACK_BLOCK < B ? from + BACK_BLOCK : B;                                                   \
            for (int h = 0; h < M; h++)                                                                                \
                p->counts[h] = NAME(find_active)(E + h * stride, from, to, p->active + h * BACK_BLOCK);                \
            for (int k = 0; k < K;) {                                                                                  \
                int many = K - k >= BACKWARD_VECTORS * LANES;                                                          \
                for (int h = 0; h < M; h++) {                                                                          \
                    const REAL *slopes = E + h * stride;                                                               \
                    if (many) NAME(outer_##USE##_many)(p, slopes, h, k, from == 0, to == B, &target, &finite);         \
                    else NAME(outer_##USE##_one)(p, slopes, h, k, from == 0, to == B, &target, &finite);               \
                }                                                                                                      \
                k += many ? BACKWARD_VECTORS * LANES : LANES;                                                          \
            }                                                                                                          \
        }                                                                                                              \
        if (target.update != NULL) STORE(target.update->finite, ADD(LOAD(target.update->finite), finite));             \
    }
OUTER(STORED)
OUTER(TAKEN_BY_UPDATE)
OUTER(TAKEN_BY_SERIES)

static void NAME(point)(const REAL **pointers, const REAL *first, long count, long apart) {
    for (long i = 0; i < count; i++) pointers[i] = first + i * apart;
}

/* Find the rows and classes of a batch. */
static void NAME(find)(NAME(problem) *p, NAME(batch) batch) {
    long columns = NAME(columns)(batch.count);
    for (long b = 0; b < batch.count; b++) {
        long row = batch.chosen == NULL ? b : batch.chosen[b];
        p->rows[b] = batch.inputs + row * p->d;
        p->classes[b] = (WHOLE)batch.targets[row];
    }
    for (long b = batch.count; b < columns; b++) p->classes[b] = -1;
}

/* Let the rows of a batch be asked for while the one before it is worked on. */
static void NAME(look_ahead)(NAME(problem) *p, NAME(batch) batch) {
    p->ahead.count = batch.count, p->ahead.row = p->ahead.at = 0;
    for (long b = 0; b < batch.count; b++) {
        long row = batch.chosen == NULL ? b : batch.chosen[b];
        p->ahead.rows[b] = batch.inputs + row * p->d;
        __builtin_prefetch(batch.targets + row);
    }
}

/* Hidden activations and scores of the batch that was found. */
static void NAME(forward)(NAME(problem) *p, const REAL *w, long count) {
    long columns = NAME(columns)(count);
    NAME(point)(p->left, w, p->H, p->d);
    NAME(inner)(p->left, p->H, p->rows, count, p->d, p->hidden, columns);
    const REAL *bias = NAME(b1)(p, w);
    for (int h = 0; h < p->H; h++) {
        REAL *row = p->hidden + h * columns;
        for (long c = count; c < columns; c++) row[c] = 0;
        for (long c = 0; c < columns; c += LANES) {
            INTEGERS real = NAME(whole_load)(p->classes + c) >= 0;
            STORE(row + c, NAME(where)(real, RELU(ADD(LOAD(row + c), SPREAD(bias[h])))));
        }
    }
    NAME(small)(NAME(W2)(p, w), p->H, 1, p->C, p->H, p->hidden, columns, columns, NAME(b2)(p, w), p->scores);
}

/* Sum of the cross-entropies of the batch; `wrong` grows by the rows of which another class than the true one is the
   first with the highest score. The chances are kept if wanted. */
static REAL NAME(softmax)(NAME(problem) *p, long count, int keep, long *wrong) {
    long columns = NAME(columns)(count);
    VEC losses[PARTS];
    for (int part = 0; part < PARTS; part++) losses[part] = ZERO();
    for (long c = 0; c < columns; c += LANES) {
        INTEGERS classes = NAME(whole_load)(p->classes + c), best = (INTEGERS){0}, real = classes >= 0;
        VEC highest = LOAD(p->scores + c), own = ZERO(), total = ZERO();
        for (int k = 1; k < p->C; k++) {
            VEC score = LOAD(p->scores + k * columns + c);
            INTEGERS higher = (INTEGERS)(score > highest);
            highest = NAME(choose)(higher, score, highest);
            best = (higher & (WHOLE)k) | (~higher & best);
        }
        for (int k = 0; k < p->C; k++) {
            VEC below = SUB(LOAD(p->scores + k * columns + c), highest), power = NAME(exp)(below);
            own = NAME(choose)((INTEGERS)(classes == (WHOLE)k), below, own);
            total = ADD(total, power);
            if (keep) STORE(p->chances + k * columns + c, power);
        }
        int part = (int)(c % SUM_LANES) / LANES;
        losses[part] = ADD(losses[part], NAME(where)(real, SUB(NAME(log)(total), own)));
        if (wrong != NULL) {
            INTEGERS missed = real & (best != classes);
            for (int lane = 0; lane < LANES; lane++) *wrong -= (long)missed[lane];
        }
        if (!keep) continue;
        VEC factor = SPREAD(1) / total;
        for (int k = 0; k < p->C; k++) {
            REAL *chance = p->chances + k * columns + c;
            STORE(chance, NAME(where)(real, MUL(LOAD(chance), factor)));
        }
    }
    return FOLD(losses);
}

/* The slopes (p - onehot(y)) / B of the batch's mean loss, from the chances. */
static void NAME(find_slopes)(NAME(problem) *p, long count) {
    long columns = NAME(columns)(count);
    VEC share = SPREAD((REAL)1 / (REAL)count);
    for (int k = 0; k < p->C; k++)
        for (long c = 0; c < columns; c += LANES) {
            INTEGERS own = (INTEGERS)(NAME(whole_load)(p->classes + c) == (WHOLE)k);
            VEC chance = LOAD(p->chances + k * columns + c);
            STORE(p->slopes + k * columns + c, MUL(SUB(chance, NAME(where)(own, SPREAD(1))), share));
        }
}

/* out (H, columns) = (W2' S) where the hidden units are on, and added to by another such product if there is one. */
static void NAME(pull_back)(
    NAME(problem) *p, const REAL *second, const REAL *slopes, const REAL *second_v, const REAL *slopes_v, long columns,
    REAL *out) {
    memset(out, 0, p->H * columns * sizeof(REAL));
    NAME(small)(second, 1, p->H, p->H, p->C, slopes, columns, columns, NULL, out);
    if (second_v != NULL) NAME(small)(second_v, 1, p->H, p->H, p->C, slopes_v, columns, columns, NULL, out);
    for (long i = 0; i < p->H * columns; i += LANES)
        STORE(out + i, NAME(where)((INTEGERS)(LOAD(p->hidden + i) > ZERO()), LOAD(out + i)));
}

/* Gradients of W2, out (C, H): inner products of slopes and hidden activations along the batch. */
static void NAME(second_layer)(NAME(problem) *p, const REAL *slopes, const REAL *hidden, long columns, REAL *out) {
    NAME(point)(p->left, slopes, p->C, columns);
    NAME(point)(p->right, hidden, p->H, columns);
    NAME(inner)(p->left, p->C, p->right, p->H, (int)columns, out, p->H);
}

/* What ctypes hands over: rows of a dataset for R repetitions, how far apart theirs lie (0: the same for all). */
typedef struct {
    const REAL *inputs;
    const int64_t *targets, *chosen;
    long inputs_apart, targets_apart, chosen_apart, count;
} NAME(rows);

static NAME(batch) NAME(of)(const NAME(rows) *rows, long r) {
    const int64_t *chosen = rows->chosen == NULL ? NULL : rows->chosen + r * rows->chosen_apart;
    return (NAME(batch)){
        rows->inputs + r * rows->inputs_apart, rows->targets + r * rows->targets_apart, chosen, rows->count};
}

static void *NAME(place)(char **at, size_t bytes) {
    void *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* Working space for batches of up to `most` rows; NULL without memory. Free what is returned. */
static void *NAME(prepare)(NAME(problem) *p, int H, int d, int C, long most) {
    size_t columns = (size_t)NAME(columns)(most), P = (size_t)H * d + H + (size_t)C * H + C;
    size_t rows = columns + H + C, numbers = (3 * (size_t)H + 3 * (size_t)C) * columns + 2 * P;
    char *space, *at;
    if (posix_memalign((void **)&space, 64, rows * 4 * sizeof(REAL *) + columns * sizeof(WHOLE) + H * (BACK_BLOCK + 1) * sizeof(int) +
                                                numbers * sizeof(REAL) + 20 * 64)) return NULL;
    at = space;
    p->H = H, p->d = d, p->C = C, p->P = (long)P, p->most = most;
    p->rows = NAME(place)(&at, rows * sizeof(REAL *));
    p->ahead = (NAME(ahead)){NAME(place)(&at, rows * sizeof(REAL *)), 0, d, 0, 0};
    p->left = NAME(place)(&at, rows * sizeof(REAL *));
    p->right = NAME(place)(&at, rows * sizeof(REAL *));
    p->classes = NAME(place)(&at, columns * sizeof(WHOLE));
    p->active = NAME(place)(&at, H * BACK_BLOCK * sizeof(int));
    p->counts = NAME(place)(&at, H * sizeof(int));
    p->hidden = NAME(place)(&at, H * columns * sizeof(REAL));
    p->chances = NAME(place)(&at, C * columns * sizeof(REAL));
    p->slopes = NAME(place)(&at, C * columns * sizeof(REAL));
    p->inner = NAME(place)(&at, H * columns * sizeof(REAL));
    p->change = NAME(place)(&at, H * columns * sizeof(REAL));
    p->scores = NAME(place)(&at, C * columns * sizeof(REAL));
    p->small = NAME(place)(&at, (P - (size_t)H * d) * sizeof(REAL));
    p->space = NAME(place)(&at, P * sizeof(REAL));
    return space;
}

/* Loss of the batch that was found; the slopes of the hidden layer are in `change`, the gradients of b1, W2 and b2 in
   `small`. */
static REAL NAME(backward)(NAME(problem) *p, const REAL *w, long count) {
    long columns = NAME(columns)(count);
    NAME(forward)(p, w, count);
    REAL loss = NAME(softmax)(p, count, 1, NULL) * ((REAL)1 / (REAL)count);
    NAME(find_slopes)(p, count);
    NAME(pull_back)(p, NAME(W2)(p, w), p->slopes, NULL, NULL, columns, p->change);
    NAME(row_sums)(p->change, p->H, columns, p->small);
    NAME(second_layer)(p, p->slopes, p->hidden, columns, p->small + p->H);
    NAME(row_sums)(p->slopes, p->C, columns, p->small + p->H + p->C * p->H);
    return loss;
}

/* Keep what Hessian-vector products need of repetition r's forward pass: kept (R, H + C, columns). */
static void NAME(keep_forward)(const NAME(problem) *p, REAL *kept, long r, long count) {
    long columns = NAME(columns)(count);
    REAL *own = kept + r * (p->H + p->C) * columns;
    memcpy(own, p->hidden, p->H * columns * sizeof(REAL));
    memcpy(own + p->H * columns, p->chances, p->C * columns * sizeof(REAL));
}

/* Take it back, the slopes too, for the batch that was found. */
static void NAME(take_back)(NAME(problem) *p, const REAL *kept, long r, long count) {
    long columns = NAME(columns)(count);
    const REAL *own = kept + r * (p->H + p->C) * columns;
    memcpy(p->hidden, own, p->H * columns * sizeof(REAL));
    memcpy(p->chances, own + p->H * columns, p->C * columns * sizeof(REAL));
    NAME(find_slopes)(p, count);
}

/* Loss and gradient (P,) of the batch that was found. */
static REAL NAME(gradient)(NAME(problem) *p, const REAL *w, long count, REAL *gradient) {
    long head = (long)p->H * p->d;
    REAL loss = NAME(backward)(p, w, count);
    NAME(outer_STORED)(p, p->change, NAME(columns)(count), count, (NAME(target)){gradient, NULL, NULL});
    memcpy(gradient + head, p->small, (p->P - head) * sizeof(REAL));
    return loss;
}

/* Losses (R,), gradients (R, P) and, if wanted, what `products` and `series` need: see `keep_forward`. */
int NAME(linearise)(
    long R, int H, int d, int C, const NAME(rows) *rows, const REAL *weights, REAL *loss, REAL *gradient, REAL *kept) {
    NAME(problem) p;
    void *space = NAME(prepare)(&p, H, d, C, rows->count);
    if (space == NULL) return 1;
    for (long r = 0; r < R; r++) {
        NAME(find)(&p, NAME(of)(rows, r));
        loss[r] = NAME(gradient)(&p, weights + r * p.P, rows->count, gradient + r * p.P);
        if (kept != NULL) NAME(keep_forward)(&p, kept, r, rows->count);
    }
    free(space);
    return 0;
}

/* With h' in `inner` (masked) and the direction's W2 and b2: the tangent of the slopes in `scores`, that of the hidden
   layer's slopes in `change`, and the products for b1, W2 and b2 in `small`. */
static void NAME(tangent)(NAME(problem) *p, const REAL *w, const REAL *V2, const REAL *c2, long count) {
    long columns = NAME(columns)(count);
    const REAL *W2 = NAME(W2)(p, w);
    VEC share = SPREAD((REAL)1 / (REAL)count);
    NAME(small)(W2, p->H, 1, p->C, p->H, p->inner, columns, columns, c2, p->scores);
    NAME(small)(V2, p->H, 1, p->C, p->H, p->hidden, columns, columns, NULL, p->scores);
    for (long c = 0; c < columns; c += LANES) {
        VEC mean = ZERO();
        for (int k = 0; k < p->C; k++)
            mean = FMA(LOAD(p->chances + k * columns + c), LOAD(p->scores + k * columns + c), mean);
        for (int k = 0; k < p->C; k++) {
            REAL *score = p->scores + k * columns + c;
            STORE(score, MUL(MUL(LOAD(p->chances + k * columns + c), SUB(LOAD(score), mean)), share));
        }
    }
    NAME(pull_back)(p, W2, p->scores, V2, p->slopes, columns, p->change);
    REAL *second = p->small + p->H, *more = p->space;
    NAME(row_sums)(p->change, p->H, columns, p->small);
    NAME(second_layer)(p, p->scores, p->hidden, columns, second);
    NAME(second_layer)(p, p->slopes, p->inner, columns, more);
    for (int i = 0; i < p->C * p->H; i++) second[i] += more[i];
    NAME(row_sums)(p->scores, p->C, columns, second + p->C * p->H);
}

/* Hessian-vector products of n vectors (n, R, P) with what `linearise` kept. */
int NAME(products)(
    long R, int H, int d, int C, const NAME(rows) *rows, const REAL *weights, const REAL *kept, long n,
    const REAL *vectors, REAL *results) {
    NAME(problem) p;
    void *space = NAME(prepare)(&p, H, d, C, rows->count);
    if (space == NULL) return 1;
    long columns = NAME(columns)(rows->count);
    for (long r = 0; r < R; r++) {
        const REAL *w = weights + r * p.P;
        NAME(find)(&p, NAME(of)(rows, r));
        NAME(take_back)(&p, kept, r, rows->count);
        for (long m = 0; m < n; m++) {
            const REAL *v = vectors + (m * R + r) * p.P, *bias = NAME(b1)(&p, v);
            REAL *own = results + (m * R + r) * p.P;
            NAME(point)(p.left, v, H, d);
            NAME(inner)(p.left, H, p.rows, rows->count, d, p.inner, columns);
            for (int h = 0; h < H; h++)
                for (long c = 0; c < columns; c += LANES) {
                    REAL *at = p.inner + h * columns + c;
                    INTEGERS on = (INTEGERS)(LOAD(p.hidden + h * columns + c) > ZERO());
                    STORE(at, NAME(where)(on, ADD(LOAD(at), SPREAD(bias[h]))));
                }
            NAME(tangent)(&p, w, NAME(W2)(&p, v), NAME(b2)(&p, v), rows->count);
            NAME(outer_STORED)(&p, p.change, columns, rows->count, (NAME(target)){own, NULL, NULL});
            memcpy(own + (long)H * d, p.small, (p.P - (long)H * d) * sizeof(REAL));
        }
    }
    free(space);
    return 0;
}

/* Mean losses and error rates (R,) of shared rows, a block at a time so that all repetitions find it in the cache; the
   error rate is NaN where the loss is not finite. */
int NAME(evaluate)(
    long R, int H, int d, int C, const NAME(rows) *rows, const REAL *weights, REAL *loss, REAL *error) {
    NAME(problem) p;
    void *space = NAME(prepare)(&p, H, d, C, BLOCK);
    double *losses = calloc(R, sizeof(double));
    long *wrong = calloc(R, sizeof(long));
    int failed = space == NULL || losses == NULL || wrong == NULL;
    for (long begin = 0; !failed && begin < rows->count; begin += BLOCK) {
        long count = begin + BLOCK < rows->count ? BLOCK : rows->count - begin;
        for (long r = 0; r < R; r++) {
            NAME(batch) whole = NAME(of)(rows, r);
            if (r == 0 || rows->inputs_apart || rows->targets_apart || rows->chosen_apart) {
                int listed = whole.chosen != NULL;
                NAME(find)(&p, (NAME(batch)){
                    whole.inputs + (listed ? 0 : begin * d), whole.targets + (listed ? 0 : begin),
                    listed ? whole.chosen + begin : NULL, count});
            }
            NAME(forward)(&p, weights + r * p.P, count);
            losses[r] += (double)NAME(softmax)(&p, count, 0, &wrong[r]);
        }
    }
    for (long r = 0; !failed && r < R; r++) {
        loss[r] = (REAL)(losses[r] / (double)rows->count);
        error[r] = loss[r] - loss[r] == 0 ? (REAL)((double)wrong[r] / (double)rows->count) : loss[r] - loss[r];
    }
    free(space), free(losses), free(wrong);
    return failed;
}

/* What a series works with besides: (H, columns), (B, columns) and (P - H d,). */
typedef struct {
    REAL *along, *part, *sum_of_parts; /* X V1' for the vector's V1; what the term, and the sum of terms, add to it */
    REAL *grams;                       /* inner products of the batch's rows */
    REAL *term, *sum;                  /* b1, W2 and b2 of the term, and of the sum */
    REAL *dots;                        /* (n, H, SUM_LANES) */
} NAME(memory);

static void *NAME(prepare_series)(NAME(memory) *m, const NAME(problem) *p, long count, int n) {
    size_t H = (size_t)p->H, columns = (size_t)NAME(columns)(count), tail = (size_t)(p->P - (long)p->H * p->d);
    size_t numbers = (3 * H + columns) * columns + 2 * tail + n * H * SUM_LANES;
    char *space, *at;
    if (posix_memalign((void **)&space, 64, numbers * sizeof(REAL) + 8 * 64)) return NULL;
    at = space;
    m->along = NAME(place)(&at, H * columns * sizeof(REAL));
    m->part = NAME(place)(&at, H * columns * sizeof(REAL));
    m->sum_of_parts = NAME(place)(&at, H * columns * sizeof(REAL));
    m->grams = NAME(place)(&at, columns * columns * sizeof(REAL));
    m->term = NAME(place)(&at, tail * sizeof(REAL));
    m->sum = NAME(place)(&at, tail * sizeof(REAL));
    m->dots = NAME(place)(&at, n * H * SUM_LANES * sizeof(REAL));
    return space;
}

/* t -= lr (Hv + wd t); sum += t. */
static void NAME(next_term)(REAL *term, REAL *sum, const REAL *product, long n, REAL lr, REAL weight_decay) {
    for (long i = 0; i < n; i += LANES) {
        VEC old = NAME(load_part)(term + i, n - i);
        VEC pulled = FMA(SPREAD(weight_decay), old, NAME(load_part)(product + i, n - i));
        VEC now = FMA(SPREAD(-lr), pulled, old);
        NAME(store_part)(term + i, now, n - i);
        NAME(store_part)(sum + i, ADD(NAME(load_part)(sum + i, n - i), now), n - i);
    }
}

/* The sum p over j < terms of (I - lr (H + wd))^j v: its products with n others in `out`, itself in `total` if wanted.

   H is the Hessian that hidden, chances and slopes were kept of. What it adds to v's first layer is a combination of the
   batch's rows, so a term is a multiple of v and one number a unit and row (`part`), and all that is asked of the inputs
   is their inner products with v and with each other: three large products however many terms, instead of two a term. */
static void NAME(sum_up)(
    NAME(problem) *p, NAME(memory) *m, const REAL *w, const REAL *v, long count, int terms, REAL lr, REAL weight_decay,
    int n, const REAL *const *others, REAL *out, REAL *total) {
    long columns = NAME(columns)(count), head = (long)p->H * p->d, tail = p->P - head;
    REAL alpha = 1, sum_of_alphas = 1;
    memset(m->part, 0, p->H * columns * sizeof(REAL));
    memset(m->sum_of_parts, 0, p->H * columns * sizeof(REAL));
    memcpy(m->term, v + head, tail * sizeof(REAL));
    memcpy(m->sum, m->term, tail * sizeof(REAL));
    if (terms > 1) {
        memset(m->along, 0, p->H * columns * sizeof(REAL));
        NAME(point)(p->left, v, p->H, p->d);
        NAME(inner)(p->left, p->H, p->rows, count, p->d, m->along, columns);
    }
    if (terms > 2) {
        memset(m->grams, 0, count * columns * sizeof(REAL));
        NAME(inner_of_rows)(p->rows, count, p->d, m->grams, columns);
    }
    for (int j = 1; j < terms; j++) {
        for (int h = 0; h < p->H; h++)
            for (long c = 0; c < columns; c += LANES) STORE(p->inner + h * columns + c, SPREAD(m->term[h]));
        if (j > 1) NAME(small)(m->part, columns, 1, p->H, (int)count, m->grams, columns, columns, NULL, p->inner);
        for (long i = 0; i < p->H * columns; i += LANES) {
            INTEGERS on = (INTEGERS)(LOAD(p->hidden + i) > ZERO());
            VEC passed = FMA(SPREAD(alpha), LOAD(m->along + i), LOAD(p->inner + i));
            STORE(p->inner + i, NAME(where)(on, passed));
        }
        NAME(tangent)(p, w, m->term + p->H, m->term + p->H + p->C * p->H, count);
        NAME(next_term)(m->term, m->sum, p->small, tail, lr, weight_decay);
        NAME(next_term)(m->part, m->sum_of_parts, p->change, p->H * columns, lr, weight_decay);
        alpha = FMA1(-lr, weight_decay * alpha, alpha);
        sum_of_alphas += alpha;
    }
    memset(m->dots, 0, n * p->H * SUM_LANES * sizeof(REAL));
    NAME(end_of_series) end = {v, others, n, p->H, sum_of_alphas, m->dots, total};
    NAME(target) target = {NULL, NULL, &end};
    long seen = terms > 1 ? count : 1; /* the parts are 0 without further terms */
    NAME(outer_TAKEN_BY_SERIES)(p, m->sum_of_parts, columns, seen, target);
    if (total != NULL) memcpy(total + head, m->sum, tail * sizeof(REAL));
    for (int other = 0; other < n; other++) {
        VEC sums[PARTS];
        const REAL *dots = m->dots + (long)other * p->H * SUM_LANES, *last = others[other] + head;
        for (int part = 0; part < PARTS; part++) {
            sums[part] = ZERO();
            for (int h = 0; h < p->H; h++) sums[part] = ADD(sums[part], LOAD(dots + h * SUM_LANES + part * LANES));
            for (long i = part * LANES; i < tail + part * LANES; i += SUM_LANES)
                sums[part] = FMA(NAME(load_part)(m->sum + i, tail - i), NAME(load_part)(last + i, tail - i), sums[part]);
        }
        out[other] = FOLD(sums);
    }
}

/* Neumann series of R repetitions from what `linearise` or `updates` kept: see `sum_up`. vector (R, P), lr,
   weight_decay and terms (R,), others n times (R, P), dots (R, n); total (R, P) or NULL. */
int NAME(series)(
    long R, int H, int d, int C, const NAME(rows) *rows, const REAL *weights, const REAL *kept, const REAL *vector,
    const REAL *lr, const REAL *weight_decay, const int *terms, int n, const REAL *const *others, REAL *dots, REAL *total) {
    NAME(problem) p;
    NAME(memory) memory = {0};
    const REAL *own[MOST_OTHERS];
    void *space = NAME(prepare)(&p, H, d, C, rows->count);
    void *more = space == NULL ? NULL : NAME(prepare_series)(&memory, &p, rows->count, n);
    int failed = more == NULL || n > MOST_OTHERS;
    for (long r = 0; !failed && r < R; r++) {
        long at = r * p.P;
        for (int i = 0; i < n; i++) own[i] = others[i] + at;
        NAME(find)(&p, NAME(of)(rows, r));
        NAME(take_back)(&p, kept, r, rows->count);
        NAME(sum_up)(&p, &memory, weights + at, vector + at, rows->count, terms[r], lr[r], weight_decay[r], n, own,
                     dots + r * n, total == NULL ? NULL : total + at);
    }
    free(space), free(more);
    return failed;
}

/* What follows the last update of each repetition: the gradient of the second batch at the new weights, and the products
   of its series with `n` factors of the update. factors: which each is, of `enum factor`; terms (R,); dots (R, n). */
typedef struct {
    NAME(rows) second;
    const int *terms, *factors;
    long n;
    REAL *dots;
} NAME(following);

enum NAME(factor) { NAME(NEW_BUFFER), NAME(LAST_WEIGHTS), NAME(LAST_BUFFER) };

/* Working space for what follows: of one repetition, what was before its last update, and of the second batch. */
typedef struct {
    NAME(memory) series;
    REAL *weights, *buffer, *kept, *gradient;
    void *space, *more;
} NAME(room);

static int NAME(make_room)(NAME(room) *room, const NAME(problem) *p, const NAME(following) *following, long count) {
    size_t P = (size_t)p->P, kept = (size_t)((p->H + p->C) * NAME(columns)(count));
    char *at;
    if (following->n > MOST_OTHERS) return 1;
    if (posix_memalign(&room->space, 64, (3 * P + kept) * sizeof(REAL) + 4 * 64)) return 1;
    at = room->space;
    room->weights = NAME(place)(&at, P * sizeof(REAL));
    room->buffer = NAME(place)(&at, P * sizeof(REAL));
    room->gradient = NAME(place)(&at, P * sizeof(REAL));
    room->kept = NAME(place)(&at, kept * sizeof(REAL));
    room->more = NAME(prepare_series)(&room->series, p, count, (int)following->n);
    return room->more == NULL;
}

/* See `following`: for repetition r, after its last update on the batch that was found. `next` is read afterwards. */
static void NAME(follow)(
    NAME(problem) *p, NAME(room) *room, const NAME(following) *following, long r, NAME(batch) batch,
    const NAME(update) *last, NAME(batch) next) {
    const REAL *of_factor[] = {last->new_buffer, last->weights, last->buffer}, *others[MOST_OTHERS];
    for (int i = 0; i < following->n; i++) others[i] = of_factor[following->factors[i]];
    NAME(keep_forward)(p, room->kept, 0, batch.count);
    NAME(find)(p, NAME(of)(&following->second, r));
    p->ahead.count = 0;
    NAME(gradient)(p, last->new_weights, following->second.count, room->gradient);
    NAME(find)(p, batch);
    NAME(look_ahead)(p, next);
    NAME(take_back)(p, room->kept, 0, batch.count);
    NAME(sum_up)(
        p, &room->series, last->weights, room->gradient, batch.count, following->terms[r], *last->lr.values,
        *last->weight_decay.values, (int)following->n, others, following->dots + r * following->n, NULL);
}

/* T weight updates of each repetition, one repetition after the other so that its weights stay in the second cache.

   weights, buffer (R, P): before the first update; new_weights, new_buffer: after the last, elsewhere. With `kept` (see
   `linearise`, of the last update), last_weights and last_buffer take what was before the last update; else all three
   are NULL. losses (T, R): of each update's batch, before it. finite (T, R): 0 where
   that loss and the weights before the update are finite, else NaN. following: or NULL, without `kept`; the learning
   rate and the weight decay are then one for all weights. */
int NAME(updates)(
    long R, int H, int d, int C, long T, const NAME(rows) *batches, const REAL *weights, const REAL *buffer,
    REAL *new_weights, REAL *new_buffer, REAL *last_weights, REAL *last_buffer, REAL *kept,
    const NAME(hyper) *lr, const NAME(hyper) *weight_decay, const NAME(hyper) *momentum, REAL *losses, REAL *finite,
    const NAME(following) *following) {
    NAME(problem) p;
    NAME(room) room = {0};
    long most = following == NULL ? 0 : following->second.count;
    for (long t = 0; t < T; t++) most = batches[t].count > most ? batches[t].count : most;
    void *space = NAME(prepare)(&p, H, d, C, most);
    if (space == NULL) return 1;
    int failed = following != NULL && NAME(make_room)(&room, &p, following, batches[T - 1].count);
    long head = (long)H * d, tail = p.P - head;
    for (long r = 0; !failed && r < R; r++) {
        NAME(update) update = NAME(update_of)(weights + r * p.P, buffer + r * p.P, lr, weight_decay, momentum, r);
        for (long i = 0; i < p.P; i += LANES) {
            VEC numbers = NAME(load_part)(update.weights + i, p.P - i);
            STORE(update.finite, ADD(LOAD(update.finite), SUB(numbers, numbers)));
        }
        for (long t = 0; t < T; t++) {
            int ends = t == T - 1;
            if (ends || (kept == NULL && following == NULL)) {
                update.new_weights = new_weights + r * p.P, update.new_buffer = new_buffer + r * p.P;
            } else if (following != NULL) {
                update.new_weights = room.weights, update.new_buffer = room.buffer;
            } else {
                update.new_weights = last_weights + r * p.P, update.new_buffer = last_buffer + r * p.P;
            }
            NAME(batch) batch = NAME(of)(&batches[t], r), next = {0};
            long columns = NAME(columns)(batch.count);
            NAME(find)(&p, batch);
            if (!ends) next = NAME(of)(&batches[t + 1], r);
            else if (following != NULL) next = NAME(of)(&following->second, r);
            else if (r + 1 < R) next = NAME(of)(batches, r + 1);
            NAME(look_ahead)(&p, next);
            REAL loss = NAME(backward)(&p, update.weights, batch.count), sum = loss - loss;
            for (int lane = 0; lane < LANES; lane++) sum += update.finite[lane];
            losses[t * R + r] = loss, finite[t * R + r] = sum;
            NAME(target) target = {NULL, &update, NULL};
            NAME(outer_TAKEN_BY_UPDATE)(&p, p.change, columns, batch.count, target);
            VEC check = ZERO();
            for (long i = 0; i < tail; i += LANES) {
                VEC gradient = NAME(load_part)(p.small + i, tail - i);
                check = NAME(advance)(1, &update, head + i, &gradient, tail - i, check);
            }
            STORE(update.finite, ADD(LOAD(update.finite), check));
            if (ends && kept != NULL) NAME(keep_forward)(&p, kept, r, batch.count);
            if (ends && following != NULL) {
                next = r + 1 < R ? NAME(of)(batches, r + 1) : (NAME(batch)){0};
                NAME(follow)(&p, &room, following, r, batch, &update, next);
            }
            update.weights = update.new_weights, update.buffer = update.new_buffer;
        }
    }
    free(space), free(room.space), free(room.more);
    return failed;
}
