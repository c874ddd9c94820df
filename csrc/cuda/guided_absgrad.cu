// guided_absgrad and guided_absgrad_from_stats on CUDA: memory and checks. The kernels and their
// order are in guided_absgrad.h; csrc/README.md says what they cost.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "checks.h"
#include "cuda/device.h"
#include "cuda/guided_absgrad.h"
#include "cuda/launch.h"
#include "strided.h"

namespace gag_fast {
namespace {

Tensor guided_absgrad(const Tensor& grads, std::vector<double> p, bool normalize,
                      bool keep_channels) {
  check_stack(grads, "guided_absgrad");
  check_percents(p, grads.size(1), "guided_absgrad");
  const CudaScope scope(grads, "guided_absgrad");
  const int64_t B = grads.size(0), n = grads.size(1), C = grads.size(2);
  const int64_t H = grads.size(3), W = grads.size(4);
  Tensor out = new_maps(grads, accumulator_of(grads.scalar_type()), static_cast<int64_t>(p.size()),
                        {B, C, H, W}, keep_channels);
  const cuda::Request request{B, C, H * W, n, std::move(p), normalize, keep_channels};
  cuda::GpuDevice device(scope);
  cuda::for_gradient_type(grads.scalar_type(), [&]<typename S>() {
    using A = cuda::Accumulator<S>;
    const cuda::Stack<S> stack = cuda::stack_of<S>(grads);
    const cuda::Workspace plan =
        cuda::plan_workspace<A>(request, true, cuda::ring_of(device, stack, request));
    Tensor memory = workspace(grads, plan.bytes);
    cuda::guided_absgrad_on(device, stack, request, plan,
                            static_cast<cuda::Memory>(memory.mutable_data_ptr()),
                            static_cast<A*>(out.mutable_data_ptr()));
  });
  return out;
}

Tensor guided_absgrad_from_stats(const Tensor& m2, const Tensor& abssum, int64_t count,
                                 std::vector<double> p, bool normalize, bool keep_channels) {
  check_statistics(m2, abssum, count, p, "guided_absgrad_from_stats");
  const CudaScope scope(m2, "guided_absgrad_from_stats");
  scope.check_device(abssum, "abssum");
  const int64_t B = m2.size(0), C = m2.size(1), H = m2.size(2), W = m2.size(3);
  Tensor out =
      new_maps(m2, m2.scalar_type(), static_cast<int64_t>(p.size()), {B, C, H, W}, keep_channels);
  const cuda::Request request{B, C, H * W, count, std::move(p), normalize, keep_channels};
  cuda::GpuDevice device(scope);
  const auto run = [&]<typename A>(A) {
    const cuda::Workspace plan = cuda::plan_workspace<A>(request, false);
    Tensor memory = workspace(m2, plan.bytes);
    cuda::guided_absgrad_from_stats_on(device, static_cast<const A*>(m2.const_data_ptr()),
                                       static_cast<const A*>(abssum.const_data_ptr()), request,
                                       plan, static_cast<cuda::Memory>(memory.mutable_data_ptr()),
                                       static_cast<A*>(out.mutable_data_ptr()));
  };
  if (m2.scalar_type() == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return out;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CUDA, m) {
  m.impl("guided_absgrad", TORCH_BOX(&gag_fast::guided_absgrad));
  m.impl("guided_absgrad_from_stats", TORCH_BOX(&gag_fast::guided_absgrad_from_stats));
}
