// Kernels that turn statistics and thresholds into maps: guide x absmean, channel sum, min-max.
// Torch-free; see block.h for how they are written.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "cuda/selection.h"
#include "cuda/stack.h"
#include "cuda/statistics.h"
#include "math/guide.h"
#include "math/percentile.h"

namespace gag_fast::cuda {

// What the statistics and selection kernels left, and Eq. 3.4 x Eq. 3.2 on it.
template <typename A>
struct Summaries {
  Global<const A> m2;            // [rows, pixels]; null: every p is 0
  Global<const A> abssum;        // [rows, pixels], of |gradient|
  Global<const A> thresholds;    // [rows, percents]; null with m2
  Global<const uint32_t> taint;  // [rows]
  int64_t percents, channels, pixels;
  A samples, freedom;  // n, n - 1

  template <bool kFresh, typename Block>
  GAG_BODY A threshold(Block& block, int64_t row, int64_t percent) const {
    if (!m2) return kNoThreshold<A>;
    return read_one<kFresh>(block, thresholds + (row * percents + percent));
  }

  // The policy for gradients that are not finite: a variance counts only where it is used.
  template <bool kFresh, typename Block>
  GAG_BODY bool tainted(Block& block, int64_t row, A threshold) const {
    return spoils(read_one<kFresh>(block, taint + row), threshold != kNoThreshold<A>);
  }
};

template <typename A>
GAG_BODY A guided_absgrad(A variance, A absmean, A threshold) {
  return threshold == kNoThreshold<A> ? absmean : guided(variance, absmean, threshold);
}

template <typename A>
GAG_BODY A not_a_number() {
  return from_key<A>(~Key<A>(0) >> 1);
}

// The range of a map: its smallest and largest value as order keys, the smallest inverted. Both
// start at 0 and only grow, so atomics in any order give the same result. Both 0: nothing was
// recorded, the map is tainted (an inverted key is never 0, the sign bit is clear in every key).
enum RangeEnd : int { kInvertedLow = 0, kHigh = 1, kRangeEnds = 2 };

// Maps [percents, images, pixels]: the channel sum in the order c = 0, 1, .. as on the CPU.
// kTogether percents share one read of the statistics. kLanes: 16 bytes of pixels per thread, or 1.
// kFresh: see read_one (stack.h).
template <typename A, int kLanes, int kTogether, bool kFresh = false>
struct ChannelSum {
  using K = Key<A>;
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = 2;
  static constexpr int kSharedBytes = (kThreads + 1) * 2 * kTogether * static_cast<int>(sizeof(K));
  static_assert(kSharedBytes <= kMostShared && kTogether * 32 <= kThreads);

  Summaries<A> from;
  int64_t images;
  uint32_t blocks_per_image;
  Global<A> maps;
  Global<K> ranges;  // [percents, images, kRangeEnds], 0 at launch; null: no min-max wanted

  int shared_bytes() const { return kSharedBytes; }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const int64_t image = block.index() / blocks_per_image;
    for (int64_t first = 0; first < from.percents; first += kTogether) {
      const int64_t left = from.percents - first;
      some(block, image, first, left < kTogether ? static_cast<int>(left) : kTogether);
    }
  }

 private:
  template <typename Block>
  GAG_BODY void some(Block& block, int64_t image, int64_t first, int together) const {
    // [2 * kTogether][kThreads] keys of each thread's own range, then the block's.
    auto keys = block.template shared<K>(0);
    auto extremes = keys + 2 * kTogether * kThreads;
    const int64_t first_row = image * from.channels;

    block.phase([&](int t) {
      if (t < 2 * kTogether) extremes[t] = 0;
      const int64_t pixel =
          (static_cast<int64_t>(block.index() % blocks_per_image) * kThreads + t) * kLanes;
      const bool inside = pixel < from.pixels;
      Lanes<A, kLanes> total[kTogether] = {};
      bool tainted[kTogether] = {};
      for (int64_t c = 0; inside && c < from.channels; ++c) {
        const int64_t row = first_row + c, at = row * from.pixels + pixel;
        const auto sums = read_lanes<kFresh, kLanes>(block, from.abssum + at);
        Lanes<A, kLanes> squares{};
        if (from.m2) squares = read_lanes<kFresh, kLanes>(block, from.m2 + at);
        Lanes<A, kLanes> variances, absmeans;
        GAG_UNROLL
        for (int l = 0; l < kLanes; ++l) {
          absmeans.lane[l] = sums.lane[l] / from.samples;
          variances.lane[l] = squares.lane[l] / from.freedom;
        }
        GAG_UNROLL
        for (int g = 0; g < kTogether; ++g) {
          if (g >= together) break;
          const A threshold = from.template threshold<kFresh>(block, row, first + g);
          tainted[g] |= from.template tainted<kFresh>(block, row, threshold);
          GAG_UNROLL
          for (int l = 0; l < kLanes; ++l) {
            const A term = guided_absgrad(variances.lane[l], absmeans.lane[l], threshold);
            total[g].lane[l] = c == 0 ? term : total[g].lane[l] + term;
          }
        }
      }
      GAG_UNROLL
      for (int g = 0; g < kTogether; ++g) {
        if (g >= together) break;
        K range[kRangeEnds] = {0, 0};
        if (inside) {
          GAG_UNROLL
          for (int l = 0; l < kLanes; ++l) {
            if (tainted[g]) {
              total[g].lane[l] = not_a_number<A>();
            } else {
              const K key = order_key(total[g].lane[l]);
              range[kHigh] = key > range[kHigh] ? key : range[kHigh];
              range[kInvertedLow] = ~key > range[kInvertedLow] ? ~key : range[kInvertedLow];
            }
          }
          store_lanes<false>(maps + ((first + g) * images + image) * from.pixels + pixel, total[g]);
        }
        if (ranges) {
          keys[(2 * g) * kThreads + t] = range[kInvertedLow];
          keys[(2 * g + 1) * kThreads + t] = range[kHigh];
        }
      }
    });
    if (!ranges) return;
    block.phase([&](int t) {
      const int g = t / 32;
      if (g >= together) return;
      for (int side = 0; side < 2; ++side) {
        K most = 0;
        for (int i = t % 32; i < kThreads; i += 32) {
          const K key = keys[(2 * g + side) * kThreads + i];
          most = key > most ? key : most;
        }
        block.atomic_max(extremes + (2 * g + side), most);
      }
    });
    block.phase([&](int t) {
      if (t >= together) return;
      const auto range = ranges + ((first + t) * images + image) * kRangeEnds;
      const K low = extremes[2 * t], high = extremes[2 * t + 1];
      if (low) {
        block.atomic_max(range + kInvertedLow, low);
        block.atomic_max(range + kHigh, high);
      }
    });
  }
};

