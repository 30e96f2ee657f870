/* Vectors of numbers, written once for every instruction set: the shared vocabulary of the kernels in this folder.

   Define REAL (float or double), REAL_BITS (32 or 64) and NAME(x) (x with a suffix of its own) before including this
   file, and include it again, with other definitions, for the other kind of number. It gives VEC, a register of LANES
   numbers, MASK, a yes or no for each of them, and the functions on them that are listed below.

   The same bits everywhere. A kernel gives the same result, bit by bit, with AVX2 and with AVX-512, at every
   optimisation level and for every size of tile, if it keeps to these rules:

   - numbers are added up in SUM_LANES = 16 partial sums, number c in sum c mod 16, which take up PARTS registers;
     FOLD adds up the sums of a VEC[PARTS] in one order: 16 -> 8 -> 4 -> 2 -> 1, each time the upper half to the lower;
   - what is multiplied and added is so by FMA (or FMA1, for one number), nowhere by `a * b + c`, which a compiler
     contracts or not as it likes; the flag -ffp-contract=off forbids that besides;
   - no function of libm, whose last digit differs between machines.

   Without fused multiply-add (x86 older than AVX2), FMA multiplies and then adds: the same program, other last digits.

   LOAD(p), STORE(p, v)            from and to memory, at any address
   SPREAD(x), ZERO()               the same number in every lane
   ADD(a, b), SUB(a, b), MUL(a, b) one operation with one rounding
   DIV(a, b), SQRT(v)              likewise, as IEEE 754 asks of every processor
   LOAD_SOME(p, n)                 the first n numbers, and 0 in the lanes after them
   STORE_SOME(p, v, n)             the first n numbers alone; n may be more than LANES, or below 1
   FMA(a, b, c)                    a * b + c with one rounding; FMA1 for one number
   RELU(v)                         v where it is above 0 or NaN, else 0: a NaN must not vanish
   GREATER(a, b)                   the MASK of a > b, no where one is NaN
   KEEP(m, v)                      v where m, else 0
   ADD_WHERE(m, v, c)              c + v where m, else c
   FMA_WHERE(m, a, b, c)           a * b + c where m, else c
   SAVE_BITS(p, m), LOAD_BITS(p)   a MASK as BITS_BYTES bytes of memory, one bit a lane
   FOLD(parts)                     the sum of the numbers of a VEC[PARTS], in the order above */

#ifndef LANES
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define LANES_AVX512 1
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES_AVX2 1
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define ALWAYS static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 16")

#define VEC NAME(vec)
#define MASK NAME(mask)
#define LANES ((int)(sizeof(VEC) / sizeof(REAL)))
#define SUM_LANES 16
#define PARTS (SUM_LANES / LANES)
#define BITS_BYTES ((LANES + 7) / 8)

#define LOAD NAME(load)
#define STORE NAME(store)
#define SPREAD NAME(spread)
#define ZERO NAME(zero)
#define ADD NAME(add)
#define SUB NAME(sub)
#define MUL NAME(mul)
#define DIV NAME(div)
#define SQRT NAME(sqrt)
#define LOAD_SOME NAME(load_some)
#define STORE_SOME NAME(store_some)
#define FMA NAME(fma)
#define FMA1 NAME(fma1)
#define RELU NAME(relu)
#define GREATER NAME(greater)
#define KEEP NAME(keep)
#define ADD_WHERE NAME(add_where)
#define FMA_WHERE NAME(fma_where)
#define SAVE_BITS NAME(save_bits)
#define LOAD_BITS NAME(load_bits)
#define FOLD NAME(fold)

/* Keeps a vector that is used several times in a register; compilers would load it again for each use. */
#if defined(LANES_AVX512)
#define HOLD(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__)
#define HOLD(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define HOLD(v) __asm__("" : "+w"(v))
#else
#define HOLD(v)
#endif
#endif

