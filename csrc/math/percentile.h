// Which pixels the guide keeps: the order statistics that decide it. Torch-free, host and device.
//
// numpy's linear percentile puts q at rank r = p/100 * (N - 1), between a = V(floor r) and
// b = V(ceil r) of the sorted variances. No variance lies strictly between, so V >= q holds either
// for exactly the pixels with V >= b or, where q comes out as a, for those with V >= a. In exact
// arithmetic q = a only when r is a whole number. In float64, as numpy computes, r can round to
// just above one (28/100 * 50175 = 14049.000000000002), and q = a + (b - a) * weight then rounds to
// a or not, as a and b happen to be. So a threshold is one order statistic where that is safe, and
// in a close call both are found and numpy's interpolation between them is done.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

// The p-th percentile of N ascending values lies at below + weight; 0 <= weight < 1.
struct PercentilePlace {
  int64_t below;
  double weight;

  int64_t above() const { return weight > 0.0 ? below + 1 : below; }
};

// The operations of numpy.percentile(method="linear"), in their order.
inline PercentilePlace percentile_place(double p, int64_t N) {
  const double rank = static_cast<double>(N - 1) * (p / 100.0);
  if (!(rank < static_cast<double>(N - 1))) return {N - 1, 0.0};
  const double below = std::floor(rank);
  return {static_cast<int64_t>(below), rank - below};
}

// Whether q may round to the lower of two different neighbours of type A. Two float32 differ by
// 2^-23 of the lower one at least, which float64 resolves for weights above 2^-30.
template <typename A>
bool close_call(const PercentilePlace& place) {
  return place.weight > 0.0 && (sizeof(A) == sizeof(double) || place.weight <= 0x1.0p-30);
}

// The smallest variance that is >= the percentile between two neighbours: the threshold of Eq. 3.4.
template <typename A>
GAG_HD A threshold_between(A below, A above, double weight) {
  const double a = below, b = above, gap = b - a;
  const double q = weight < 0.5 ? a + gap * weight : b - gap * (1.0 - weight);
  return a >= q ? below : above;
}

// Variances are >= 0, so their bits as unsigned integers order them; NaN sorts above infinity.
GAG_HD uint32_t order_key(float v) { return bits_of(v) & 0x7fffffffu; }
GAG_HD uint64_t order_key(double v) { return bits_of(v) & 0x7fffffffffffffffull; }

}  // namespace gag_fast
