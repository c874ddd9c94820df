// gradient_stats_ on the CPU: more samples into running statistics, in place.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>

#include "checks.h"
#include "cpu/aggregate.h"
#include "cpu/stack_tensor.h"

namespace gag_fast {
namespace {

template <typename A>
void fold_all(Tensor& shift, Tensor& mean, Tensor& m2, Tensor& abssum, const Tensor& grads,
              int64_t count, std::optional<Tensor>& settled) {
  aggregate_kernels<A>();  // an unknown GAG_FAST_SIMD throws here rather than in a thread
  const StackView view = view_of(grads);
  const std::vector<A> inverse = inverses<A>(count, view.n);
  const int64_t HW = view.pixels(), planes = view.C * HW;
  const auto image = [&](Tensor& t, int64_t b) {
    return static_cast<A*>(t.mutable_data_ptr()) + b * planes;
  };
  A* const settled_m2 = settled ? static_cast<A*>(settled->mutable_data_ptr()) : nullptr;
  const auto settled_image = [&](int64_t which, int64_t b) {
    return settled_m2 ? settled_m2 + (which * view.B + b) * planes : nullptr;
  };
  // Every pixel is its own: deal (image, pixel group) pairs evenly.
  const int64_t groups = pixel_groups(HW);
  torch::stable::parallel_for(0, view.B * groups, 16, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t b = first / groups, group = first % groups;
      const int64_t some = std::min(groups - group, last - first);
      fold_pixels<A>(view, b, group * kPixelGroup, std::min((group + some) * kPixelGroup, HW),
                     count, inverse.data(),
                     {image(shift, b), image(mean, b), image(m2, b), image(abssum, b),
                      settled_image(0, b), settled_image(1, b)});
      first += some;
    }
  });
}

void gradient_stats_(Tensor shift, Tensor mean, Tensor m2, Tensor abssum, const Tensor& grads,
                     int64_t count, std::optional<Tensor> settled) {
  check_gradient_stats(shift, mean, m2, abssum, grads, count, settled, "gradient_stats_");
  if (shift.scalar_type() == ScalarType::Double) {
    fold_all<double>(shift, mean, m2, abssum, grads, count, settled);
  } else {
    fold_all<float>(shift, mean, m2, abssum, grads, count, settled);
  }
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) {
  m.impl("gradient_stats_", TORCH_BOX(&gag_fast::gradient_stats_));
}