#undef OP
#if defined(LANES_AVX512) && REAL_BITS == 32
#define OP(name) _mm512_##name##_ps
typedef __m512 VEC;
typedef __mmask16 MASK;
ALWAYS MASK GREATER(VEC a, VEC b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
#elif defined(LANES_AVX512)
#define OP(name) _mm512_##name##_pd
typedef __m512d VEC;
typedef __mmask8 MASK;
ALWAYS MASK GREATER(VEC a, VEC b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
#elif defined(LANES_AVX2) && REAL_BITS == 32
#define OP(name) _mm256_##name##_ps
typedef __m256 VEC;
typedef __m256 MASK;
#elif defined(LANES_AVX2)
#define OP(name) _mm256_##name##_pd
typedef __m256d VEC;
typedef __m256d MASK;
#endif

#if defined(LANES_AVX512) || defined(LANES_AVX2)
ALWAYS VEC LOAD(const REAL *p) { return OP(loadu)(p); }
ALWAYS void STORE(REAL *p, VEC v) { OP(storeu)(p, v); }
ALWAYS VEC SPREAD(REAL x) { return OP(set1)(x); }
ALWAYS VEC ZERO(void) { return OP(set1)(0); }
ALWAYS VEC ADD(VEC a, VEC b) { return OP(add)(a, b); }
ALWAYS VEC SUB(VEC a, VEC b) { return OP(sub)(a, b); }
ALWAYS VEC MUL(VEC a, VEC b) { return OP(mul)(a, b); }
ALWAYS VEC DIV(VEC a, VEC b) { return OP(div)(a, b); }
ALWAYS VEC SQRT(VEC v) { return OP(sqrt)(v); }
ALWAYS VEC FMA(VEC a, VEC b, VEC c) { return OP(fmadd)(a, b, c); }
ALWAYS VEC RELU(VEC v) { return OP(max)(ZERO(), v); } /* the second operand where one is NaN */
#endif

#if defined(LANES_AVX512)
ALWAYS VEC KEEP(MASK m, VEC v) { return OP(maskz_mov)(m, v); }
ALWAYS VEC ADD_WHERE(MASK m, VEC v, VEC c) { return OP(mask_add)(c, m, c, v); }
ALWAYS VEC FMA_WHERE(MASK m, VEC a, VEC b, VEC c) { return OP(mask3_fmadd)(a, b, c, m); }
ALWAYS void SAVE_BITS(uint8_t *p, MASK m) { memcpy(p, &m, BITS_BYTES); }
ALWAYS MASK LOAD_BITS(const uint8_t *p) {
    MASK m;
    memcpy(&m, p, BITS_BYTES);
    return m;
}
#elif defined(LANES_AVX2)
ALWAYS MASK GREATER(VEC a, VEC b) { return OP(cmp)(a, b, _CMP_GT_OQ); }
ALWAYS VEC KEEP(MASK m, VEC v) { return OP(and)(m, v); }
ALWAYS VEC ADD_WHERE(MASK m, VEC v, VEC c) { return ADD(c, KEEP(m, v)); }
ALWAYS VEC FMA_WHERE(MASK m, VEC a, VEC b, VEC c) { return FMA(KEEP(m, a), b, c); }
ALWAYS void SAVE_BITS(uint8_t *p, MASK m) { *p = (uint8_t)OP(movemask)(m); }
#if REAL_BITS == 32
ALWAYS MASK LOAD_BITS(const uint8_t *p) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi8((char)*p), lane), lane));
}
#else
ALWAYS MASK LOAD_BITS(const uint8_t *p) {
    const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi8((char)*p), lane), lane));
}
#endif
#else /* compilers' own vectors: NEON, or x86 of any age */
#if REAL_BITS == 32
typedef int32_t NAME(whole);
#else
typedef int64_t NAME(whole);
#endif
typedef REAL VEC __attribute__((vector_size(16)));
typedef NAME(whole) MASK __attribute__((vector_size(16)));
ALWAYS VEC LOAD(const REAL *p) {
    VEC v;
    memcpy(&v, p, sizeof v);
    return v;
}
ALWAYS void STORE(REAL *p, VEC v) { memcpy(p, &v, sizeof v); }
ALWAYS VEC ZERO(void) { return (VEC){0}; }
ALWAYS VEC SPREAD(REAL x) { return x - ZERO(); }
ALWAYS VEC ADD(VEC a, VEC b) { return a + b; }
ALWAYS VEC SUB(VEC a, VEC b) { return a - b; }
ALWAYS VEC MUL(VEC a, VEC b) { return a * b; }
ALWAYS VEC DIV(VEC a, VEC b) { return a / b; }
#if defined(__aarch64__) && REAL_BITS == 32
ALWAYS VEC SQRT(VEC v) { return (VEC)vsqrtq_f32((float32x4_t)v); }
#elif defined(__aarch64__)
ALWAYS VEC SQRT(VEC v) { return (VEC)vsqrtq_f64((float64x2_t)v); }
#elif defined(__SSE2__) && REAL_BITS == 32
ALWAYS VEC SQRT(VEC v) { return (VEC)_mm_sqrt_ps((__m128)v); }
#elif defined(__SSE2__)
ALWAYS VEC SQRT(VEC v) { return (VEC)_mm_sqrt_pd((__m128d)v); }
#else /* exact, so not one of the functions whose last digit differs */
ALWAYS VEC SQRT(VEC v) {
    for (int lane = 0; lane < LANES; lane++) v[lane] = (REAL)__builtin_sqrt(v[lane]);
    return v;
}
#endif
#if defined(__aarch64__) && REAL_BITS == 32
ALWAYS VEC FMA(VEC a, VEC b, VEC c) { return (VEC)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#elif defined(__aarch64__)
ALWAYS VEC FMA(VEC a, VEC b, VEC c) { return (VEC)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
#else
ALWAYS VEC FMA(VEC a, VEC b, VEC c) { return a * b + c; }
#endif
ALWAYS MASK GREATER(VEC a, VEC b) { return (MASK)(a > b); }
ALWAYS VEC KEEP(MASK m, VEC v) { return (VEC)(m & (MASK)v); }
ALWAYS VEC RELU(VEC v) { return KEEP((MASK) ~(v <= ZERO()), v); }
ALWAYS VEC ADD_WHERE(MASK m, VEC v, VEC c) { return c + KEEP(m, v); }
ALWAYS VEC FMA_WHERE(MASK m, VEC a, VEC b, VEC c) { return FMA(KEEP(m, a), b, c); }
#if REAL_BITS == 32
#define LANE_BITS ((MASK){1, 2, 4, 8})
ALWAYS void SAVE_BITS(uint8_t *p, MASK m) {
    m &= LANE_BITS;
    *p = (uint8_t)(m[0] | m[1] | m[2] | m[3]);
}
#else
#undef LANE_BITS
#define LANE_BITS ((MASK){1, 2})
ALWAYS void SAVE_BITS(uint8_t *p, MASK m) {
    m &= LANE_BITS;
    *p = (uint8_t)(m[0] | m[1]);
}
#endif
ALWAYS MASK LOAD_BITS(const uint8_t *p) { return (MASK)(((NAME(whole))*p & LANE_BITS) == LANE_BITS); }
#endif

ALWAYS VEC LOAD_SOME(const REAL *p, long n) {
    if (n >= LANES) return LOAD(p);
    if (n <= 0) return ZERO();
    REAL some[LANES] = {0};
    memcpy(some, p, sizeof(REAL) * n);
    return LOAD(some);
}
ALWAYS void STORE_SOME(REAL *p, VEC v, long n) {
    if (n >= LANES) {
        STORE(p, v);
        return;
    }
    if (n <= 0) return;
    REAL some[LANES];
    STORE(some, v);
    memcpy(p, some, sizeof(REAL) * n);
}

/* One number: a * b + c, rounded as FMA does it. */
#if (defined(LANES_AVX512) || defined(LANES_AVX2) || defined(__aarch64__)) && REAL_BITS == 32
ALWAYS REAL FMA1(REAL a, REAL b, REAL c) { return __builtin_fmaf(a, b, c); }
#elif defined(LANES_AVX512) || defined(LANES_AVX2) || defined(__aarch64__)
ALWAYS REAL FMA1(REAL a, REAL b, REAL c) { return __builtin_fma(a, b, c); }
#else
ALWAYS REAL FMA1(REAL a, REAL b, REAL c) { return a * b + c; }
#endif

#if defined(LANES_AVX512) && REAL_BITS == 32
ALWAYS __m256 NAME(eight)(const VEC *parts) {
    return _mm256_add_ps(_mm512_castps512_ps256(parts[0]), _mm512_extractf32x8_ps(parts[0], 1));
}
#elif defined(LANES_AVX2) && REAL_BITS == 32
ALWAYS __m256 NAME(eight)(const VEC *parts) { return _mm256_add_ps(parts[0], parts[1]); }
#elif defined(LANES_AVX512)
ALWAYS __m256d NAME(four)(const VEC *parts) {
    __m512d eight = _mm512_add_pd(parts[0], parts[1]);
    return _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
}
#elif defined(LANES_AVX2)
ALWAYS __m256d NAME(four)(const VEC *parts) {
    return _mm256_add_pd(_mm256_add_pd(parts[0], parts[2]), _mm256_add_pd(parts[1], parts[3]));
}
#endif

#if (defined(LANES_AVX512) || defined(LANES_AVX2)) && REAL_BITS == 32
ALWAYS REAL FOLD(const VEC *parts) {
    __m256 eight = NAME(eight)(parts);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#elif defined(LANES_AVX512) || defined(LANES_AVX2)
ALWAYS REAL FOLD(const VEC *parts) {
    __m256d four = NAME(four)(parts);
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}
#else
ALWAYS REAL FOLD(const VEC *parts) {
    REAL sums[SUM_LANES];
    for (int part = 0; part < PARTS; part++) STORE(sums + part * LANES, parts[part]);
    for (int half = SUM_LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return sums[0];
}
#endif
