// torch tensors as what the torch-free kernels take.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "checks.h"
#include "cpu/stack_view.h"

namespace gag_fast {

// `grads` has passed check_stack.
inline StackView view_of(const Tensor& grads) {
  const ScalarType type = grads.scalar_type();
  const auto size = grads.sizes();
  const auto stride = grads.strides();
  StackView view{};
  view.data = static_cast<const std::byte*>(grads.const_data_ptr());
  view.source = type == ScalarType::Double     ? kF64
                : type == ScalarType::Half     ? kF16
                : type == ScalarType::BFloat16 ? kBF16
                                               : kF32;
  view.element_bytes = view.source == kF64 ? 8 : view.source == kF32 ? 4 : 2;
  view.B = size[0], view.n = size[1], view.C = size[2], view.H = size[3], view.W = size[4];
  view.stride_b = stride[0], view.stride_n = stride[1], view.stride_c = stride[2];
  view.stride_h = stride[3], view.stride_w = stride[4];
  view.canonicalise();
  return view;
}

// 1 / the number of samples so far, for each of n samples that come after `count` others.
template <typename A>
std::vector<A> inverses(int64_t count, int64_t n) {
  std::vector<A> inverse(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) inverse[i] = A(1) / static_cast<A>(count + i + 1);
  return inverse;
}

// Pixels are dealt to threads in groups of this many: whole vectors and cache lines for all types.
inline constexpr int64_t kPixelGroup = 64;

inline int64_t pixel_groups(int64_t pixels) { return (pixels + kPixelGroup - 1) / kPixelGroup; }

// Deals the pixels [0, pixels) to torch's threads: body(begin, end).
template <typename Body>
void parallel_over_pixels(int64_t pixels, Body body) {
  torch::stable::parallel_for(0, pixel_groups(pixels), 16, [&](int64_t first, int64_t last) {
    body(first * kPixelGroup, std::min(last * kPixelGroup, pixels));
  });
}

}  // namespace gag_fast
