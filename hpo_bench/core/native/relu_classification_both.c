#include <stddef.h>

#define REAL float
#define WHOLE int32_t
#define REAL_BITS 32
#define MANTISSA 23
#define EXPONENT_BIAS 127
#define ROUNDING 12582912.0f /* 1.5 * 2^23: a number near it has no digits behind the point */
#define LEAST_EXPONENT -104.0f
#define LN2_HIGH 0.693359375f /* few digits, so that whole multiples are exact; the rest of ln 2 */
#define LN2_LOW -2.12194440054690583e-4f
#define EXP_TERMS 7
#define LOG_TERMS 4
#define NAME(x) x##_classify_float32
#include "lanes.h"
#include "relu_classification.c"
#undef REAL
#undef WHOLE
#undef REAL_BITS
#undef MANTISSA
#undef EXPONENT_BIAS
#undef ROUNDING
#undef LEAST_EXPONENT
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_TERMS
#undef LOG_TERMS
#undef NAME

#define REAL double
#define WHOLE int64_t
#define REAL_BITS 64
#define MANTISSA 52
#define EXPONENT_BIAS 1023
#define ROUNDING 6755399441055744.0 /* 1.5 * 2^52 */
#define LEAST_EXPONENT -746.0
#define LN2_HIGH 0.6931471806019545
#define LN2_LOW -4.2009150726810846e-11
#define EXP_TERMS 13
#define LOG_TERMS 11
#define NAME(x) x##_classify_float64
#include "lanes.h"
#include "relu_classification.c"
