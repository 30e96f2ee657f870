/* One hidden ReLU layer with squared error, row by row, fused: hpo_bench/models/relu_regression.py says what is computed.

   A tile of columns goes through everything while it is in the first cache; of the activations only the mask leaves it,
   a byte a number. Every row is computed by the same instructions wherever it stands, so its last digit depends on no
   other row. Included twice by relu_regression_both.c, for float and double. */

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES ((int)(BYTES / sizeof(REAL)))
#define TILE 192 /* columns; a multiple of every LANES and of 3 vectors of 32 bytes */
#define HB 4     /* hidden units worked on at once on the way forward, */
#define BB 2     /* and on the way back */
#define KB_MAX 5 /* inputs at once on the way back: BB * KB_MAX sums, the masks and a column fit 16 registers */

typedef REAL NAME(vec) __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT NAME(ivec) __attribute__((vector_size(BYTES)));
typedef int8_t NAME(bytes) __attribute__((vector_size(BYTES / sizeof(REAL)), aligned(1), may_alias));
#define VEC NAME(vec)

/* Keeps a vector that is used several times in a register; compilers would load it again for each use. */
#if defined(__x86_64__)
#define HOLD(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define HOLD(v) __asm__("" : "+w"(v))
#else
#define HOLD(v)
#endif

static inline VEC NAME(load)(const REAL *p) { return *(const VEC *)p; }
static inline void NAME(store)(REAL *p, VEC v) { *(VEC *)p = v; }
/* A mask in memory: a byte a number, -1 or 0; the compiler's own conversions are slow without AVX-512. */
#if defined(__AVX2__) && !defined(__AVX512F__)
static inline VEC NAME(mask)(const int8_t *p) {
#if LANES_ARE_8
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
#endif
}
static inline void NAME(keep)(NAME(ivec) on, int8_t *p) {
#if LANES_ARE_8
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)on), _mm256_extracti128_si256((__m256i)on, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(half, half));
#else
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)on), _mm256_extracti128_si256((__m256i)on, 1));
    int32_t four = _mm_cvtsi128_si32(_mm_packs_epi16(_mm_packs_epi32(half, half), half));
    memcpy(p, &four, 4);
