/* exp of doubles by additions and multiplications alone, each rounded by itself: the same bits on every processor.
   Square roots by the processor's instruction, which is exact (the library that torch takes them from is not).

   e^x = 2^k e^r with k the whole number next to x / ln 2 and |r| <= ln 2 / 2, where 13 terms of the series are enough. */

#include <stdint.h>
#include <string.h>

#define HIGHEST 710.0 /* infinite from here on */
#define LOWEST -746.0 /* 0 up to here */
#define PER_LN2 1.44269504088896338700
#define LN2_HIGH 6.93147180369123816490e-01 /* 33 bits: its product with k is exact */
#define LN2_LOW 1.90821492927058770002e-10
#define ROUNDS 6755399441055744.0 /* 3 * 2^51: what is added to it is rounded to a whole number, kept in its last bits */

static inline double power_of_two(int64_t k) {
    int64_t bits = (k + 1023) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double exponential(double x) {
    static const double factors[] = {
        1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
        1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0,
    };
    const double rounds = ROUNDS;
    x = x > HIGHEST ? HIGHEST : x; /* a NaN stays */
    x = x < LOWEST ? LOWEST : x;
    double scaled = x * PER_LN2, rounded = scaled + rounds, k = rounded - rounds;
    int64_t whole, start;
    memcpy(&whole, &rounded, sizeof whole);
    memcpy(&start, &rounds, sizeof start);
    whole -= start;
    double high = k * LN2_HIGH, low = k * LN2_LOW, r = x - high;
    r = r - low;
    double sum = factors[13];
    for (int n = 12; n >= 0; n--) {
        double product = sum * r;
        sum = product + factors[n];
    }
    int64_t half = (whole + 2048) / 2 - 1024; /* 2^k itself may be out of reach */
    sum = sum * power_of_two(half);
    return sum * power_of_two(whole - half);
}

void exponentials(long count, const double *x, double *result) {
    for (long n = 0; n < count; n++) result[n] = exponential(x[n]);
}

#define SQUARE_ROOTS                                                                                                   \
    void NAME(square_roots)(long count, const REAL *x, REAL *result) {                                                 \
        for (long n = 0; n < count; n += LANES) STORE_SOME(result + n, SQRT(LOAD_SOME(x + n, count - n)), count - n);  \
    }

#define REAL float
#define REAL_BITS 32
#define NAME(x) x##_float32
#include "lanes.h"
SQUARE_ROOTS
#undef REAL
#undef REAL_BITS
#undef NAME

#define REAL double
#define REAL_BITS 64
#define NAME(x) x##_float64
#include "lanes.h"
SQUARE_ROOTS
