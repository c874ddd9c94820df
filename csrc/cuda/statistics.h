// Kernels that fold gradients into running statistics: one read of the stack, bound by memory.
// Torch-free; see block.h for how they are written and csrc/README.md for the bytes they move.
#pragma once

#include <cstdint>
#include <utility>

#include "cuda/block.h"
#include "cuda/stack.h"
#include "math/percentile.h"
#include "math/taint.h"
#include "math/welford.h"

namespace gag_fast::cuda {

// A row is one channel of one image. Order keys are cut into a first digit of 11 bits (8 bits of
// exponent and 3 of mantissa in float32), counted while the statistics are made, and the rest.
inline constexpr int kFirstDigitBits = 11;
inline constexpr int kFirstBins = 1 << kFirstDigitBits;

template <typename A>
GAG_BODY uint32_t first_digit(Key<A> key) {
  return static_cast<uint32_t>(key >> (KeyOf<A>::bits - kFirstDigitBits));
}

// Per row: counts of first digits of m2 [rows, kFirstBins] (null: do not count) and Taint bits.
// Zero at launch. m2 orders as the variance does: dividing by n - 1 keeps <=.
struct RowSummary {
  Global<uint32_t> histogram;
  Global<uint32_t> taint;
};

template <typename T>
GAG_BODY bool not_finite(T x) {
  return !(x - x == T(0));
}

// Shared memory of a block that summarises `rows` rows, and its three phases.
template <typename Block>
class SharedSummary {
 public:
  static constexpr int bytes(int rows, bool counting) {
    return rows * 4 * (counting ? kFirstBins + 1 : 1);
  }

  GAG_BODY SharedSummary(Block& block, int offset, int rows, RowSummary to)
      : block_(block),
        rows_(rows),
        to_(to),
        taint_(block.template shared<uint32_t>(offset)),
        bins_(block.template shared<uint32_t>(offset + rows * 4)) {}

  GAG_BODY void clear(int t, int threads) {
    for (int i = t; i < rows_; i += threads) taint_[i] = 0;
    if (!to_.histogram) return;
    for (int i = t; i < rows_ * kFirstBins; i += threads) bins_[i] = 0;
  }

  template <typename A>
  GAG_BODY void add(int row, A m2, A abssum) {
    const uint32_t taint =
        (not_finite(abssum) ? kAbsmeanNotFinite : 0u) | (not_finite(m2) ? kVarianceNotFinite : 0u);
    if (taint) block_.atomic_or(taint_ + row, taint);
    if (to_.histogram) {
      block_.atomic_add(bins_ + (row * kFirstBins + first_digit<A>(order_key(m2))), 1u);
    }
  }

  GAG_BODY void flush(int t, int threads, int64_t first_row) {
    for (int i = t; i < rows_; i += threads) {
      const uint32_t taint = taint_[i];
      if (taint) block_.atomic_or(to_.taint + first_row + i, taint);
    }
    if (!to_.histogram) return;
    const Global<uint32_t> histogram = to_.histogram + first_row * kFirstBins;
    for (int i = t; i < rows_ * kFirstBins; i += threads) {
      const uint32_t count = bins_[i];
      if (count) block_.atomic_add(histogram + i, count);
    }
  }

 private:
  Block& block_;
  int rows_;
  RowSummary to_;
  decltype(std::declval<Block&>().template shared<uint32_t>(0)) taint_, bins_;
};

// 1 / (samples so far) for each sample of the stack. The first kInverses are in shared memory, so
// that no thread divides in the hot loop.
inline constexpr int kInverses = 512;

template <typename A, typename Table>
struct Inverses {
  Table table;
  int64_t count;  // samples that the state already holds

