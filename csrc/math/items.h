// Bodies of the element-wise CUDA kernels: what one thread does for one item of one copy.
// Torch-free and host + device, so the tests run this very source on the CPU, looping over copies
// and items (tests/ops/items.cpp), and a GPU only confirms.
//
// A copy is one image of the output, of fewer than 2^32 elements: its items and elements are numbered
// in 32 bits, for 64-bit division is slow on GPUs.
#pragma once

#include <cstdint>

#include "math/compose.h"
#include "math/hash.h"
#include "math/normal.h"
#include "math/rank_key.h"

namespace gag_fast {

// Four neighbours in memory, which one instruction loads or stores.
template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

inline bool holds_quads(const void* data, int64_t elements) {
  return elements % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

template <typename T>
GAG_HD Quad<T> load_quad(const T* from) {
  return *reinterpret_cast<const Quad<T>*>(from);
}

// Nothing reads an output soon: it should not push what is read again out of the L2 cache.
template <typename T>
GAG_HD void store_quad(T* to, const Quad<T>& quad) {
#if defined(__CUDA_ARCH__)
  // The intrinsics, for the compiler takes plain stores apart.
  if constexpr (sizeof(T) == 2) {
    __stcs(reinterpret_cast<uint2*>(to), reinterpret_cast<const uint2&>(quad));
  } else {
    for (int part = 0; part < static_cast<int>(sizeof(quad)) / 16; ++part) {
      __stcs(reinterpret_cast<uint4*>(to) + part, reinterpret_cast<const uint4*>(&quad)[part]);
    }
  }
#else
  *reinterpret_cast<Quad<T>*>(to) = quad;
#endif
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
// pixels (channels_last) of a few noisy copies of one image: what a thread finds out about the
// image, and the image itself, serve them all.
template <typename T>
struct NoiseItem {
  static constexpr int kTogether = 4;  // samples of a thread

  const T* images;
  const int64_t* keys;
  const float* std;
  T* out;
  uint64_t seed;
  int64_t first_sample, samples;
  uint32_t channels, pixels;
  bool last;   // memory format: channels_last or planar
  bool quads;  // every copy holds a multiple of 4 elements and begins on a 16-byte boundary

  // Of an image: its samples, a few at a time.
  GAG_HD int64_t groups() const { return (samples + kTogether - 1) / kTogether; }

  GAG_HD uint32_t items() const {
    const int64_t each = last ? pixels : static_cast<int64_t>(channels) * pixels;
    return static_cast<uint32_t>((each + 3) / 4);
  }

  // Group `group` % groups() of image `group` / groups().
  GAG_HD void operator()(int64_t group, uint32_t item) const {
    // 64-bit division takes a hundred instructions, and is seldom needed.
    const int64_t each = groups();
    const int64_t b = (group | each) >> 32 == 0
                          ? static_cast<uint32_t>(group) / static_cast<uint32_t>(each)
                          : group / each;
    const int64_t begin = (group - b * each) * kTogether;
    const int64_t left = samples - begin;
    const Copies to{b * samples + begin, static_cast<uint32_t>(first_sample + begin),
                    static_cast<int>(left < kTogether ? left : kTogether),
                    static_cast<uint64_t>(keys[b]), std[b]};
    const T* from = images + b * elements();
    if (!last) {
      planar(from, to, item);
    } else if (channels == 3 && quads) {
      three_channels(from, to, item);
    } else {
      any_channels(from, to, item);
    }
  }

 private:
  // Neighbours in the output that differ in the sample alone.
  struct Copies {
    int64_t first;
    uint32_t sample;
    int count;
    uint64_t key;
    float deviation;
  };

  GAG_HD int64_t elements() const { return static_cast<int64_t>(channels) * pixels; }

  // Calls body(place of the copy in `out`, its sample).
  template <typename Body>
  GAG_HD void each(const Copies& copies, Body body) const {
    T* to = out + copies.first * elements();
    GAG_LOOP
    for (int i = 0; i < copies.count; ++i, to += elements()) body(to, copies.sample + i);
  }

  GAG_HD T noise(const Copies& copies, float normal) const {
    return static_cast<T>(copies.deviation * normal);
  }

  GAG_HD void planar(const T* from, const Copies& copies, uint32_t item) const {
    const int64_t first = 4 * static_cast<int64_t>(item);
    if (quads) {
      const Quad<T> image = load_quad(from + first);
      each(copies, [&](T* to, uint32_t sample) {
        const Normal4 n = normal4(seed, copies.key, sample, item);
        Quad<T> quad;
        for (int j = 0; j < 4; ++j) quad.v[j] = image.v[j] + noise(copies, n.z[j]);
        store_quad(to + first, quad);
      });
    } else {
      each(copies, [&](T* to, uint32_t sample) {
        const Normal4 n = normal4(seed, copies.key, sample, item);
        for (int j = 0; j < 4 && first + j < elements(); ++j) {
          to[first + j] = from[first + j] + noise(copies, n.z[j]);
        }
      });
    }
  }

  // Twelve neighbours in memory: three stores of 16 bytes instead of twelve of 4.
  GAG_HD void three_channels(const T* from, const Copies& copies, uint32_t item) const {
    const int64_t first = 12 * static_cast<int64_t>(item);
    each(copies, [&](T* to, uint32_t sample) {
      T v[12];
      for (int c = 0; c < 3; ++c) {
        const Normal4 n = normal4(seed, copies.key, sample, c * (pixels / 4) + item);
        for (int j = 0; j < 4; ++j) v[3 * j + c] = noise(copies, n.z[j]);
      }
      for (int part = 0; part < 3; ++part) {
        Quad<T> quad = load_quad(from + first + 4 * part);
        for (int j = 0; j < 4; ++j) quad.v[j] = quad.v[j] + v[4 * part + j];
        store_quad(to + first + 4 * part, quad);
      }
    });
  }

  GAG_HD void any_channels(const T* from, const Copies& copies, uint32_t item) const {
    const int64_t pixel = 4 * static_cast<int64_t>(item);
    each(copies, [&](T* to, uint32_t sample) {
      for (uint32_t c = 0; c < channels; ++c) {
        const int64_t element = static_cast<int64_t>(c) * pixels + pixel;
        const uint32_t quad = static_cast<uint32_t>(element / 4);
        const int skip = static_cast<int>(element & 3);
        const Normal4 here = normal4(seed, copies.key, sample, quad);
        // The four pixels may straddle two Philox blocks.
        const Normal4 next = skip ? normal4(seed, copies.key, sample, quad + 1) : here;
        for (int j = 0; j < 4 && pixel + j < pixels; ++j) {
          // A constant index into each, so that both stay in registers.
          float z = 0.0f;
          for (int k = 0; k < 4; ++k) {
            if (k == skip + j) z = here.z[k];
            if (k + 4 == skip + j) z = next.z[k];
          }
          const int64_t at = (pixel + j) * channels + c;
          to[at] = from[at] + noise(copies, z);
        }
      }
    });
  }
};

// saliency_ranks: the sort key of pixel `item` of map `copy`; maps of float32 carry their number in
// the upper half, so that one sort of all of them keeps the maps apart.
GAG_HD uint64_t sort_key(float value, int64_t map) {
  return (static_cast<uint64_t>(map) << 32) | descending_key(value);
}
GAG_HD uint64_t sort_key(double value, int64_t) { return descending_key(value); }

// compose_: one item of masked copy `copy`, in `quads` four neighbours in memory or, channels_last,
// four pixels of three channels; else one element. Sources lie in memory like `out`.
template <typename T>
struct ComposeItem {
  const float* sources;
  const float* fill;
  const int32_t* ranks;
  const Slot* slots;
  T* out;
  int64_t source_count, map_count;
  uint32_t channels, pixels;
  bool last;   // memory format: channels_last or planar
  bool quads;  // see may_use_quads

  GAG_HD uint32_t items() const {
    if (!quads) return channels * pixels;
    return last ? pixels / 4 : channels * pixels / 4;
  }

  // Whether ranks, sources and copies can be read and written four at a time.
  bool may_use_quads() const {
    const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
    return pixels % 4 == 0 && (!last || channels == 3) && aligned(out) && aligned(ranks) &&
           aligned(sources);
  }

  GAG_HD void operator()(int64_t copy, uint32_t item) const {
    const Slot slot = slots[copy];
    T* to = out + copy * elements();
    if (!valid(slot, pixels, map_count, source_count)) {
      fill_with_nan(to, item);  // a bad slot must show, not read foreign memory
    } else if (!quads) {
      to[item] = one_element(slot, item);
    } else if (last) {
      three_channels(slot, to, item);
    } else {
      plane_quad(slot, to, item);
    }
  }

 private:
  GAG_HD int64_t elements() const { return static_cast<int64_t>(channels) * pixels; }

  GAG_HD void fill_with_nan(T* to, uint32_t item) const {
    const int64_t many = !quads ? 1 : last ? 12 : 4;
    for (int64_t i = 0; i < many; ++i) store(to + item * many + i, float_of(0x7FC00000u));
  }

  GAG_HD T one_element(const Slot& slot, uint32_t item) const {
    const uint32_t pixel = last ? item / channels : item % pixels;
    const uint32_t channel = last ? item % channels : item / pixels;
    const int32_t* rank = needs_ranks(slot, pixels) ? ranks + slot.map * int64_t{pixels} : nullptr;
    const int32_t source = source_of(slot, rank, pixel, pixels);
    T value;
    store(&value, source < 0 ? fill[channel] : sources[source * elements() + item]);
    return value;
  }

  // Which of four pixels from `pixel` on come from `top`, as bits.
  GAG_HD uint32_t tops(const Slot& slot, uint32_t pixel) const {
    if (!needs_ranks(slot, pixels)) return slot.count > 0 ? 15u : 0u;
    const Quad<int32_t> rank = load_quad(ranks + slot.map * int64_t{pixels} + pixel);
    uint32_t bits = 0;
    for (int j = 0; j < 4; ++j) bits |= rank.v[j] < slot.count ? 1u << j : 0u;
    return bits;
  }

  // Four neighbours of a source, or of the constant colour.
  GAG_HD Quad<float> read(int32_t source, int64_t first, const float (&colour)[4]) const {
    if (source >= 0) return load_quad(sources + source * elements() + first);
    return {{colour[0], colour[1], colour[2], colour[3]}};
  }

  GAG_HD void write(T* to, const Slot& slot, int64_t first, const bool (&top)[4], bool any_top,
                    bool any_rest, const float (&colour)[4]) const {
    Quad<float> a{}, b{};
    if (any_top) a = read(slot.top, first, colour);
    if (any_rest) b = read(slot.rest, first, colour);
    Quad<T> values;
    for (int j = 0; j < 4; ++j) store(&values.v[j], top[j] ? a.v[j] : b.v[j]);
    store_quad(to + first, values);
  }

  GAG_HD void plane_quad(const Slot& slot, T* to, uint32_t item) const {
    const uint32_t channel = item / (pixels / 4);
    const uint32_t bits = tops(slot, 4 * (item - channel * (pixels / 4)));
    const float colour = fill[channel];
    const bool top[4] = {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
    write(to, slot, 4 * static_cast<int64_t>(item), top, bits != 0, bits != 15u,
          {colour, colour, colour, colour});
  }

  GAG_HD void three_channels(const Slot& slot, T* to, uint32_t item) const {
    const uint32_t bits = tops(slot, 4 * item);
    for (int part = 0; part < 3; ++part) {
      bool top[4];
      float colour[4];
      for (int j = 0; j < 4; ++j) {
        top[j] = (bits >> ((4 * part + j) / 3) & 1u) != 0;
        colour[j] = fill[(4 * part + j) % 3];
      }
      write(to, slot, 12 * static_cast<int64_t>(item) + 4 * part, top, bits != 0, bits != 15u,
            colour);
    }
  }
};

}  // namespace gag_fast
