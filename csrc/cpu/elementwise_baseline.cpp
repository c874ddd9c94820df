#include "cpu/elementwise_kernels.h"

namespace gag_fast {
extern const ElementwiseKernels elementwise_baseline = kKernels;
}  // namespace gag_fast