  GAG_BODY A compute(int sample) const { return A(1) / static_cast<A>(count + sample + 1); }
  GAG_BODY void fill(int t, int threads, int samples) {
    for (int i = t; i < kInverses && i < samples; i += threads) table[i] = compute(i);
  }
};

// kMany loads are issued before the first is used: 256 threads x 4 x 16 bytes, several blocks deep,
// hide the memory's delay.
inline constexpr int kInFlight = 4;

// Loads sample `first` and up to kMany - 1 after it, as far as they exist, and hands each one to
// body(how many after first, lanes).
template <typename S, int kLanes, int kMany, typename Body>
GAG_BODY void each_of_few(const S* from, int64_t stride, int count, Body body) {
  Lanes<S, kLanes> g[kMany];
  GAG_UNROLL
  for (int u = 0; u < kMany; ++u) {
    if (u < count) g[u] = load_lanes<true, kLanes>(from + u * stride);
  }
  GAG_UNROLL
  for (int u = 0; u < kMany; ++u) {
    if (u < count) body(u, g[u]);
  }
}

// Starts the moments of kLanes neighbours with the first samples; returns how many it took.
template <typename S, int kLanes, int kMany, typename Table>
GAG_BODY int start_samples(Moments<Accumulator<S>> (&state)[kLanes], const S* stack, int64_t stride,
                           int samples, const Inverses<Accumulator<S>, Table>& inverses) {
  each_of_few<S, kLanes, kMany>(stack, stride, samples, [&](int u, const Lanes<S, kLanes>& g) {
    GAG_UNROLL
    for (int l = 0; l < kLanes; ++l) {
      if (u == 0) {
        first_sample(state[l], widen_lane(g, l));
      } else {
        next_sample(state[l], widen_lane(g, l), static_cast<Accumulator<S>>(inverses.table[u]));
      }
    }
  });
  return samples < kMany ? samples : kMany;
}

// Folds samples [first, last).
template <typename S, int kLanes, int kMany, typename Table>
GAG_BODY void fold_samples(Moments<Accumulator<S>> (&state)[kLanes], const S* stack, int64_t stride,
                           int first, int last, const Inverses<Accumulator<S>, Table>& inverses) {
  using A = Accumulator<S>;
  const auto fold = [&](const Lanes<S, kLanes>& g, A inverse) {
    GAG_UNROLL
    for (int l = 0; l < kLanes; ++l) next_sample(state[l], widen_lane(g, l), inverse);
  };
  const int tabled = last < kInverses ? last : kInverses;
  const S* from = stack + first * stride;
  int i = first;
  for (; i + kMany <= tabled; i += kMany, from += kMany * stride) {
    Lanes<S, kLanes> g[kMany];
    GAG_UNROLL
    for (int u = 0; u < kMany; ++u) g[u] = load_lanes<true, kLanes>(from + u * stride);
    GAG_UNROLL
    for (int u = 0; u < kMany; ++u) fold(g[u], inverses.table[i + u]);
  }
  each_of_few<S, kLanes, kMany - 1>(
      from, stride, tabled - i,
      [&](int u, const Lanes<S, kLanes>& g) { fold(g, inverses.table[i + u]); });
  // Rare: more samples than the table has. One at a time, so that it costs few registers.
  GAG_UNROLL_NEVER
  for (i = first > tabled ? first : tabled; i < last; ++i) {
    fold(load_lanes<true, kLanes>(stack + i * stride), inverses.compute(i));
  }
}

// Folds samples [first, samples) into a state that holds `count` + first, and calls settle_sums(i)
// before each sample i at which the sums settle (math/welford.h).
template <typename S, int kLanes, int kMany, typename Table, typename Settle>
GAG_BODY void fold_runs(Moments<Accumulator<S>> (&state)[kLanes], const S* stack, int64_t stride,
                        int first, int samples, const Inverses<Accumulator<S>, Table>& inverses,
                        Settle settle_sums) {
  const int offset = static_cast<int>(inverses.count % kRun);
  int until = kRun - offset;  // the sample before which the sums settle next
  if (first == 0 && settles(inverses.count)) settle_sums(0);
  GAG_UNROLL_NEVER
  for (int i = first; i < samples; i = until, until += kRun) {
    if (i > first) settle_sums(i);
    fold_samples<S, kLanes, kMany>(state, stack, stride, i, until < samples ? until : samples,
                                   inverses);
  }
}

// Which elements a block and its threads own. A group is what one block stays within: a row, or for
// kInterleaved an image; a tile is one element (kLanes of them) per thread.
struct Tiles {
  int64_t elements;  // per group
  uint32_t blocks;   // per group
  int rounds;        // tiles per block

