// Bodies of cpu/elementwise.h, included once per instruction set; see the rules in cpu/simd.h. The
// loops are written so that compilers vectorise them: one element (or one Philox block) per turn,
// selects instead of branches, contiguous scratch in the first-level cache.
#pragma once

#include "cpu/elementwise.h"
#include "math/compose.h"
#include "math/hash.h"
#include "math/normal.h"

namespace gag_fast {
namespace {

constexpr int64_t kBlock = 1024;  // normals made at a time: 4 KiB of scratch

// z[0 .. 4 quads) = the normals of elements 4 * first_quad and on.
void normals(NoiseStream stream, int64_t first_quad, int64_t quads, float* __restrict z) {
  const uint32_t first = static_cast<uint32_t>(first_quad);
  const int32_t count = static_cast<int32_t>(quads);
  for (int32_t i = 0; i < count; ++i) {
    const Normal4 n =
        normal4(stream.seed, stream.key, stream.sample, first + static_cast<uint32_t>(i));
    z[4 * i] = n.z[0];
    z[4 * i + 1] = n.z[1];
    z[4 * i + 2] = n.z[2];
    z[4 * i + 3] = n.z[3];
  }
}

template <typename T>
void noise(const T* image, float std, NoiseStream stream, int64_t first, int64_t n, T* out) {
  alignas(64) float z[kBlock];
  for (int64_t done = 0; done < n; done += kBlock) {
    const int64_t count = n - done < kBlock ? n - done : kBlock;
    normals(stream, (first + done) / 4, (count + 3) / 4, z);
    const T* __restrict from = image + done;
    T* __restrict to = out + done;
    for (int64_t i = 0; i < count; ++i) to[i] = from[i] + static_cast<T>(std * z[i]);
  }
}

// Three channels, by far the most common: known at compile time, the interleaving is vectorised.
template <typename T>
void add_three(const T* __restrict from, float std, const float* __restrict z0,
               const float* __restrict z1, const float* __restrict z2, int64_t n,
               T* __restrict to) {
  for (int64_t i = 0; i < n; ++i) {
    to[3 * i] = from[3 * i] + static_cast<T>(std * z0[i]);
    to[3 * i + 1] = from[3 * i + 1] + static_cast<T>(std * z1[i]);
    to[3 * i + 2] = from[3 * i + 2] + static_cast<T>(std * z2[i]);
  }
}

template <typename T>
void noise_last(const T* image, float std, NoiseStream stream, int64_t channels, int64_t pixels,
                int64_t first, int64_t n, T* out) {
  // A channel's run of elements may begin inside a Philox block: make the whole block, skip a few.
  alignas(64) float z[3][kBlock + 8];
  for (int64_t done = 0; done < n; done += kBlock) {
    const int64_t count = n - done < kBlock ? n - done : kBlock;
    const T* from = image + done * channels;
    T* to = out + done * channels;
    const float* run[3];
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t element = c * pixels + first + done;
      const int64_t skip = element & 3;
      float* scratch = z[c % 3];
      normals(stream, element / 4, (skip + count + 3) / 4, scratch);
      run[c % 3] = scratch + skip;
      if (channels == 3) continue;
      for (int64_t i = 0; i < count; ++i) {
        to[i * channels + c] = from[i * channels + c] + static_cast<T>(std * run[c % 3][i]);
      }
    }
    if (channels == 3) add_three(from, std, run[0], run[1], run[2], count, to);
  }
}

template <typename T>
uint64_t hash(const T* values, int64_t stride, uint32_t index, int64_t n) {
  uint64_t sum = 0;
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) {
      sum += element_hash(static_cast<float>(values[i]), index + static_cast<uint32_t>(i));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      sum += element_hash(static_cast<float>(values[i * stride]), index + static_cast<uint32_t>(i));
    }
  }
  return sum;
}

template <typename T>
void select(const float* __restrict top, const float* __restrict rest,
            const int32_t* __restrict ranks, int32_t count, int64_t n, T* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    const float a = top[i];
    const float b = rest[i];
    store(out + i, ranks[i] < count ? a : b);
  }
}

void convert(const float* __restrict values, int64_t n, uint16_t* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_half(values[i]);
}

constexpr ElementwiseKernels kKernels = {
    noise<float>,       noise<double>,    noise_last<float>,
    noise_last<double>, hash<float>,      hash<double>,
    select<float>,      select<uint16_t>, convert,
};

}  // namespace
}  // namespace gag_fast
