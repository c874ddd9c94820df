// image_keys on the CPU: threads share the image rows and add their sums, which commute.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "checks_images.h"
#include "cpu/elementwise.h"

namespace gag_fast {
namespace {

struct Strides {
  int64_t b, c, h, w;
};

template <typename T>
void add_hashes(const T* images, Strides stride, int64_t B, int64_t C, int64_t H, int64_t W,
                uint64_t (*hash)(const T*, int64_t, uint32_t, int64_t), uint64_t* keys) {
  std::fill(keys, keys + B, uint64_t{0});
  // Rows that follow each other in memory are one long row.
  const bool planes = stride.h == W * stride.w;
  const int64_t rows = planes ? 1 : H;
  const int64_t length = planes ? H * W : W;
  const int64_t grain = std::max<int64_t>(1, 32768 / length);
  torch::stable::parallel_for(0, B * C * rows, grain, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / (C * rows), c = row / rows % C, h = row % rows;
      const T* from = images + b * stride.b + c * stride.c + h * stride.h;
      const uint32_t index = static_cast<uint32_t>((c * rows + h) * length);
      const uint64_t sum = hash(from, stride.w, index, length);
      std::atomic_ref<uint64_t>(keys[b]).fetch_add(sum, std::memory_order_relaxed);
    }
  });
}

Tensor image_keys(const Tensor& images) {
  check_images(images, "image_keys");
  const int64_t B = images.size(0), C = images.size(1), H = images.size(2), W = images.size(3);
  const Strides stride{images.stride(0), images.stride(1), images.stride(2), images.stride(3)};
  Tensor keys = torch::stable::new_empty(images, {B}, ScalarType::Long);
  uint64_t* sums = reinterpret_cast<uint64_t*>(keys.mutable_data_ptr<int64_t>());
  const ElementwiseKernels& kernels = elementwise_kernels();
  if (images.scalar_type() == ScalarType::Float) {
    add_hashes(images.const_data_ptr<float>(), stride, B, C, H, W, kernels.hash_f32, sums);
  } else {
    add_hashes(images.const_data_ptr<double>(), stride, B, C, H, W, kernels.hash_f64, sums);
  }
  return keys;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) {
  m.impl("image_keys", TORCH_BOX(&gag_fast::image_keys));
}
