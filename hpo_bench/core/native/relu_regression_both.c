/* `relu_regression.c` for float and for double. */

#define REAL float
#define REAL_BITS 32
#define NAME(x) x##_float32
#include "relu_regression.c"
#undef REAL
#undef REAL_BITS
#undef NAME

#define REAL double
#define REAL_BITS 64
#define NAME(x) x##_float64
#include "relu_regression.c"
