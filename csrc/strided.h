// Outputs, and strides and memory formats of image batches. Shared by both backends.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cstdint>
#include <vector>

namespace gag_fast {

// For k maps of each image of a batch of size [B,C,H,W]: [k,B,H,W] or, keep_channels, [k,B,C,H,W].
inline torch::stable::Tensor new_maps(const torch::stable::Tensor& like,
                                      torch::headeronly::ScalarType type, int64_t k,
                                      const std::vector<int64_t>& size, bool keep_channels) {
  std::vector<int64_t> maps = {k};
  for (int64_t d = 0; d < 4; ++d) {
    if (d != 1 || keep_channels) maps.push_back(size[d]);
  }
  return torch::stable::new_empty(like, {maps.data(), maps.size()}, type);
}

// [..,C,H,W] dense with C innermost, by torch's rule: strides of axes of size 1 do not count.
inline bool is_channels_last(const torch::stable::Tensor& t) {
  if (t.dim() != 4) return false;
  const int64_t C = t.size(1), H = t.size(2), W = t.size(3);
  const int64_t wanted[4] = {H * W * C, 1, W * C, C};
  for (int64_t d = 0; d < 4; ++d) {
    if (t.size(d) != 1 && t.stride(d) != wanted[d]) return false;
  }
  return true;
}

// The format an image batch asks of what is computed from it; contiguous wins where both hold.
inline bool prefers_channels_last(const torch::stable::Tensor& t) {
  return !t.is_contiguous() && is_channels_last(t);
}

inline torch::stable::Tensor empty_strided(const torch::stable::Tensor& like, int64_t dim,
                                           const int64_t* sizes, const int64_t* strides) {
  int32_t dtype, device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes, strides, dtype, device_type, device_index, &handle));
  return torch::stable::Tensor(handle);
}

// `t`, or a contiguous copy of it where it is not contiguous.
inline torch::stable::Tensor contiguous_copy(const torch::stable::Tensor& t) {
  if (t.is_contiguous()) return t;
  torch::stable::Tensor copy = torch::stable::new_empty(t, t.sizes());
  torch::stable::copy_(copy, t);
  return copy;
}

// The batch `t` in the memory format wanted: itself, or a copy.
inline torch::stable::Tensor in_format(const torch::stable::Tensor& t, bool channels_last) {
  if (channels_last ? is_channels_last(t) : t.is_contiguous()) return t;
  const int64_t C = t.size(1), H = t.size(2), W = t.size(3), CHW = C * H * W;
  const int64_t sizes[4] = {t.size(0), C, H, W};
  const int64_t planar[4] = {CHW, H * W, W, 1};
  const int64_t last[4] = {CHW, 1, W * C, C};
  torch::stable::Tensor copy = empty_strided(t, 4, sizes, channels_last ? last : planar);
  torch::stable::copy_(copy, t);
  return copy;
}

// [B,samples,C,H,W] for the noisy copies of `images`, in the memory format of `images`.
inline torch::stable::Tensor empty_noisy(const torch::stable::Tensor& images, int64_t samples) {
  const int64_t C = images.size(1), H = images.size(2), W = images.size(3), CHW = C * H * W;
  const int64_t sizes[5] = {images.size(0), samples, C, H, W};
  const int64_t planar[5] = {samples * CHW, CHW, H * W, W, 1};
  const int64_t last[5] = {samples * CHW, CHW, 1, W * C, C};
  return empty_strided(images, 5, sizes, prefers_channels_last(images) ? last : planar);
}

}  // namespace gag_fast