#endif
}
#else
static inline VEC NAME(mask)(const int8_t *p) { return __builtin_convertvector(*(const NAME(bytes) *)p, VEC); }
static inline void NAME(keep)(NAME(ivec) on, int8_t *p) { *(NAME(bytes) *)p = __builtin_convertvector(on, NAME(bytes)); }
#endif
static inline REAL NAME(sum)(VEC v) {
    REAL total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* Rows h .. h + HB of the product W X on nv vectors of columns; keeps the mask and adds w2 . relu(W X) to out, or, given
   a mask, adds the rows of W X that it lets through. W is packed (units, K), X (K, stride). */
#define FORWARD(NV)                                                                                                    \
    static inline __attribute__((always_inline)) void NAME(forward##NV)(                                               \
        const REAL *w, const REAL *w2, const REAL *x, long stride, int K, int8_t *mask, long mask_stride, REAL *out,   \
        int given) {                                                                                                   \
        VEC acc[HB][NV];                                                                                               \
        for (int i = 0; i < HB; i++)                                                                                   \
            for (int j = 0; j < NV; j++) acc[i][j] = (VEC){0};                                                         \
        for (int k = 0; k < K; k++) {                                                                                  \
            VEC column[NV];                                                                                            \
            for (int j = 0; j < NV; j++) {                                                                             \
                column[j] = NAME(load)(x + k * stride + j * LANES);                                                    \
                HOLD(column[j]);                                                                                       \
            }                                                                                                          \
            for (int i = 0; i < HB; i++)                                                                               \
                for (int j = 0; j < NV; j++) acc[i][j] += w[i * K + k] * column[j];                                    \
        }                                                                                                              \
        for (int j = 0; j < NV; j++) {                                                                                 \
            VEC total = NAME(load)(out + j * LANES);                                                                   \
            for (int i = 0; i < HB; i++) {                                                                             \
                int8_t *place = mask + i * mask_stride + j * LANES;                                                    \
                if (given) {                                                                                           \
                    total -= NAME(mask)(place) * acc[i][j];                                                            \
                } else {                                                                                               \
                    NAME(ivec) on = acc[i][j] > 0;                                                                     \
                    if (mask_stride) NAME(keep)(on, place);                                                                \
                    /* a hidden unit that is NaN must show in the loss, as in a clamp */                               \
                    NAME(ivec) off = acc[i][j] <= 0;                                                                   \
                    total += w2[i] * (VEC)(~off & (NAME(ivec))acc[i][j]);                                              \
                }                                                                                                      \
            }                                                                                                          \
            NAME(store)(out + j * LANES, total);                                                                       \
        }                                                                                                              \
    }
FORWARD(3)
FORWARD(1)

/* out (columns) += what the units of one tile put out. */
static void NAME(forward)(
    const REAL *w, const REAL *w2, int units, const REAL *x, long stride, int K, int8_t *mask, long mask_stride,
    REAL *out, int columns, int given) {
    for (int h = 0; h < units; h += HB) {
        int c = 0;
        for (; c + 3 * LANES <= columns; c += 3 * LANES)
            NAME(forward3)(w + h * K, w2 + h, x + c, stride, K, mask + h * mask_stride + c, mask_stride, out + c, given);
        for (; c < columns; c += LANES)
            NAME(forward1)(w + h * K, w2 + h, x + c, stride, K, mask + h * mask_stride + c, mask_stride, out + c, given);
    }
}

/* sums (units, K, LANES) += mask (units, columns) . sx (K, TILE), on one tile. */
#define BACKWARD(KB)                                                                                                   \
    static inline __attribute__((always_inline)) void NAME(backward##KB)(                                              \
        const int8_t *mask, long mask_stride, const REAL *sx, int columns, REAL *sums, int K) {                        \
        VEC acc[BB][KB];                                                                                               \
        for (int i = 0; i < BB; i++)                                                                                   \
            for (int k = 0; k < KB; k++) acc[i][k] = NAME(load)(sums + (i * K + k) * LANES);                           \
        for (int c = 0; c < columns; c += LANES) {                                                                     \
            VEC on[BB];                                                                                                \
            for (int i = 0; i < BB; i++) on[i] = NAME(mask)(mask + i * mask_stride + c);                               \
            for (int k = 0; k < KB; k++) {                                                                             \
                VEC value = NAME(load)(sx + k * TILE + c);                                                             \
                HOLD(value);                                                                                           \
                for (int i = 0; i < BB; i++) acc[i][k] -= on[i] * value;                                               \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < BB; i++)                                                                                   \
            for (int k = 0; k < KB; k++) NAME(store)(sums + (i * K + k) * LANES, acc[i][k]);                           \
    }
BACKWARD(5)
BACKWARD(4)
BACKWARD(3)
BACKWARD(2)
BACKWARD(1)

static void NAME(backward)(
    const int8_t *mask, long mask_stride, int units, const REAL *sx, int columns, REAL *sums, int K) {
#define CASE(KB)                                                                                                       \
    case KB:                                                                                                           \
        NAME(backward##KB)(mask + h * mask_stride, mask_stride, sx + k * TILE, columns, target + k * LANES, K);        \
        break;
    for (int h = 0; h < units; h += BB) {
        REAL *target = sums + (long)h * K * LANES;
        int k = 0;
        for (int groups = (K + KB_MAX - 1) / KB_MAX; groups > 0; groups--) { /* as even as can be */
            int width = (K - k + groups - 1) / groups;
            switch (width) { CASE(5) CASE(4) CASE(3) CASE(2) CASE(1) }
            k += width;
        }
    }
#undef CASE
}

/* First layer with its bias as the last column, (units, K), units a multiple of HB, the surplus 0. */
static void NAME(pack)(const REAL *weights, int H, int d, int units, REAL *w, REAL *w2) {
    const REAL *bias = weights + (long)H * d, *second = bias + H;
    memset(w, 0, sizeof(REAL) * units * (d + 1));
    memset(w2, 0, sizeof(REAL) * units);
    for (int h = 0; h < H; h++) {
        memcpy(w + (long)h * (d + 1), weights + (long)h * d, sizeof(REAL) * d);
        w[(long)h * (d + 1) + d] = bias[h];
        w2[h] = second[h];
    }
}

/* One batch for all rows: inputs (K, columns) or (R, K, columns) by x_row, targets likewise.

   Writes loss (R,) and, unless gradient is null, gradient (R, P), inner (R, H, K) and mask (R, units, columns).
   Returns 0, or 1 if there is no memory. */
int NAME(linearise)(
    long R, int H, int d, long columns, long count, const REAL *weights, const REAL *inputs, long x_row,
    const REAL *targets, long y_row, REAL *loss, REAL *gradient, REAL *inner, int8_t *mask) {
    int K = d + 1, units = (H + HB - 1) / HB * HB;
    long P = (long)H * d + 2 * H + 1;
    REAL *space = aligned_alloc(64, ((sizeof(REAL) * ((long)units * K * (1 + LANES) + units + (K + 2) * TILE) + 4096) / 64) * 64);
    if (!space) return 1;
    REAL *sums = space, *sx = sums + (long)units * K * LANES, *out = sx + K * TILE, *w = out + TILE, *w2 = w + (long)units * K;
    for (long r = 0; r < R; r++) {
        const REAL *own = weights + r * P, *x = inputs + r * x_row, *y = targets + r * y_row;
        int8_t *bits = gradient ? mask + r * units * columns : (int8_t *)out;
        NAME(pack)(own, H, d, units, w, w2);
        memset(sums, 0, sizeof(REAL) * units * K * LANES);
        REAL bias = own[P - 1], slopes = 0;
        VEC squares = {0}, slope_sums = {0};
        for (long begin = 0; begin < columns; begin += TILE) {
            int width = columns - begin < TILE ? (int)(columns - begin) : TILE;
            memset(out, 0, sizeof(REAL) * TILE);
            NAME(forward)(w, w2, units, x + begin, columns, K, bits + (gradient ? begin : 0), gradient ? columns : 0, out, width, 0);
            for (int c = 0; c < width; c += LANES) {
                VEC one = NAME(load)(x + d * columns + begin + c);
                VEC error = (NAME(load)(out + c) + bias - NAME(load)(y + begin + c)) * one;
                squares += error * error;
                if (!gradient) continue;
                VEC slope = error * (REAL)(2.0 / count);
                slope_sums += slope;
                for (int k = 0; k < K; k++)
                    NAME(store)(sx + k * TILE + c, slope * NAME(load)(x + k * columns + begin + c));
            }
            if (gradient) NAME(backward)(bits + begin, columns, units, sx, width, sums, K);
        }
        loss[r] = NAME(sum)(squares) / count;
        if (!gradient) continue;
        slopes = NAME(sum)(slope_sums);
        REAL *g = gradient + r * P, *gi = inner + r * H * K;
        for (int h = 0; h < H; h++) {
            REAL second = 0;
            for (int k = 0; k < K; k++) {
                REAL value = NAME(sum)(NAME(load)(sums + ((long)h * K + k) * LANES));
                gi[(long)h * K + k] = value;
                second += w[(long)h * K + k] * value;
                g[k < d ? (long)h * d + k : (long)H * d + h] = w2[h] * value;
            }
            g[(long)H * d + H + h] = second;
        }
        g[P - 1] = slopes;
    }
    free(space);
    return 0;
}

/* H v for n vectors (n, R, P) of every row, from what linearise kept. */
int NAME(products)(
    long n, long R, int H, int d, long columns, long count, const REAL *weights, const REAL *inputs, long x_row,
    const REAL *inner, const int8_t *mask, const REAL *vectors, REAL *result) {
    int K = d + 1, units = (H + HB - 1) / HB * HB;
    long P = (long)H * d + 2 * H + 1;
    REAL *space = aligned_alloc(64, ((sizeof(REAL) * ((long)units * K * (3 + LANES) + 2 * units + (K + 2) * TILE) + 4096) / 64) * 64);
    if (!space) return 1;
    REAL *sums = space, *sx = sums + (long)units * K * LANES, *out = sx + K * TILE, *w = out + TILE, *w2 = w + (long)units * K;
    REAL *v = w2 + units, *v2 = v + (long)units * K, *a = v2 + units;
    for (long r = 0; r < R; r++) {
        const REAL *x = inputs + r * x_row, *gi = inner + r * H * K;
        int8_t *bits = (int8_t *)mask + r * units * columns;
        NAME(pack)(weights + r * P, H, d, units, w, w2);
        for (long m = 0; m < n; m++) {
            const REAL *own = vectors + (m * R + r) * P;
            NAME(pack)(own, H, d, units, v, v2);
            for (int h = 0; h < units; h++)
                for (int k = 0; k < K; k++) a[(long)h * K + k] = v2[h] * w[(long)h * K + k] + w2[h] * v[(long)h * K + k];
            memset(sums, 0, sizeof(REAL) * units * K * LANES);
            REAL bias = own[P - 1];
            VEC slope_sums = {0};
            for (long begin = 0; begin < columns; begin += TILE) {
                int width = columns - begin < TILE ? (int)(columns - begin) : TILE;
                memset(out, 0, sizeof(REAL) * TILE);
                NAME(forward)(a, w2, units, x + begin, columns, K, bits + begin, columns, out, width, 1);
                for (int c = 0; c < width; c += LANES) {
                    VEC slope = (NAME(load)(out + c) + bias) * NAME(load)(x + d * columns + begin + c) * (REAL)(2.0 / count);
                    slope_sums += slope;
                    for (int k = 0; k < K; k++)
                        NAME(store)(sx + k * TILE + c, slope * NAME(load)(x + k * columns + begin + c));
                }
                NAME(backward)(bits + begin, columns, units, sx, width, sums, K);
            }
            REAL *g = result + (m * R + r) * P;
            for (int h = 0; h < H; h++) {
                REAL second = 0;
                for (int k = 0; k < K; k++) {
                    long at = (long)h * K + k;
                    REAL value = NAME(sum)(NAME(load)(sums + at * LANES));
                    second += v[at] * gi[at] + w[at] * value;
                    g[k < d ? (long)h * d + k : (long)H * d + h] = v2[h] * gi[at] + w2[h] * value;
                }
                g[(long)H * d + H + h] = second;
            }
            g[P - 1] = NAME(sum)(slope_sums);
        }
    }
    free(space);
    return 0;
}

#undef BYTES
#undef LANES
#undef TILE
#undef HB
#undef BB
#undef KB_MAX
#undef HOLD
#undef VEC
#undef FORWARD
#undef BACKWARD
