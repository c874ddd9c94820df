#include "cpu/elementwise_kernels.h"

namespace gag_fast {
extern const ElementwiseKernels elementwise_avx2 = kKernels;
}  // namespace gag_fast
