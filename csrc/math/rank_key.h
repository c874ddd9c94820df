// Unsigned keys whose ascending order is the descending order of floats. Torch-free, host and
// device. -0.0 and 0.0 share a key; every NaN has the largest, so it ranks last.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

GAG_HD uint32_t descending_key(float v) {
  if (v != v) return 0xFFFFFFFFu;
  const uint32_t bits = bits_of(v + 0.0f);  // -0.0 + 0.0 is 0.0
  // Flipping the sign bit, and for negative values all the others too, gives keys in ascending
  // order; inverted, they descend.
  return (bits & 0x80000000u) ? bits : ~(bits | 0x80000000u);
}

GAG_HD uint64_t descending_key(double v) {
  if (v != v) return ~0ull;
  const uint64_t bits = bits_of(v + 0.0);
  constexpr uint64_t sign = 1ull << 63;
  return (bits & sign) ? bits : ~(bits | sign);
}

}  // namespace gag_fast
