// Bodies of the element-wise CUDA kernels: what one thread does for one item of one copy.
// Torch-free and host + device, so the tests run this very source on the CPU, looping over copies
// and items (tests/ops/items.cpp), and a GPU only confirms.
//
// A copy is one image of the output; its items are counted in 32 bits, for 64-bit division is slow
// on GPUs.
#pragma once

#include <cstdint>

#include "math/compose.h"
#include "math/hash.h"
#include "math/normal.h"
#include "math/rank_key.h"

namespace gag_fast {

// Four neighbours in memory, stored by one 16-byte instruction where T has 4 bytes.
template <typename T>
struct alignas(sizeof(T) >= 4 ? 16 : 8) Quad {
  T v[4];
};

inline bool holds_quads(const void* data, int64_t elements) {
  return elements % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// image_keys: the hash of element `item` of image `copy`, any strides.
template <typename T>
struct HashItem {
  const T* images;
  int64_t stride_b, stride_c, stride_h, stride_w;
  uint32_t H, W;

  GAG_HD uint64_t operator()(int64_t copy, uint32_t item) const {
    const uint32_t row = item / W, w = item - row * W;
    const uint32_t c = row / H, h = row - c * H;
    const int64_t at = copy * stride_b + c * stride_c + h * stride_h + w * stride_w;
    return element_hash(static_cast<float>(images[at]), item);
  }
};

// gaussian_noise: image + std * normal for four elements (planar) or for all channels of four
// pixels (channels_last) of noisy copy `copy`.
template <typename T>
struct NoiseItem {
  const T* images;
  const int64_t* keys;
  const float* std;
  T* out;
  uint64_t seed;
  int64_t first_sample, samples;
  uint32_t channels, pixels;
  bool last;   // memory format: channels_last or planar
  bool quads;  // every copy holds a multiple of 4 elements and begins on a 16-byte boundary

  GAG_HD uint32_t items() const { return ((last ? pixels : channels * pixels) + 3) / 4; }

  GAG_HD void operator()(int64_t copy, uint32_t item) const {
    const int64_t b = copy / samples;
    const uint32_t sample = static_cast<uint32_t>(first_sample + (copy - b * samples));
    const int64_t elements = static_cast<int64_t>(channels) * pixels;
    const T* from = images + b * elements;
    T* to = out + copy * elements;
    const uint64_t key = static_cast<uint64_t>(keys[b]);
    const float deviation = std[b];
    if (last) {
      if (channels == 3 && quads) {
        three_channels(from, to, key, sample, deviation, item);
      } else {
        any_channels(from, to, key, sample, deviation, item);
      }
      return;
    }
    const Normal4 n = normal4(seed, key, sample, item);
    const int64_t first = 4 * static_cast<int64_t>(item);
    if (quads) {
      Quad<T> quad = *reinterpret_cast<const Quad<T>*>(from + first);
      for (int j = 0; j < 4; ++j) quad.v[j] = quad.v[j] + static_cast<T>(deviation * n.z[j]);
      *reinterpret_cast<Quad<T>*>(to + first) = quad;
    } else {
      for (int j = 0; j < 4 && first + j < elements; ++j) {
        to[first + j] = from[first + j] + static_cast<T>(deviation * n.z[j]);
      }
    }
  }

  // Twelve neighbours in memory: three stores of 16 bytes instead of twelve of 4.
  GAG_HD void three_channels(const T* from, T* to, uint64_t key, uint32_t sample, float deviation,
                             uint32_t item) const {
    T v[12];
    for (int c = 0; c < 3; ++c) {
      const Normal4 n = normal4(seed, key, sample, c * (pixels / 4) + item);
      for (int j = 0; j < 4; ++j) v[3 * j + c] = static_cast<T>(deviation * n.z[j]);
    }
    for (int part = 0; part < 3; ++part) {
      const int64_t at = 12 * static_cast<int64_t>(item) + 4 * part;
      Quad<T> quad = *reinterpret_cast<const Quad<T>*>(from + at);
      for (int j = 0; j < 4; ++j) quad.v[j] = quad.v[j] + v[4 * part + j];
      *reinterpret_cast<Quad<T>*>(to + at) = quad;
    }
  }

  GAG_HD void any_channels(const T* from, T* to, uint64_t key, uint32_t sample, float deviation,
                           uint32_t item) const {
    const uint32_t pixel = 4 * item;
    for (uint32_t c = 0; c < channels; ++c) {
      const int64_t element = static_cast<int64_t>(c) * pixels + pixel;
      const uint32_t quad = static_cast<uint32_t>(element / 4);
      const int skip = static_cast<int>(element & 3);
      const Normal4 here = normal4(seed, key, sample, quad);
      // The four pixels may straddle two Philox blocks.
      const Normal4 next = skip ? normal4(seed, key, sample, quad + 1) : here;
      for (int j = 0; j < 4 && pixel + j < pixels; ++j) {
        // A constant index into each, so that both stay in registers.
        float z = 0.0f;
        for (int k = 0; k < 4; ++k) {
          if (k == skip + j) z = here.z[k];
          if (k + 4 == skip + j) z = next.z[k];
        }
        const int64_t at = static_cast<int64_t>(pixel + j) * channels + c;
        to[at] = from[at] + static_cast<T>(deviation * z);
      }
    }
  }
};

// saliency_ranks: the sort key of pixel `item` of map `copy`; maps of float32 carry their number in
// the upper half, so that one sort of all of them keeps the maps apart.
GAG_HD uint64_t sort_key(float value, int64_t map) {
  return (static_cast<uint64_t>(map) << 32) | descending_key(value);
}
GAG_HD uint64_t sort_key(double value, int64_t) { return descending_key(value); }

// compose_: `Width` neighbours in memory of masked copy `copy`. Sources lie in memory like
// `out`.
template <typename T, int Width>
struct ComposeItem {
  const float* sources;
  const float* fill;
  const int32_t* ranks;
  const Slot* slots;
  T* out;
  int64_t source_count, map_count;
  uint32_t channels, pixels;
  bool last;

  GAG_HD uint32_t items() const { return channels * pixels / Width; }

  GAG_HD void operator()(int64_t copy, uint32_t item) const {
    const int64_t elements = static_cast<int64_t>(channels) * pixels;
    const Slot slot = slots[copy];
    const bool known = valid(slot, pixels, map_count, source_count);
    const int32_t* rank = needs_ranks(slot, pixels) ? ranks + slot.map * int64_t{pixels} : nullptr;
    const uint32_t first = item * Width;
    uint32_t pixel = last ? first / channels : first % pixels;
    uint32_t channel = last ? first % channels : first / pixels;
    T values[Width];
    for (int j = 0; j < Width; ++j) {
      float value = float_of(0x7FC00000u);  // NaN: a bad slot must show, not read foreign memory
      if (known) {
        const int32_t source = source_of(slot, rank, pixel, pixels);
        value = source < 0 ? fill[channel] : sources[source * elements + first + j];
      }
      store(&values[j], value);
      if (last) {
        if (++channel == channels) channel = 0, ++pixel;
      } else {
        if (++pixel == pixels) pixel = 0, ++channel;
      }
    }
    T* to = out + copy * elements + first;
    if constexpr (Width == 4) {
      *reinterpret_cast<Quad<T>*>(to) = {{values[0], values[1], values[2], values[3]}};
    } else {
      for (int j = 0; j < Width; ++j) to[j] = values[j];
    }
  }
};

}  // namespace gag_fast
