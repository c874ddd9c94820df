#include "cpu/elementwise.h"

#include "cpu/simd.h"

namespace gag_fast {

const ElementwiseKernels& elementwise_kernels() {
#if defined(__x86_64__)
  return *choose(simd_level(), &elementwise_baseline, &elementwise_avx2, &elementwise_avx512);
#else
  return elementwise_baseline;
#endif
}

}  // namespace gag_fast
