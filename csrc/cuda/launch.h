// What every CUDA operator needs around its kernels: the tensor's device made current, torch's
// current stream on it, grid sizes, and launch errors turned into exceptions. Nothing here (nor in
// any kernel of this folder) synchronises with the host, so every operator can be captured in a
// CUDA graph. Workspaces come from torch's allocator: `workspace` below.
//
//   CudaScope scope(images, "image_keys");           // device guard for the rest of the block
//   kernel<<<scope.blocks(n, kThreads), kThreads, 0, scope.stream()>>>(...);
//   scope.check_launch();
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

namespace gag_fast {

constexpr int kThreads = 256;  // of the element-wise kernels

class CudaScope {
 public:
  // Makes the device of `t` current until the scope ends, and looks up torch's stream there.
  CudaScope(const torch::stable::Tensor& t, const char* op)
      : op_(op), device_(t.get_device_index()), guard_(device_) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  int attribute(cudaDeviceAttr name) const {
    int value = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device_));
    return value;
  }

  int multiprocessors() const { return attribute(cudaDevAttrMultiProcessorCount); }

  // Blocks of `threads` for a grid-stride loop over `items`: enough to fill the device a few times
  // over, never more than there is work for, never none.
  unsigned blocks(int64_t items, int threads = kThreads, int per_multiprocessor = 16) const {
    const int64_t wanted = (items + threads - 1) / threads;
    const int64_t most = static_cast<int64_t>(multiprocessors()) * per_multiprocessor;
    const int64_t count = wanted < most ? wanted : most;
    return static_cast<unsigned>(count < 1 ? 1 : count);
  }

  // Bad launch configurations are reported here; faults inside kernels surface at torch's next
  // synchronisation, as for torch's own kernels.
  void check_launch() const { STD_CUDA_KERNEL_LAUNCH_CHECK(); }

  // The tensors of one call must share a device; a mix would be read through a foreign address.
  void check_device(const torch::stable::Tensor& t, const char* name) const {
    STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == device_, op_, ": ", name,
                    " is not on cuda:", device_, " as the other tensors are");
  }

 private:
  const char* op_;
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// body(copy, item) for every copy and item (csrc/math/items.h), both grid-stride.
template <typename Body>
__global__ void __launch_bounds__(kThreads)
    for_each_item(Body body, int64_t copies, uint32_t items) {
  for (int64_t copy = blockIdx.y; copy < copies; copy += gridDim.y) {
    for (int64_t item = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; item < items;
         item += int64_t{gridDim.x} * blockDim.x) {
      body(copy, static_cast<uint32_t>(item));
    }
  }
}

template <typename Body>
void launch_items(const CudaScope& scope, const Body& body, int64_t copies, uint32_t items) {
  if (copies == 0 || items == 0) return;
  const unsigned rows = static_cast<unsigned>(copies < 65535 ? copies : 65535);
  for_each_item<<<dim3(scope.blocks(items), rows), kThreads, 0, scope.stream()>>>(body, copies,
                                                                                  items);
  scope.check_launch();
}

// Uninitialised bytes on the device of `like`, from torch's caching allocator: stream-ordered,
// free of synchronisation, counted by torch.cuda.memory_allocated, and part of a graph's pool
// under capture. Freed when the returned tensor goes out of scope.
inline torch::stable::Tensor workspace(const torch::stable::Tensor& like, int64_t bytes) {
  return torch::stable::new_empty(like, {bytes}, torch::headeronly::ScalarType::Byte);
}

}  // namespace gag_fast
