// gaussian_noise on the CPU: threads share chunks of the noisy copies. Each element is a function
// of its own numbers (math/normal.h), so how the work is cut has no influence on the result.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

#include "checks_images.h"
#include "cpu/elementwise.h"
#include "strided.h"

namespace gag_fast {
namespace {

// A task's size, in elements of one channel: a multiple of 4, so that each begins a Philox block.
constexpr int64_t kChunk = 16384;

template <typename T>
struct Kernels;
template <>
struct Kernels<float> {
  static auto planar(const ElementwiseKernels& k) { return k.noise_f32; }
  static auto last(const ElementwiseKernels& k) { return k.noise_last_f32; }
};
template <>
struct Kernels<double> {
  static auto planar(const ElementwiseKernels& k) { return k.noise_f64; }
  static auto last(const ElementwiseKernels& k) { return k.noise_last_f64; }
};

// `images` is dense: planar, or channels_last when `last`; so is `out`, sample after sample.
template <typename T>
void add_noise(const Tensor& images, bool last, const Tensor& keys, const Tensor& std, int64_t seed,
               int64_t first_sample, int64_t samples, Tensor& out) {
  const int64_t B = images.size(0), C = images.size(1), pixels = images.size(2) * images.size(3);
  const int64_t elements = C * pixels;
  const int64_t run = last ? pixels : elements;  // what a chunk is cut from
  const int64_t chunks = (run + kChunk - 1) / kChunk;
  const T* from = images.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  const int64_t* key = keys.const_data_ptr<int64_t>();
  const float* deviation = std.const_data_ptr<float>();
  const ElementwiseKernels& kernels = elementwise_kernels();
  torch::stable::parallel_for(0, B * samples * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t copy = task / chunks, b = copy / samples;
      const int64_t first = task % chunks * kChunk, n = std::min(kChunk, run - first);
      const NoiseStream stream{static_cast<uint64_t>(seed), static_cast<uint64_t>(key[b]),
                               static_cast<uint32_t>(first_sample + copy % samples)};
      if (last) {
        Kernels<T>::last(kernels)(from + b * elements + first * C, deviation[b], stream, C, pixels,
                                  first, n, to + copy * elements + first * C);
      } else {
        Kernels<T>::planar(kernels)(from + b * elements + first, deviation[b], stream, first, n,
                                    to + copy * elements + first);
      }
    }
  });
}

Tensor gaussian_noise(const Tensor& images, const Tensor& keys, const Tensor& std, int64_t seed,
                      int64_t first_sample, int64_t samples) {
  check_noise(images, keys, std, first_sample, samples);
  const bool last = prefers_channels_last(images);
  Tensor out = empty_noisy(images, samples);
  const Tensor dense = last ? images : contiguous_copy(images);
  if (images.scalar_type() == ScalarType::Float) {
    add_noise<float>(dense, last, keys, std, seed, first_sample, samples, out);
  } else {
    add_noise<double>(dense, last, keys, std, seed, first_sample, samples, out);
  }
  return out;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) {
  m.impl("gaussian_noise", TORCH_BOX(&gag_fast::gaussian_noise));
}