  // Calls body(first element) for each of the block's tiles in which thread t has work.
  template <int kThreads, int kLanes, typename Body>
  GAG_BODY void each(uint32_t block_in_group, int t, Body body) const {
    const int64_t tile = static_cast<int64_t>(kThreads) * kLanes;
    int64_t element = block_in_group * (tile * rounds) + static_cast<int64_t>(t) * kLanes;
    for (int r = 0; r < rounds && element < elements; ++r, element += tile) body(element);
  }
};

// Address in the stack of the first sample of an element of a group.
template <Layout kLayout, typename S>
GAG_BODY const S* first_sample_of(const Stack<S>& s, int64_t group, int64_t element) {
  if constexpr (kLayout == Layout::kInterleaved) {
    return s.data + group * s.image_stride + element;
  } else {
    const int64_t image = group / s.channels, channel = group % s.channels;
    const S* plane = s.data + image * s.image_stride + channel * s.channel_stride;
    if constexpr (kLayout == Layout::kPlanes) return plane + element;
    return plane + element / s.width * s.row_stride + element % s.width * s.column_stride;
  }
}

// Calls body(lane, row within the group, index in [B,C,H,W]) for the lanes of an element.
template <Layout kLayout, int kLanes, typename Body>
GAG_BODY void each_lane(int64_t channels, int64_t pixels, int64_t group, int64_t element,
                        Body body) {
  if constexpr (kLayout == Layout::kInterleaved) {
    int64_t pixel = element / channels;
    int channel = static_cast<int>(element - pixel * channels);
    GAG_UNROLL
    for (int l = 0; l < kLanes; ++l) {
      body(l, channel, (group * channels + channel) * pixels + pixel);
      if (++channel == channels) channel = 0, ++pixel;
    }
  } else {
    GAG_UNROLL
    for (int l = 0; l < kLanes; ++l) body(l, 0, group * pixels + element + l);
  }
}

// Stores one number per lane to [B,C,H,W]: 16 bytes at a time where the lanes are neighbours there.
template <Layout kLayout, bool kStream = false, int kLanes, typename A>
GAG_BODY void scatter(Global<A> to, int64_t channels, int64_t pixels, int64_t group,
                      int64_t element, const Lanes<A, kLanes>& values) {
  if constexpr (kLayout == Layout::kPlanes) {
    store_lanes<kStream>(to + group * pixels + element, values);
  } else {
    each_lane<kLayout, kLanes>(channels, pixels, group, element,
                               [&](int l, int, int64_t at) { to[at] = values.lane[l]; });
  }
}

template <Layout kLayout, int kLanes, typename P>
GAG_BODY Lanes<Pointed<P>, kLanes> gather(P from, int64_t channels, int64_t pixels, int64_t group,
                                          int64_t element) {
  if constexpr (kLayout == Layout::kPlanes) {
    return load_lanes<false, kLanes>(from + group * pixels + element);
  } else {
    Lanes<Pointed<P>, kLanes> values;
    each_lane<kLayout, kLanes>(channels, pixels, group, element,
                               [&](int l, int, int64_t at) { values.lane[l] = from[at]; });
    return values;
  }
}

// Sum of squared deviations and sum of magnitudes of every pixel, [B,C,H,W] each, with the rows'
// summary. m2 may be null: then only the absmean is wanted (every p is 0).
template <typename S, Layout kLayout>
struct Statistics {
  using A = Accumulator<S>;
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = sizeof(S) == 4 ? 3 : 2;
  static constexpr int kLanes = kLanesOf<S, kLayout>;

  Stack<S> stack;
  Tiles tiles;
  Global<A> m2;
  Global<A> abssum;
  RowSummary rows;

  static constexpr int kMostBytes =
      kInverses * static_cast<int>(sizeof(A)) +
      (kLayout == Layout::kInterleaved ? kMostInterleaved : 1) * 4 * (kFirstBins + 1);
  static_assert(kMostBytes <= kMostShared);

