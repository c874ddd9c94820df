// saliency_ranks on CUDA: one stable radix sort (CUB) of all maps together, which fills the device
// where a sort per map would not. The map's number is the upper half of a float32 map's sort key;
// the keys of float64 maps fill the word, so a second stable sort, by map, follows. Deterministic:
// equal keys keep the order of their pixels.
#include <torch/csrc/stable/library.h>

#include <cub/device/device_radix_sort.cuh>

#include "checks_images.h"
#include "cuda/launch.h"
#include "math/items.h"
#include "strided.h"

namespace gag_fast {
namespace {

template <typename T>
struct KeyItem {
  const T* maps;
  uint64_t* keys;
  int32_t* values;  // the pixel within its map, or, `flat`, within all maps
  uint32_t pixels;
  bool flat;

  GAG_HD void operator()(int64_t map, uint32_t pixel) const {
    const int64_t at = map * pixels + pixel;
    keys[at] = sort_key(maps[at], map);
    values[at] = static_cast<int32_t>(flat ? at : pixel);
  }
};

// After the sort of float64 maps by value: the map of each place, to sort by.
struct MapItem {
  const int32_t* values;
  uint64_t* keys;
  uint32_t pixels;

  GAG_HD void operator()(int64_t copy, uint32_t item) const {
    const int64_t at = copy * pixels + item;
    keys[at] = static_cast<uint32_t>(values[at]) / pixels;
  }
};

// order[map, rank] becomes the pixel within its map, and ranks its inverse.
struct InvertItem {
  int32_t* order;
  int32_t* ranks;
  uint32_t pixels;
  bool flat;

  GAG_HD void operator()(int64_t map, uint32_t rank) const {
    const int64_t base = map * pixels;
    const int32_t value = order[base + rank];
    const int32_t pixel = flat ? static_cast<int32_t>(value - base) : value;
    if (flat) order[base + rank] = pixel;
    ranks[base + pixel] = static_cast<int32_t>(rank);
  }
};

void sort_pairs(const CudaScope& scope, const Tensor& like, const uint64_t* keys,
                uint64_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count,
                int end_bit) {
  size_t bytes = 0;
  STD_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted_keys, values,
                                                 sorted_values, count, 0, end_bit, scope.stream()));
  Tensor temporary = workspace(like, static_cast<int64_t>(bytes));
  STD_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(temporary.mutable_data_ptr(), bytes, keys,
                                                 sorted_keys, values, sorted_values, count, 0,
                                                 end_bit, scope.stream()));
}

int bits_for(int64_t count) {  // to tell `count` numbers apart
  int bits = 0;
  while ((int64_t{1} << bits) < count) ++bits;
  return bits;
}

template <typename T>
void rank_maps(const CudaScope& scope, const Tensor& maps, Tensor& ranks, Tensor& order) {
  constexpr bool flat = sizeof(T) == 8;
  const int64_t M = maps.size(0), count = maps.numel();
  const uint32_t pixels = static_cast<uint32_t>(maps.size(1) * maps.size(2));
  Tensor memory = workspace(maps, count * static_cast<int64_t>(2 * sizeof(uint64_t)));
  Tensor pairs = workspace(maps, count * static_cast<int64_t>(sizeof(int32_t)));
  uint64_t* keys = static_cast<uint64_t*>(memory.mutable_data_ptr());
  uint64_t* sorted = keys + count;
  int32_t* values = static_cast<int32_t*>(pairs.mutable_data_ptr());
  int32_t* pixel = order.mutable_data_ptr<int32_t>();
  launch_items(scope, KeyItem<T>{maps.const_data_ptr<T>(), keys, values, pixels, flat}, M, pixels);
  if (flat) {
    sort_pairs(scope, maps, keys, sorted, values, pixel, count, 64);
    if (M > 1) {
      STD_CUDA_CHECK(cudaMemcpyAsync(values, pixel, count * sizeof(int32_t),
                                     cudaMemcpyDeviceToDevice, scope.stream()));
      launch_items(scope, MapItem{values, keys, pixels}, M, pixels);
      sort_pairs(scope, maps, keys, sorted, values, pixel, count, bits_for(M));
    }
  } else {
    sort_pairs(scope, maps, keys, sorted, values, pixel, count, 32 + bits_for(M));
  }
  launch_items(scope, InvertItem{pixel, ranks.mutable_data_ptr<int32_t>(), pixels, flat}, M,
               pixels);
}

std::tuple<Tensor, Tensor> saliency_ranks(const Tensor& maps) {
  check_maps(maps);
  const CudaScope scope(maps, "saliency_ranks");
  const int64_t M = maps.size(0), pixels = maps.size(1) * maps.size(2);
  STD_TORCH_CHECK(M * pixels < (int64_t{1} << 31),
                  "saliency_ranks: at most 2^31 - 1 pixels in all on CUDA, got ", M * pixels,
                  "; rank the maps in several calls");
  Tensor ranks = torch::stable::new_empty(maps, {M, pixels}, ScalarType::Int);
  Tensor order = torch::stable::new_empty(maps, {M, pixels}, ScalarType::Int);
  if (M == 0) return {ranks, order};
  const Tensor dense = contiguous_copy(maps);
  if (maps.scalar_type() == ScalarType::Float) {
    rank_maps<float>(scope, dense, ranks, order);
  } else {
    rank_maps<double>(scope, dense, ranks, order);
  }
  return {ranks, order};
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CUDA, m) {
  m.impl("saliency_ranks", TORCH_BOX(&gag_fast::saliency_ranks));
}
