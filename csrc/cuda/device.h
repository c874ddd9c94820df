// The device that guided_absgrad.h launches on: torch's current stream of the tensor's GPU.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "checks.h"
#include "cuda/block.h"
#include "cuda/guided_absgrad.h"
#include "cuda/launch.h"
#include "cuda/stack.h"

namespace gag_fast::cuda {

class GpuDevice {
 public:
  explicit GpuDevice(const CudaScope& scope)
      : scope_(scope), multiprocessors_(scope.multiprocessors()) {}

  int64_t multiprocessors() const { return multiprocessors_; }

  // GAG_FAST_PIPELINE=auto or 1: where it pays, or wherever it can be. Blocks that wait for one
  // another have never run on a device, and the emulation does not see a wait that is left out: so
  // the launches one after another are what nobody has to ask for.
  Pipelining pipelining() const {
    const char* asked = std::getenv("GAG_FAST_PIPELINE");
    if (asked == nullptr || *asked == '\0' || *asked == '0') return Pipelining::kNever;
    return *asked == '1' ? Pipelining::kAlways : Pipelining::kWhereItPays;
  }

  void zero(void* from, int64_t bytes) {
    STD_CUDA_CHECK(cudaMemsetAsync(from, 0, static_cast<size_t>(bytes), scope_.stream()));
  }

  template <typename Kernel>
  void launch(const Kernel& kernel, uint32_t blocks) {
    const int shared = kernel.shared_bytes();
    run_kernel<Kernel><<<blocks, Kernel::kThreads, shared, scope_.stream()>>>(kernel);
    scope_.check_launch();
  }

 private:
  const CudaScope& scope_;
  int64_t multiprocessors_;
};

// `grads` has passed check_stack.
template <typename S>
Stack<S> stack_of(const Tensor& grads) {
  return {static_cast<const S*>(grads.const_data_ptr()),
          grads.size(0),
          grads.size(1),
          grads.size(2),
          grads.size(3),
          grads.size(4),
          grads.stride(0),
          grads.stride(1),
          grads.stride(2),
          grads.stride(3),
          grads.stride(4)};
}

// Calls body.template operator()<S>() with the element type of a stack.
template <typename Body>
void for_gradient_type(ScalarType type, Body body) {
  switch (type) {
    case ScalarType::Double:
      return body.template operator()<double>();
    case ScalarType::Half:
      return body.template operator()<Float16>();
    case ScalarType::BFloat16:
      return body.template operator()<BFloat16>();
    default:
      return body.template operator()<float>();
  }
}

}  // namespace gag_fast::cuda
