// Running statistics of one pixel's gradients. Torch-free, host and device.
//
// Welford's recurrence over d = g - shift, where shift is the pixel's first gradient. The shift
// costs one subtraction a sample and buys accuracy: in float32, plain Welford loses digits in
// proportion to |mean| / std, whereas g - shift is exact when |mean| >> std (Sterbenz) and harmless
// otherwise.
//
// The two sums, m2 and abssum, would lose digits with the number of samples: a float32 sum of 10^6
// terms is wrong by up to 1%. So they hold kRun samples at most. Before the next one they are added
// to their settled parts, and keep only what that addition rounded away. Up to kRun samples nothing
// settles, and nothing is spent on it.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

template <typename T>
struct Moments {
  T shift;   // first gradient
  T mean;    // of g - shift
  T m2;      // sum of squared deviations from the mean; variance = m2 / (n - 1), Eq. 3.3
  T abssum;  // sum of |g|; absmean = abssum / n, Eq. 3.2
};

inline constexpr int kRun = 20;

// Whether the sums settle before one more sample is taken in to `count` others.
GAG_HD bool settles(int64_t count) { return count > 0 && count % kRun == 0; }

// Adds `recent` to `settled` and leaves in it what was rounded away (Knuth's exact addition);
// nothing where the sum is not finite, so that infinity stays infinity. T may be a SIMD vector.
template <typename T>
GAG_HD void settle(T& settled, T& recent) {
  const T total = settled + recent;
  const T added = total - settled;
  const T lost = (settled - (total - added)) + (recent - added);
  settled = total;
  recent = lost == lost ? lost : T{};
}

template <typename T>
GAG_HD T magnitude(T x) {
  return std::fabs(x);
}

// The first gradient: everything is known without arithmetic. T may be a SIMD vector, whose
// magnitude only its caller knows how to take.
template <typename T>
GAG_HD void first_sample(Moments<T>& s, T g, T magnitude_g) {
  s.shift = g;
  s.mean = T{};
  s.m2 = T{};
  s.abssum = magnitude_g;
}

struct Plus {
  template <typename T>
  GAG_HD T operator()(T a, T b) const {
    return a + b;
  }
};

// One more gradient; `inverse` = 1 / (samples including this one), the same for every pixel.
// `plus` is a + b, which a backend may have a second execution unit for.
template <typename T, typename Sum = Plus>
GAG_HD void next_sample(Moments<T>& s, T g, T magnitude_g, T inverse, Sum plus = {}) {
  const T d = g - s.shift;
  const T delta = d - s.mean;
  s.mean = s.mean + delta * inverse;
  s.m2 = plus(s.m2, delta * (d - s.mean));
  s.abssum = plus(s.abssum, magnitude_g);
}

template <typename T>
GAG_HD void first_sample(Moments<T>& s, T g) {
  first_sample(s, g, magnitude(g));
}

template <typename T>
GAG_HD void next_sample(Moments<T>& s, T g, T inverse) {
  next_sample(s, g, magnitude(g), inverse);
}

}  // namespace gag_fast
