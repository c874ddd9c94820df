// Which order statistic decides the guide. Torch-free, host and device.
//
// numpy's linear percentile puts q at rank r = p/100 * (N - 1), between V(floor r) and V(ceil r) of
// the sorted variances. Whatever the weight of the two, V >= q holds for exactly the same pixels as
// V >= V(ceil r): q lies in (V(floor r), V(ceil r)], and no variance lies strictly between. So one
// order statistic decides Eq. 3.4 and no interpolation can round it wrong. The rank is float64 as
// in numpy: float32 picks other neighbours from N = 2^14 up.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

// Index, in ascending order of N variances, of the smallest one that is >= the p-th percentile.
inline int64_t threshold_index(double p, int64_t N) {
  const double rank = (p / 100.0) * static_cast<double>(N - 1);
  const int64_t index = static_cast<int64_t>(std::ceil(rank));
  return index < 0 ? 0 : (index > N - 1 ? N - 1 : index);
}

// Variances are >= 0, so their bits as unsigned integers order them; NaN sorts above infinity.
GAG_HD uint32_t order_key(float v) { return bits_of(v) & 0x7fffffffu; }
GAG_HD uint64_t order_key(double v) { return bits_of(v) & 0x7fffffffffffffffull; }

}  // namespace gag_fast
