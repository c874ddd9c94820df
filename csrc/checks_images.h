// What both backends of the operators on images, maps and masked copies check before they touch
// memory. Messages name what was received.
#pragma once

#include <cstdint>

#include "checks.h"

namespace gag_fast {

// Elements of an image are numbered in 32 bits (math/items.h).
inline void check_elements(const Tensor& images, const char* op) {
  const int64_t elements = images.size(1) * images.size(2) * images.size(3);
  STD_TORCH_CHECK(elements < (int64_t{1} << 32), op,
                  ": an image may have fewer than 2^32 elements, got ", elements);
}

inline void check_images(const Tensor& images, const char* op) {
  STD_TORCH_CHECK(images.dim() == 4, op, ": images must be [B,C,H,W], got ", images.dim(),
                  " dimensions");
  STD_TORCH_CHECK(is_accumulator(images.scalar_type()), op, ": images must be float32 or float64");
  for (int64_t d = 1; d < 4; ++d) {
    STD_TORCH_CHECK(images.size(d) > 0, op, ": images has an empty axis ", d);
  }
  check_elements(images, op);
}

inline void check_vector(const Tensor& t, ScalarType type, int64_t size, const char* name,
                         const char* type_name, const char* op) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == size && t.scalar_type() == type && t.is_contiguous(),
                  op, ": ", name, " must be a contiguous ", type_name, " vector of ", size,
                  " elements, got ", t.numel(), " elements in ", t.dim(), " dimensions");
}

inline void check_noise(const Tensor& images, const Tensor& keys, const Tensor& std,
                        int64_t first_sample, int64_t samples) {
  const char* op = "gaussian_noise";
  check_images(images, op);
  check_vector(keys, ScalarType::Long, images.size(0), "keys", "int64", op);
  check_vector(std, ScalarType::Float, images.size(0), "std", "float32", op);
  STD_TORCH_CHECK(samples >= 1, op, ": samples must be at least 1, got ", samples);
  STD_TORCH_CHECK(first_sample >= 0 && first_sample <= (int64_t{1} << 32) - samples, op,
                  ": sample numbers must lie in [0, 2^32), got ", samples, " from ", first_sample);
}

inline void check_maps(const Tensor& maps) {
  const char* op = "saliency_ranks";
  STD_TORCH_CHECK(maps.dim() == 3, op, ": maps must be [M,H,W], got ", maps.dim(), " dimensions");
  STD_TORCH_CHECK(is_accumulator(maps.scalar_type()), op, ": maps must be float32 or float64");
  STD_TORCH_CHECK(maps.size(1) > 0 && maps.size(2) > 0, op, ": maps are empty, ", maps.size(1),
                  " x ", maps.size(2), " pixels");
  STD_TORCH_CHECK(maps.size(1) * maps.size(2) < (int64_t{1} << 31), op,
                  ": a map may have fewer than 2^31 pixels, got ", maps.size(1) * maps.size(2));
}

inline void check_compose(const Tensor& out, const Tensor& sources, const Tensor& fill,
                          const Tensor& ranks, const Tensor& slots, bool out_is_dense) {
  const char* op = "compose_";
  STD_TORCH_CHECK(out.dim() == 4, op, ": out must be [N,C,H,W], got ", out.dim(), " dimensions");
  STD_TORCH_CHECK(out.scalar_type() == ScalarType::Float || out.scalar_type() == ScalarType::Half,
                  op, ": out must be float32 or float16");
  STD_TORCH_CHECK(out_is_dense, op, ": out must be contiguous or channels_last");
  STD_TORCH_CHECK(sources.dim() == 4 && sources.scalar_type() == ScalarType::Float, op,
                  ": sources must be float32 [S,C,H,W], got ", sources.dim(), " dimensions");
  for (int64_t d = 1; d < 4; ++d) {
    STD_TORCH_CHECK(sources.size(d) == out.size(d), op, ": axis ", d, " is ", sources.size(d),
                    " in sources, ", out.size(d), " in out");
  }
  const int64_t pixels = out.size(2) * out.size(3);
  STD_TORCH_CHECK(pixels < (int64_t{1} << 31), op,
                  ": an image may have fewer than 2^31 pixels, got ", pixels);
  check_elements(out, op);
  check_vector(fill, ScalarType::Float, out.size(1), "fill", "float32", op);
  STD_TORCH_CHECK(ranks.dim() == 2 && ranks.scalar_type() == ScalarType::Int &&
                      ranks.size(1) == pixels && ranks.is_contiguous(),
                  op, ": ranks must be contiguous int32 [M, ", pixels, "], got ", ranks.numel(),
                  " elements in ", ranks.dim(), " dimensions");
  STD_TORCH_CHECK(slots.dim() == 2 && slots.scalar_type() == ScalarType::Int &&
                      slots.size(0) == out.size(0) && slots.size(1) == 4 && slots.is_contiguous(),
                  op, ": slots must be contiguous int32 [", out.size(0), ", 4], got ",
                  slots.numel(), " elements in ", slots.dim(), " dimensions");
}

}  // namespace gag_fast
