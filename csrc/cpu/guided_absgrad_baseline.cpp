#define GAG_FAST_ISA baseline
#include "cpu/aggregate_kernels.h"
