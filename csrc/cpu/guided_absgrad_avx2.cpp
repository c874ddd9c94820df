#define GAG_FAST_ISA avx2
#include "cpu/aggregate_kernels.h"
