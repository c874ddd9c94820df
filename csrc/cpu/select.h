// The k-th smallest of N non-negative finite numbers, exact and in O(N). Torch-free.
//
// A small strided sample gives a bracket [low, high] that holds the wanted rank with near
// certainty; one SIMD pass counts what lies below and keeps what lies inside; repeat on what was
// kept. When the sample misleads (ties, adversaries) a radix descent over the bits settles it,
// still O(N).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/aggregate_table.h"
#include "math/percentile.h"

namespace gag_fast {

// Most significant digit first: count the digit's values among the keys that match so far.
template <typename A>
A radix_select(const A* values, int64_t length, int64_t k) {
  constexpr int kDigitBits = 11;
  using Key = decltype(order_key(A{}));
  Key prefix = 0, known = 0;  // the bits of the answer so far, and which they are
  for (int shift = 8 * sizeof(Key) - 1; shift > 0;) {
    const int width = std::min(kDigitBits, shift);
    shift -= width;
    const Key digit = ((Key{1} << width) - 1) << shift;
    int64_t count[1 << kDigitBits] = {};
    for (int64_t i = 0; i < length; ++i) {
      const Key key = order_key(values[i]);
      if ((key & known) == prefix) ++count[(key & digit) >> shift];
    }
    Key d = 0;
    while (k >= count[d]) k -= count[d++];
    prefix |= d << shift;
    known |= digit;
  }
  A answer;
  std::memcpy(&answer, &prefix, sizeof answer);
  return answer;
}

// `scratch` needs length + kMaxLanes elements; `values` is left as it is.
template <typename A>
A select_kth(const AggregateKernels<A>& kernels, const A* values, int64_t length, int64_t k,
             A* scratch) {
  constexpr int64_t kMargin = 16;  // sample ranks; a sample's rank strays by sqrt(kFew)/2 at most
  while (length > kFew) {
    A sample[kFew];
    for (int64_t j = 0; j < kFew; ++j) sample[j] = values[(2 * j + 1) * length / (2 * kFew)];
    const int64_t centre = k * kFew / length;
    A low, high;
    kernels.two_of_few(sample, kFew, std::max<int64_t>(centre - kMargin, 0),
                       std::min(centre + kMargin, kFew - 1), &low, &high);
    // At an end of the sample the bracket is open: the extremes are seldom sampled.
    if (centre - kMargin < 0) low = A(0);
    if (centre + kMargin > kFew - 1) high = std::numeric_limits<A>::infinity();
    int64_t below = 0;
    const int64_t inside = kernels.bracket(values, length, low, high, scratch, &below);
    const bool found = k >= below && k < below + inside;
    if (found && low == high) return low;
    if (!found || inside > length / 2) return radix_select(values, length, k);
    values = scratch;
    scratch += inside;  // at most half is kept, so each pass has room behind the one before
    length = inside;
    k -= below;
  }
  A answer;
  kernels.two_of_few(values, length, k, k, &answer, &answer);
  return answer;
}

}  // namespace gag_fast
