// gaussian_noise on CUDA: one thread per Philox block, or per four pixels of a channels_last image,
// of a few samples.
// The images are small beside the noisy copies and stay in the second-level cache, so the traffic
// is one write of the output.
#include <torch/csrc/stable/library.h>

#include "checks_images.h"
#include "cuda/launch.h"
#include "math/items.h"
#include "strided.h"

namespace gag_fast {
namespace {

template <typename T>
void launch(const CudaScope& scope, const Tensor& images, bool last, const Tensor& keys,
            const Tensor& std, int64_t seed, int64_t first_sample, int64_t samples, Tensor& out) {
  const T* from = images.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  const int64_t elements = images.size(1) * images.size(2) * images.size(3);
  const NoiseItem<T> body{from,
                          keys.const_data_ptr<int64_t>(),
                          std.const_data_ptr<float>(),
                          to,
                          static_cast<uint64_t>(seed),
                          first_sample,
                          samples,
                          static_cast<uint32_t>(images.size(1)),
                          static_cast<uint32_t>(images.size(2) * images.size(3)),
                          last,
                          holds_quads(from, elements) && holds_quads(to, elements)};
  launch_items(scope, body, images.size(0) * body.groups(), body.items());
}

Tensor gaussian_noise(const Tensor& images, const Tensor& keys, const Tensor& std, int64_t seed,
                      int64_t first_sample, int64_t samples) {
  check_noise(images, keys, std, first_sample, samples);
  const CudaScope scope(images, "gaussian_noise");
  scope.check_device(keys, "keys");
  scope.check_device(std, "std");
  const bool last = prefers_channels_last(images);
  Tensor out = empty_noisy(images, samples);
  const Tensor dense = last ? images : contiguous_copy(images);
  if (images.scalar_type() == ScalarType::Float) {
    launch<float>(scope, dense, last, keys, std, seed, first_sample, samples, out);
  } else {
    launch<double>(scope, dense, last, keys, std, seed, first_sample, samples, out);
  }
  return out;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CUDA, m) {
  m.impl("gaussian_noise", TORCH_BOX(&gag_fast::gaussian_noise));
}