  int rows_per_block() const {
    return kLayout == Layout::kInterleaved ? static_cast<int>(stack.channels) : 1;
  }
  int shared_bytes() const {
    return kInverses * static_cast<int>(sizeof(A)) +
           rows_per_block() * 4 * (rows.histogram ? kFirstBins + 1 : 1);
  }

  template <typename Block, int kMany = kInFlight>
  GAG_BODY void operator()(Block& block) const {
    const int channels = static_cast<int>(stack.channels);
    const int samples = static_cast<int>(stack.samples);
    const int own_rows = kLayout == Layout::kInterleaved ? channels : 1;
    const int64_t pixels = stack.height * stack.width;
    const uint32_t group = block.index() / tiles.blocks;
    auto table = block.template shared<A>(0);
    Inverses<A, decltype(table)> inverses{table, 0};
    SharedSummary<Block> summary(block, kInverses * static_cast<int>(sizeof(A)), own_rows, rows);

    block.phase([&](int t) {
      inverses.fill(t, kThreads, samples);
      summary.clear(t, kThreads);
    });
    block.phase([&](int t) {
      tiles.template each<kThreads, kLanes>(block.index() % tiles.blocks, t, [&](int64_t element) {
        const S* from = first_sample_of<kLayout>(stack, group, element);
        Moments<A> state[kLanes];
        const int taken =
            start_samples<S, kLanes, kMany>(state, from, stack.sample_stride, samples, inverses);
        // The settled sums wait where the results will be: a register each would cost occupancy.
        const auto settled_part = [&](Global<A> map, bool settled) {
          if (!settled || !map) return Lanes<A, kLanes>{};
          return gather<kLayout, kLanes>(map, channels, pixels, group, element);
        };
        const auto settle_into = [&](Global<A> map, A Moments<A>::* sum, bool again) {
          if (!map) return;
          Lanes<A, kLanes> values = settled_part(map, again);
          GAG_UNROLL
          for (int l = 0; l < kLanes; ++l) settle(values.lane[l], state[l].*sum);
          scatter<kLayout>(map, channels, pixels, group, element, values);
        };
        fold_runs<S, kLanes, kMany>(state, from, stack.sample_stride, taken, samples, inverses,
                                    [&](int i) {
                                      settle_into(m2, &Moments<A>::m2, i > kRun);
                                      settle_into(abssum, &Moments<A>::abssum, i > kRun);
                                    });
        // A sum that nothing has settled yet is +0 + itself.
        Lanes<A, kLanes> squares = settled_part(m2, samples > kRun);
        Lanes<A, kLanes> magnitudes = settled_part(abssum, samples > kRun);
        GAG_UNROLL
        for (int l = 0; l < kLanes; ++l) {
          squares.lane[l] = squares.lane[l] + state[l].m2;
          magnitudes.lane[l] = magnitudes.lane[l] + state[l].abssum;
        }
        if (m2) scatter<kLayout>(m2, channels, pixels, group, element, squares);
        // The selection reads m2 next, and finds it in the L2 cache if the sums leave it room.
        scatter<kLayout, true>(abssum, channels, pixels, group, element, magnitudes);
        each_lane<kLayout, kLanes>(channels, pixels, group, element, [&](int l, int row, int64_t) {
          summary.template add<A>(row, squares.lane[l], magnitudes.lane[l]);
        });
      });
    });
    block.last_phase(
        [&](int t) { summary.flush(t, kThreads, static_cast<int64_t>(group) * own_rows); });
  }
};

// Running statistics [B,C,H,W], contiguous (math/welford.h).
template <typename A>
struct FoldedState {
  Global<A> shift;
  Global<A> mean;
  Global<A> m2;
  Global<A> abssum;
  Global<A> settled_m2;  // these two: null where there will be no more than kRun samples
  Global<A> settled_abssum;

