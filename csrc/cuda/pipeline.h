// One kernel that makes the maps of a batch image by image, so that statistics are read back from
// the L2 cache and memory sees the stack once and little else. Torch-free; see block.h for how it
// is written.
//
// The work of an image is that of the kernels of statistics.h, selection.h and saliency.h, in four
// stages; a block of those, or a few, is an item here. Items have numbers, and blocks take them in
// that order from a counter. In step s come the items of
//
//   Normalise of image s - 3 lag, ChannelSum of s - 2 lag, Selection of s - lag, Statistics of s
//
// where lag is about as many images as are being read at a time: a stage seldom waits for the one
// before. Statistics live in a ring of `slots` images; that of s waits until s - slots is summed.
//
// No block waits for ever: an item waits for items with smaller numbers alone, which blocks that
// run have taken; the smallest unfinished one waits for none. So it does not matter how many of the
// blocks are on the device at a time, nor in which order they start.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "cuda/saliency.h"
#include "cuda/selection.h"
#include "cuda/stack.h"
#include "cuda/statistics.h"

namespace gag_fast::cuda {

// A block that does the work of block `item` of another launch.
template <typename Block>
class ItemBlock {
 public:
  GAG_BODY ItemBlock(Block& block, uint32_t item) : block_(block), item_(item) {}

  GAG_BODY uint32_t index() const { return item_; }
  template <typename F>
  GAG_BODY void phase(F body) {
    block_.phase([&](int t) { body(opaque(t)); });
  }
  template <typename F>
  GAG_BODY void last_phase(F body) {
    block_.last_phase([&](int t) { body(opaque(t)); });
  }
  template <typename T>
  GAG_BODY auto shared(int offset) {
    return block_.template shared<T>(offset);
  }
  template <typename P, typename V>
  GAG_BODY auto atomic_add(P pointer, V value) {
    return block_.atomic_add(pointer, value);
  }
  template <typename P, typename V>
  GAG_BODY void atomic_or(P pointer, V value) {
    block_.atomic_or(pointer, value);
  }
  template <typename P, typename V>
  GAG_BODY void atomic_max(P pointer, V value) {
    block_.atomic_max(pointer, value);
  }
  template <typename P>
  GAG_BODY auto fresh(P pointer) {
    return block_.fresh(pointer);
  }
  GAG_BODY void fence() { block_.fence(); }

 private:
  // Or the compiler works out before the loop over items what depends on t alone, and has no
  // registers to keep it in.
  GAG_BODY static int opaque(int t) {
#if defined(__CUDACC__)
    asm volatile("" : "+r"(t));
#endif
    return t;
  }

  Block& block_;
  uint32_t item_;
};

// The stages in the order of their items within a step: what makes room comes first.
enum Stage : int { kNormalise, kChannelSum, kSelection, kStatistics, kStages };

struct Schedule {
  uint32_t images, lag, slots;
  uint32_t items[kStages];  // of an image

  GAG_BODY uint32_t per_step() const {
    return items[kNormalise] + items[kChannelSum] + items[kSelection] + items[kStatistics];
  }
  // Steps x items of a step: some of the first and last have no image.
  GAG_BODY uint32_t end() const { return (images + kNormaliseLags * lag) * per_step(); }

  static constexpr uint32_t kNormaliseLags = 3;
  GAG_BODY static uint32_t lags(int stage) { return kStatistics - stage; }
};

struct Work {
  int stage;
  uint32_t image, item;  // item: of the image
  bool exists;
};

GAG_BODY Work work_of(const Schedule& s, uint32_t number) {
  const uint32_t step = number / s.per_step();
  uint32_t item = number - step * s.per_step();
  int stage = 0;
  GAG_UNROLL
  for (int k = 0; k < kStages - 1; ++k) {
    if (stage == k && item >= s.items[k]) item -= s.items[k], stage = k + 1;
  }
  const uint32_t behind = Schedule::lags(stage) * s.lag;
  return {stage, step - behind, item, step >= behind && step - behind < s.images};
}

constexpr int larger(int a, int b) { return a > b ? a : b; }

// Of a float32 stack.
struct Pipeline {
  using A = float;
  using MakeStatistics = Statistics<float, Layout::kPlanes>;
  static constexpr int kThreads = MakeStatistics::kThreads;
  // Three blocks would leave 80 registers, with which the compiler keeps two loads in flight; two
  // blocks have room for eight, and time for what an item costs beside reading.
  static constexpr int kBlocksPerMultiprocessor = 2;
  static constexpr int kLoads = 8;
  using Select = Selection<A, kThreads, true>;
  using Sum = ChannelSum<A, kWide<A>, 1, true>;
  using MinMax = Normalise<A, kWide<A>, true>;
  static_assert(Sum::kThreads == kThreads && MinMax::kThreads == kThreads);

