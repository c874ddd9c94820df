// Running statistics of one pixel's gradients. Torch-free, host and device.
//
// Welford's recurrence over d = g - shift, where shift is the pixel's first gradient. The shift
// costs one subtraction a sample and buys accuracy: in float32, plain Welford loses digits in
// proportion to |mean| / std, whereas g - shift is exact when |mean| >> std (Sterbenz) and harmless
// otherwise.
#pragma once

#include <cmath>

#include "math/host_device.h"

namespace gag_fast {

template <typename T>
struct Moments {
  T shift;   // first gradient
  T mean;    // of g - shift
  T m2;      // sum of squared deviations from the mean; variance = m2 / (n - 1), Eq. 3.3
  T abssum;  // sum of |g|; absmean = abssum / n, Eq. 3.2
};

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