  // All in reach of 16-byte loads and stores.
  bool aligned() const {
    for (const Global<A>& p : {shift, mean, m2, abssum, settled_m2, settled_abssum}) {
      if (!on_16_bytes(p)) return false;
    }
    return true;
  }
};

// gradient_stats_: folds the stack's samples into a state that holds `count` others.
template <typename S, Layout kLayout>
struct Fold {
  using A = Accumulator<S>;
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = sizeof(S) == 4 ? 3 : 2;
  static constexpr int kLanes = kLanesOf<S, kLayout>;

  Stack<S> stack;
  Tiles tiles;
  int64_t count;
  FoldedState<A> to;

  int shared_bytes() const { return kInverses * static_cast<int>(sizeof(A)); }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const int channels = static_cast<int>(stack.channels);
    const int samples = static_cast<int>(stack.samples);
    const int64_t pixels = stack.height * stack.width;
    const uint32_t group = block.index() / tiles.blocks;
    auto table = block.template shared<A>(0);
    Inverses<A, decltype(table)> inverses{table, count};

    block.phase([&](int t) { inverses.fill(t, kThreads, samples); });
    block.last_phase([&](int t) {
      tiles.template each<kThreads, kLanes>(block.index() % tiles.blocks, t, [&](int64_t element) {
        const S* from = first_sample_of<kLayout>(stack, group, element);
        Moments<A> state[kLanes];
        Lanes<A, kLanes> shifts, means, squares, magnitudes;
        const auto read = [&](Global<A> map) {
          return gather<kLayout, kLanes>(map, channels, pixels, group, element);
        };
        const auto write = [&](Global<A> map, const Lanes<A, kLanes>& values) {
          scatter<kLayout>(map, channels, pixels, group, element, values);
        };
        const auto settle_into = [&](Global<A> map, A Moments<A>::* sum) {
          Lanes<A, kLanes> values = read(map);
          GAG_UNROLL
          for (int l = 0; l < kLanes; ++l) settle(values.lane[l], state[l].*sum);
          write(map, values);
        };
        int taken = 0;
        if (count == 0) {
          taken = start_samples<S, kLanes, kInFlight>(state, from, stack.sample_stride, samples,
                                                      inverses);
          GAG_UNROLL
          for (int l = 0; l < kLanes; ++l) shifts.lane[l] = state[l].shift;
          write(to.shift, shifts);
        } else {
          shifts = read(to.shift);
          means = read(to.mean);
          squares = read(to.m2);
          magnitudes = read(to.abssum);
          GAG_UNROLL
          for (int l = 0; l < kLanes; ++l) {
            state[l] = {shifts.lane[l], means.lane[l], squares.lane[l], magnitudes.lane[l]};
          }
        }
        fold_runs<S, kLanes, kInFlight>(state, from, stack.sample_stride, taken, samples, inverses,
                                        [&](int) {
                                          settle_into(to.settled_m2, &Moments<A>::m2);
                                          settle_into(to.settled_abssum, &Moments<A>::abssum);
                                        });
        GAG_UNROLL
        for (int l = 0; l < kLanes; ++l) {
          means.lane[l] = state[l].mean;
          squares.lane[l] = state[l].m2;
          magnitudes.lane[l] = state[l].abssum;
        }
        write(to.mean, means);
        write(to.m2, squares);
        write(to.abssum, magnitudes);
      });
    });
  }
};

// The rows' summary of statistics that are already there: guided_absgrad_from_stats.
template <typename A>
struct Summarise {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerMultiprocessor = 4;

  Global<const A> m2;
  Global<const A> abssum;
  Tiles tiles;
  RowSummary rows;

  int shared_bytes() const { return 4 * (rows.histogram ? kFirstBins + 1 : 1); }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const uint32_t row = block.index() / tiles.blocks;
    SharedSummary<Block> summary(block, 0, 1, rows);
    block.phase([&](int t) { summary.clear(t, kThreads); });
    block.phase([&](int t) {
      tiles.template each<kThreads, 1>(block.index() % tiles.blocks, t, [&](int64_t element) {
        const int64_t at = row * tiles.elements + element;
        summary.template add<A>(0, m2[at], abssum[at]);
      });
    });
    block.last_phase([&](int t) { summary.flush(t, kThreads, row); });
  }
};

}  // namespace gag_fast::cuda
