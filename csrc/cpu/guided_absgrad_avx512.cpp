#define GAG_FAST_ISA avx512
#include "cpu/aggregate_kernels.h"
