// saliency_ranks on the CPU: per map, a least-significant-digit radix sort of (key, pixel) pairs.
// Stable, so ties stay in pixel order; linear, and in the second-level cache for maps up to 256^2.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "checks_images.h"
#include "math/rank_key.h"
#include "strided.h"

namespace gag_fast {
namespace {

constexpr int kDigitBits = 11;
constexpr int kBuckets = 1 << kDigitBits;

template <typename Key>
struct Entry {
  Key key;
  int32_t pixel;
};

template <typename Key>
uint32_t digit(Key key, int pass) {
  return static_cast<uint32_t>(key >> (pass * kDigitBits)) & (kBuckets - 1);
}

// Working memory of one thread, kept from map to map.
template <typename Key>
struct Scratch {
  static constexpr int kPasses = (8 * sizeof(Key) + kDigitBits - 1) / kDigitBits;
  std::vector<Entry<Key>> front, back;
  std::array<std::array<int32_t, kBuckets>, kPasses> offsets;
};

template <typename T, typename Key>
void rank_map(const T* map, int32_t pixels, Scratch<Key>& scratch, int32_t* ranks, int32_t* order) {
  constexpr int passes = Scratch<Key>::kPasses;
  for (auto& histogram : scratch.offsets) histogram.fill(0);
  Entry<Key>* front = scratch.front.data();
  Entry<Key>* back = scratch.back.data();
  // One read of the map: its keys, and the histograms of all digits.
  for (int32_t p = 0; p < pixels; ++p) {
    const Key key = descending_key(map[p]);
    front[p] = {key, p};
    for (int pass = 0; pass < passes; ++pass) ++scratch.offsets[pass][digit(key, pass)];
  }
  for (int pass = 0; pass < passes; ++pass) {
    auto& offsets = scratch.offsets[pass];
    if (offsets[digit(front[0].key, pass)] == pixels) continue;  // a digit that all keys share
    int32_t sum = 0;
    for (int32_t& offset : offsets) offset = std::exchange(sum, sum + offset);
    for (int32_t i = 0; i < pixels; ++i) {
      back[offsets[digit(front[i].key, pass)]++] = front[i];
    }
    std::swap(front, back);
  }
  for (int32_t rank = 0; rank < pixels; ++rank) {
    order[rank] = front[rank].pixel;
    ranks[front[rank].pixel] = rank;
  }
}

template <typename T, typename Key>
void rank_maps(const Tensor& maps, Tensor& ranks, Tensor& order) {
  const int32_t pixels = static_cast<int32_t>(maps.size(1) * maps.size(2));
  const T* map = maps.const_data_ptr<T>();
  int32_t* rank = ranks.mutable_data_ptr<int32_t>();
  int32_t* pixel = order.mutable_data_ptr<int32_t>();
  torch::stable::parallel_for(0, maps.size(0), 1, [=](int64_t begin, int64_t end) {
    Scratch<Key> scratch;
    scratch.front.resize(pixels);
    scratch.back.resize(pixels);
    for (int64_t m = begin; m < end; ++m) {
      const int64_t at = m * pixels;
      rank_map(map + at, pixels, scratch, rank + at, pixel + at);
    }
  });
}

std::tuple<Tensor, Tensor> saliency_ranks(const Tensor& maps) {
  check_maps(maps);
  const int64_t M = maps.size(0), pixels = maps.size(1) * maps.size(2);
  Tensor ranks = torch::stable::new_empty(maps, {M, pixels}, ScalarType::Int);
  Tensor order = torch::stable::new_empty(maps, {M, pixels}, ScalarType::Int);
  const Tensor dense = contiguous_copy(maps);
  if (maps.scalar_type() == ScalarType::Float) {
    rank_maps<float, uint32_t>(dense, ranks, order);
  } else {
    rank_maps<double, uint64_t>(dense, ranks, order);
  }
  return {ranks, order};
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) {
  m.impl("saliency_ranks", TORCH_BOX(&gag_fast::saliency_ranks));
}
