#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define REAL float
#define INT int32_t
#define LANES_ARE_8 1
#define NAME(x) x##_float32
#include "relu_regression.c"
#undef REAL
#undef INT
#undef NAME
#undef LANES_ARE_8

#define REAL double
#define INT int64_t
#define LANES_ARE_8 0
#define NAME(x) x##_float64
#include "relu_regression.c"