// channels="keep": guide x absmean of every channel, [percents, rows, pixels]; tainted rows are
// NaN.
template <typename A, int kLanes>
struct EachChannel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = 4;

  Summaries<A> from;
  int64_t rows;
  uint32_t blocks_per_row;
  Global<A> out;

  int shared_bytes() const { return 0; }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const int64_t row = block.index() / blocks_per_row;
    block.last_phase([&](int t) {
      const int64_t pixel =
          (static_cast<int64_t>(block.index() % blocks_per_row) * kThreads + t) * kLanes;
      if (pixel >= from.pixels) return;
      const int64_t at = row * from.pixels + pixel;
      const auto sums = load_lanes<true, kLanes>(from.abssum + at);
      Lanes<A, kLanes> squares{};
      if (from.m2) squares = load_lanes<true, kLanes>(from.m2 + at);
      Lanes<A, kLanes> variances, absmeans;
      GAG_UNROLL
      for (int l = 0; l < kLanes; ++l) {
        absmeans.lane[l] = sums.lane[l] / from.samples;
        variances.lane[l] = squares.lane[l] / from.freedom;
      }
      for (int64_t p = 0; p < from.percents; ++p) {
        const A threshold = from.template threshold<false>(block, row, p);
        const bool tainted = from.template tainted<false>(block, row, threshold);
        Lanes<A, kLanes> values;
        GAG_UNROLL
        for (int l = 0; l < kLanes; ++l) {
          values.lane[l] = tainted ? not_a_number<A>()
                                   : guided_absgrad(variances.lane[l], absmeans.lane[l], threshold);
        }
        store_lanes<false>(out + p * rows * from.pixels + at, values);
      }
    });
  }
};

// Min-max of each map, in place: (x - low) / (high - low), zeros where all values are equal.
// Tainted maps stay NaN; a channel sum that overflowed has no min-max either.
template <typename A, int kLanes, bool kFresh = false>
struct Normalise {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = 4;

  Global<A> maps;
  Global<const Key<A>> ranges;
  int64_t pixels;
  uint32_t blocks_per_map;

  int shared_bytes() const { return 0; }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const int64_t map = block.index() / blocks_per_map;
    block.last_phase([&](int t) {
      const int64_t pixel =
          (static_cast<int64_t>(block.index() % blocks_per_map) * kThreads + t) * kLanes;
      const Key<A> inverted_low =
          read_one<kFresh>(block, ranges + (map * kRangeEnds + kInvertedLow));
      if (pixel >= pixels || inverted_low == 0) return;
      const A low = from_key<A>(static_cast<Key<A>>(~inverted_low));
      const A high = from_key<A>(read_one<kFresh>(block, ranges + (map * kRangeEnds + kHigh)));
      const auto at = maps + map * pixels + pixel;
      auto values = read_lanes<kFresh, kLanes>(block, at);
      GAG_UNROLL
      for (int l = 0; l < kLanes; ++l) {
        values.lane[l] = not_finite(high) ? not_a_number<A>()
                         : high == low    ? A(0)
                                          : (values.lane[l] - low) / (high - low);
      }
      store_lanes<false>(at, values);
    });
  }
};

}  // namespace gag_fast::cuda
