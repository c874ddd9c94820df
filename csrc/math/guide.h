// Eq. 3.4 times Eq. 3.2 for one pixel of one channel. Torch-free, host and device.
#pragma once

#include "math/host_device.h"

namespace gag_fast {

// variance >= threshold: the guide is 1; below it, the guide is the variance itself.
template <typename T>
GAG_HD T guided(T variance, T absmean, T threshold) {
  return variance >= threshold ? absmean : variance * absmean;
}

}  // namespace gag_fast
