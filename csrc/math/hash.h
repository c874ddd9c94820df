// A 64-bit hash of an image that does not depend on the order in which its elements are visited:
// the wrapping sum of a mixed word per element. Additions commute, so threads, strides and atomics
// all give the same sum. Torch-free, host and device.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

// The finaliser of splitmix64 (S. Vigna): a bijection in which each bit of the input flips half the
// bits of the output.
GAG_HD uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// One element's share: its value's float32 bits at its logical index c*H*W + h*W + w.
GAG_HD uint64_t element_hash(float value, uint32_t index) {
  return mix64((static_cast<uint64_t>(index) << 32) | bits_of(value));
}

}  // namespace gag_fast
