// What the statistics of a row (one channel of one image) hold that is not a finite number, and
// whom it concerns. Torch-free, host and device. The policy: csrc/README.md, "Not finite".
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace gag_fast {

// Bits.
enum Taint : uint32_t { kClean = 0, kAbsmeanNotFinite = 1, kVarianceNotFinite = 2 };

// Whether a row has no place in a map; `guided`: the variance is used, which p = 0 does not.
GAG_HD bool spoils(uint32_t taint, bool guided) {
  return (taint & (guided ? kAbsmeanNotFinite | kVarianceNotFinite : kAbsmeanNotFinite)) != 0;
}

}  // namespace gag_fast
