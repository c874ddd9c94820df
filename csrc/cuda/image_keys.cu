// image_keys on CUDA: each block sums the hashes of a part of one image; the partial sums meet in
// one atomic addition per warp. Integer addition commutes, so the result is deterministic.
#include <torch/csrc/stable/library.h>

#include "checks_images.h"
#include "cuda/launch.h"
#include "math/items.h"

namespace gag_fast {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_hashes(HashItem<T> hash, int64_t copies, uint32_t last_item, unsigned long long* keys) {
  for (int64_t copy = blockIdx.y; copy < copies; copy += gridDim.y) {
    unsigned long long sum = 0;
    for (int64_t item = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; item <= last_item;
         item += int64_t{gridDim.x} * blockDim.x) {
      sum += hash(copy, static_cast<uint32_t>(item));
    }
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, lane);
    if (threadIdx.x % 32 == 0) atomicAdd(keys + copy, sum);
  }
}

template <typename T>
void launch(const CudaScope& scope, const Tensor& images, unsigned long long* keys) {
  const int64_t B = images.size(0);
  const int64_t elements = images.size(1) * images.size(2) * images.size(3);
  const HashItem<T> hash{images.const_data_ptr<T>(),
                         images.stride(0),
                         images.stride(1),
                         images.stride(2),
                         images.stride(3),
                         static_cast<uint32_t>(images.size(2)),
                         static_cast<uint32_t>(images.size(3))};
  const unsigned rows = static_cast<unsigned>(B < 65535 ? B : 65535);
  // Eight elements a thread, to pay for the reduction.
  const dim3 grid(scope.blocks((elements + 7) / 8), rows);
  sum_hashes<T>
      <<<grid, kThreads, 0, scope.stream()>>>(hash, B, static_cast<uint32_t>(elements - 1), keys);
  scope.check_launch();
}

Tensor image_keys(const Tensor& images) {
  check_images(images, "image_keys");
  const CudaScope scope(images, "image_keys");
  const int64_t B = images.size(0);
  Tensor keys = torch::stable::new_empty(images, {B}, ScalarType::Long);
  if (B == 0) return keys;
  auto* sums = reinterpret_cast<unsigned long long*>(keys.mutable_data_ptr<int64_t>());
  STD_CUDA_CHECK(cudaMemsetAsync(sums, 0, B * sizeof(*sums), scope.stream()));
  if (images.scalar_type() == ScalarType::Float) {
    launch<float>(scope, images, sums);
  } else {
    launch<double>(scope, images, sums);
  }
  return keys;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CUDA, m) {
  m.impl("image_keys", TORCH_BOX(&gag_fast::image_keys));
}
