// Unsigned keys whose ascending order is the descending order of floats. Torch-free, host and
// device. -0.0 and 0.0 share a key; every NaN has the largest, so it ranks last.
#pragma once

#include <cstdint>
#include <cstring>

#include "math/normal.h"

namespace gag_fast {

GAG_HD uint32_t descending_key(float v) {
  if (v != v) return 0xFFFFFFFFu;
  const uint32_t bits = bits_of(v + 0.0f);  // -0.0 + 0.0 is 0.0
  // Ascending order of floats: flip the sign bit, and for negative values all others; then
  // inverted.
  return (bits & 0x80000000u) ? bits : ~(bits | 0x80000000u);
}

GAG_HD uint64_t descending_key(double v) {
  if (v != v) return ~0ull;
  v += 0.0;
#if defined(__CUDA_ARCH__)
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(v));
#else
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
#endif
  constexpr uint64_t sign = 1ull << 63;
  return (bits & sign) ? bits : ~(bits | sign);
}

}  // namespace gag_fast
