// gradient_stats_ on CUDA: m more samples into running statistics, in place, in one launch.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "checks.h"
#include "cuda/device.h"
#include "cuda/guided_absgrad.h"
#include "cuda/launch.h"

namespace gag_fast {
namespace {

void gradient_stats_(Tensor shift, Tensor mean, Tensor m2, Tensor abssum, const Tensor& grads,
                     int64_t count, std::optional<Tensor> settled) {
  constexpr const char* kOp = "gradient_stats_";
  check_gradient_stats(shift, mean, m2, abssum, grads, count, settled, kOp);
  const CudaScope scope(grads, kOp);
  scope.check_device(shift, "shift");
  scope.check_device(mean, "mean");
  scope.check_device(m2, "m2");
  scope.check_device(abssum, "abssum");
  if (settled) scope.check_device(*settled, "settled");
  cuda::GpuDevice device(scope);
  cuda::for_gradient_type(grads.scalar_type(), [&]<typename S>() {
    using A = cuda::Accumulator<S>;
    const auto state = [](Tensor& t) { return static_cast<A*>(t.mutable_data_ptr()); };
    A* const settled_m2 = settled ? state(*settled) : nullptr;
    A* const settled_abssum = settled ? settled_m2 + m2.numel() : nullptr;
    cuda::gradient_stats_on(device, cuda::stack_of<S>(grads), count,
                            cuda::FoldedState<A>{state(shift), state(mean), state(m2),
                                                 state(abssum), settled_m2, settled_abssum});
  });
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CUDA, m) {
  m.impl("gradient_stats_", TORCH_BOX(&gag_fast::gradient_stats_));
}
