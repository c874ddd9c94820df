// One element of a masked copy, and its rounding to float16. Torch-free, host and device.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

// float32 to the bits of the nearest float16, ties to even; overflow gives infinity, NaN stays NaN.
// Selects only, so that compilers vectorise it.
GAG_HD uint16_t to_half(float v) {
  const uint32_t bits = bits_of(v);
  const uint32_t sign = bits & 0x80000000u;
  const uint32_t f = bits ^ sign;
  // Normal range: rebias the exponent (127 -> 15) and round at bit 13.
  const uint32_t normal = (f - 0x38000000u + 0xFFFu + ((f >> 13) & 1u)) >> 13;
  // Subnormal: adding 0.5 lets the adder round at bit 2^-24.
  const uint32_t subnormal = bits_of(float_of(f) + 0.5f) - 0x3F000000u;
  const uint32_t special = f > 0x7F800000u ? 0x7E00u : 0x7C00u;
  uint32_t half = f < 0x38800000u ? subnormal : normal;
  half = f >= 0x47800000u ? special : half;
  return static_cast<uint16_t>(half | (sign >> 16));
}

GAG_HD void store(float* out, float v) { *out = v; }
GAG_HD void store(uint16_t* out, float v) { *out = to_half(v); }

// A slot's four numbers and what they say of a pixel of rank `rank`.
struct Slot {
  int32_t map;
  int32_t count;
  int32_t top;
  int32_t rest;
};

GAG_HD bool needs_ranks(const Slot& slot, int64_t pixels) {
  return slot.count > 0 && slot.count < pixels;
}

// Indexes in range? `map` is not looked at where no rank is needed.
GAG_HD bool valid(const Slot& slot, int64_t pixels, int64_t maps, int64_t sources) {
  const bool map = !needs_ranks(slot, pixels) || (slot.map >= 0 && slot.map < maps);
  const bool top = slot.top >= -1 && slot.top < sources;
  const bool rest = slot.rest >= -1 && slot.rest < sources;
  return map && top && rest;
}

// The source of a pixel; `ranks` are those of the slot's map, not read where none is needed.
GAG_HD int32_t source_of(const Slot& slot, const int32_t* ranks, int64_t pixel, int64_t pixels) {
  if (!needs_ranks(slot, pixels)) return slot.count > 0 ? slot.top : slot.rest;
  return ranks[pixel] < slot.count ? slot.top : slot.rest;
}

}  // namespace gag_fast