  static constexpr int kTaken =
      larger(larger(Select::kSharedBytes, Sum::kSharedBytes), MakeStatistics::kMostBytes);
  static constexpr int kSharedBytes = kTaken + 4;
  static_assert(kTaken % 4 == 0 && kSharedBytes <= kMostShared);

  // An item costs some 3 us whatever it does: to be taken, to wait, to be told of.
  static constexpr uint32_t kMapTiles = 4;

  Schedule schedule;
  Global<uint32_t> next;  // the number of the next item, 0 at launch
  Global<uint32_t> done;  // [images, kStages] items, 0 at launch
  // As for launches of their own, but that m2, abssum and candidates are those of a ring.
  MakeStatistics statistics;
  Select selection;
  Sum sum;
  MinMax min_max;

  int shared_bytes() const { return kSharedBytes; }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    auto taken = block.template shared<uint32_t>(kTaken);
    for (;;) {
      block.phase([&](int t) {
        if (t == 0) taken[0] = take(block);
      });
      const uint32_t number = taken[0];
      if (number >= schedule.end()) return;
      perform(block, work_of(schedule, number));
      block.phase([&](int) {});
      block.last_phase([&](int t) {
        if (t > 0) return;
        const Work work = work_of(schedule, taken[0]);
        block.fence();
        block.atomic_add(done + (work.image * kStages + work.stage), 1u);
      });
    }
  }

 private:
  // The number of an item of some image, when what it needs is there.
  template <typename Block>
  GAG_BODY uint32_t take(Block& block) const {
    for (;;) {
      const uint32_t number = block.atomic_add(next, 1u);
      if (number >= schedule.end()) return number;
      const Work work = work_of(schedule, number);
      if (!work.exists) continue;
      if (work.stage != kStatistics) {
        wait(block, work.image, work.stage + 1);
      } else if (work.image >= schedule.slots) {
        wait(block, work.image - schedule.slots, kChannelSum);
      }
      block.fence();
      return number;
    }
  }

  template <typename Block>
  GAG_BODY void wait(Block& block, uint32_t image, int stage) const {
    block.wait(done + (image * kStages + stage), schedule.items[stage]);
  }

  template <typename Block>
  GAG_BODY void perform(Block& block, const Work& work) const {
    // The kernels number rows through all images; those of this one lie in its slot.
    const int64_t slot = work.image % schedule.slots;
    const int64_t pixels = sum.from.pixels;
    const int64_t shift = (slot - static_cast<int64_t>(work.image)) * sum.from.channels * pixels;
    switch (work.stage) {
      case kStatistics: {
        MakeStatistics kernel = statistics;
        kernel.m2 = kernel.m2 + shift;
        kernel.abssum = kernel.abssum + shift;
        ItemBlock<Block> item(block, work.image * schedule.items[kStatistics] + work.item);
        return kernel.template operator()<ItemBlock<Block>, kLoads>(item);
      }
      case kSelection: {
        ItemBlock<Block> item(block, work.image * schedule.items[kSelection] + work.item);
        return selection(item, shift);
      }
      case kChannelSum: {
        Sum kernel = sum;
        kernel.from.m2 = kernel.from.m2 + shift;
        kernel.from.abssum = kernel.from.abssum + shift;
        return each_tile(block, work, sum.blocks_per_image, kernel);
      }
      default:
        return each_tile(block, work, min_max.blocks_per_map, min_max);
    }
  }

  // The blocks of a launch over maps that are one item here.
  template <typename Block, typename Kernel>
  GAG_BODY static void each_tile(Block& block, const Work& work, uint32_t tiles,
                                 const Kernel& kernel) {
    const uint32_t first = work.item * kMapTiles;
    const uint32_t last = first + kMapTiles < tiles ? first + kMapTiles : tiles;
    for (uint32_t tile = first; tile < last; ++tile) {
      ItemBlock<Block> item(block, work.image * tiles + tile);
      kernel(item);
    }
  }
};

}  // namespace gag_fast::cuda
