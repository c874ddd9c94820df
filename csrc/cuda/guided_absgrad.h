// Which kernels an aggregation operator launches, with what grids and in what memory. Torch-free:
// guided_absgrad.cu runs it on a GPU, emulation/harness.cpp on the CPU.
//
//   memset      counters (a few KB per row)
//   Statistics  stack -> m2, abssum of |g|, first-digit counts        or Summarise, from statistics
//   SecondDigits  m2 -> counts of second digits, if there would be many candidates
//   Selection   m2 -> one threshold per row and percent            (once per 64 percents)
//   ChannelSum  m2, abssum -> maps, their ranges                      or EachChannel:
//   channels="keep" Normalise   maps in place
//
// p = 0 alone skips Selection, m2 and the counts. A `Device` offers launch(kernel, blocks),
// zero(pointer, bytes) and multiprocessors(), all on one stream.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/saliency.h"
#include "cuda/selection.h"
#include "cuda/stack.h"
#include "cuda/statistics.h"
#include "math/percentile.h"

namespace gag_fast::cuda {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What is asked of [images, channels, pixels] statistics over `count` samples.
struct Request {
  int64_t images, channels, pixels, count;
  std::vector<double> p;
  bool normalize, keep_channels;

  int64_t rows() const { return images * channels; }
  int64_t percents() const { return static_cast<int64_t>(p.size()); }
  bool guides() const {
    return std::any_of(p.begin(), p.end(), [](double value) { return value != 0.0; });
  }
  bool long_rows() const { return pixels > kShortRow; }
  bool ranges() const { return normalize && !keep_channels; }

  // The percents of one launch, `first` and up to kMostPercents - 1 after it.
  template <typename A>
  Percents percents_from(int64_t first) const {
    Percents some{};
    const int64_t last = std::min<int64_t>(first + kMostPercents, percents());
    for (int64_t i = first; i < last; ++i) some.add<A>(p[i], pixels);
    return some;
  }
};

// Whether a launch that counts the second digits costs less than it saves: without it one block
// walks a row's candidates, about a twelfth of the row for each rank, and compares each with every
// rank's prefix.
// Many rows keep the device busy that way, too, and few candidates are soon done (model.py).
template <typename A>
bool counts_second_digits(const Request& request) {
  constexpr int64_t kFewRows = 64, kFewCompares = 1 << 17;
  if (!request.guides() || !request.long_rows() || request.percents() > kMostPercents) return false;
  const int64_t ranks = request.percents_from<A>(0).ranks;
  const int64_t keys = request.pixels * std::min<int64_t>(ranks, 12) / 12;
  return request.rows() <= kFewRows && keys * ranks >= kFewCompares;
}

// The kernels number a row's pixels, its candidates among them, and an image's channels in 32 bits.
inline void check_sizes(int64_t pixels, int64_t channels, int64_t samples) {
  if (pixels > INT32_MAX || channels > INT32_MAX || samples > INT32_MAX) {
    throw std::runtime_error("at most 2^31 - 1 pixels, channels and samples on CUDA, got " +
                             std::to_string(pixels) + ", " + std::to_string(channels) + " and " +
                             std::to_string(samples));
  }
}

// A part of the workspace: a byte offset (the workspace's start is a multiple of 256, as torch's
// allocator gives) and a length; 0 where it is not needed.
struct Part {
  int64_t offset, bytes;
};

struct Workspace {
  Part histogram, second, taint, found, arrived, range;
  int64_t zeroed;  // the parts above lie before this offset and must be 0 at the start
  Part thresholds, candidates, m2, abssum;
  int64_t bytes;
};

// own_statistics: m2 and abssum are to be computed, not given.
template <typename A>
Workspace plan_workspace(const Request& request, bool own_statistics) {
  check_sizes(request.pixels, request.channels, request.count);
  const int64_t rows = request.rows();
  const int64_t launches = request.guides() ? divide_up(request.percents(), kMostPercents) : 0;
  const bool select_long = request.guides() && request.long_rows();
  int64_t at = 0;
  const auto take = [&](bool wanted, int64_t bytes) {
    const Part part{at, wanted ? bytes : 0};
    at += divide_up(part.bytes, 256) * 256;
    return part;
  };
  Workspace w{};
  w.histogram = take(select_long, rows * kFirstBins * 4);
  w.second = take(counts_second_digits<A>(request),
                  rows * request.percents_from<A>(0).ranks * Digits<A>::kBins * 4);
  w.taint = take(true, rows * 4);
  w.found = take(select_long, launches * rows * 4);
  w.arrived = take(select_long, launches * rows * 4);
  w.range =
      take(request.ranges(), request.percents() * request.images * kRangeEnds * sizeof(Key<A>));
  w.zeroed = at;
  w.thresholds = take(request.guides(), rows * request.percents() * sizeof(A));
  w.candidates = take(select_long, rows * request.pixels * sizeof(A));
  w.m2 = take(own_statistics && request.guides(), rows * request.pixels * sizeof(A));
  w.abssum = take(own_statistics, rows * request.pixels * sizeof(A));
  w.bytes = at;
  return w;
}

// The memory of a workspace, and a part of it.
#if defined(__CUDACC__)
using Memory = unsigned char*;

template <typename T>
Global<T> part_of(Memory workspace, const Part& part) {
  return reinterpret_cast<T*>(workspace + part.offset);
}
#else
using Memory = emulation::Region*;

template <typename T>
Global<T> part_of(Memory workspace, const Part& part) {
  return emulation::part_of<T>(workspace, part.offset, part.bytes);
}
#endif

template <typename Device, typename Kernel>
void launch(Device& device, const Kernel& kernel, int64_t blocks) {
  if (blocks > INT32_MAX) {
    throw std::runtime_error("the tensor is too large for one launch; split the batch");
  }
  device.launch(kernel, static_cast<uint32_t>(blocks));
}

// Tiles for `groups` groups of `elements`. A block takes several tiles when there are many, to
// spread what it pays once (clearing and flushing counts); never so many that the device's last
// wave of blocks is a long one.
template <typename Device>
Tiles make_tiles(Device& device, int64_t groups, int64_t elements, int64_t per_tile) {
  constexpr int64_t kMostRounds = 8, kBlocksPerMultiprocessor = 16;
  const int64_t tiles = divide_up(elements, per_tile);
  const int64_t enough = kBlocksPerMultiprocessor * device.multiprocessors();
  const int64_t rounds =
      std::clamp<int64_t>(groups * tiles / enough, 1, std::min<int64_t>(kMostRounds, tiles));
  return {elements, static_cast<uint32_t>(divide_up(tiles, rounds)), static_cast<int>(rounds)};
}

// ---- the stages --------------------------------------------------------------------------------

// Launches a kernel that reads the stack; `rest` are its members after stack and tiles.
template <template <typename, Layout> class Kernel, Layout kLayout, typename S, typename Device,
          typename... Rest>
void launch_over(Device& device, const Stack<S>& stack, Rest... rest) {
  using K = Kernel<S, kLayout>;
  const bool by_image = kLayout == Layout::kInterleaved;
  const int64_t groups = stack.images * (by_image ? 1 : stack.channels);
  const int64_t elements = stack.height * stack.width * (by_image ? stack.channels : 1);
  const int64_t per_tile = static_cast<int64_t>(K::kThreads) * K::kLanes;
  const Tiles tiles = make_tiles(device, groups, elements, per_tile);
  launch(device, K{stack, tiles, rest...}, groups * tiles.blocks);
}

template <template <typename, Layout> class Kernel, typename S, typename Device, typename... Rest>
void launch_over(Device& device, Layout layout, const Stack<S>& stack, Rest... rest) {
  switch (layout) {
    case Layout::kPlanes:
      return launch_over<Kernel, Layout::kPlanes>(device, stack, rest...);
    case Layout::kInterleaved:
      return launch_over<Kernel, Layout::kInterleaved>(device, stack, rest...);
    case Layout::kScattered:
      return launch_over<Kernel, Layout::kScattered>(device, stack, rest...);
  }
}

// Blocks per row: several for each multiprocessor, each with a good piece to read.
template <typename Device>
int64_t parts_of_row(Device& device, int64_t rows, int64_t pixels) {
  constexpr int64_t kBlocksPerMultiprocessor = 4, kSmallestPart = 8192;
  return std::clamp<int64_t>(kBlocksPerMultiprocessor * device.multiprocessors() / rows, 1,
                             divide_up(pixels, kSmallestPart));
}

template <typename A, typename Device>
void launch_selection(Device& device, const Request& request, const Workspace& w, Memory workspace,
                      Global<const A> m2) {
  const int64_t rows = request.rows();
  const bool long_rows = request.long_rows();
  const int64_t parts = long_rows ? parts_of_row(device, rows, request.pixels) : 1;
  Selection<A> kernel{};
  kernel.m2 = m2;
  kernel.histogram = long_rows ? part_of<uint32_t>(workspace, w.histogram) : nullptr;
  kernel.candidates = part_of<Key<A>>(workspace, w.candidates);
  kernel.threshold_stride = request.percents();
  kernel.pixels = static_cast<uint32_t>(request.pixels);
  kernel.parts = static_cast<uint32_t>(parts);
  kernel.freedom = static_cast<A>(request.count - 1);
  for (int64_t first = 0; first < request.percents(); first += kMostPercents) {
    const int64_t counters = first / kMostPercents * rows;
    kernel.found = part_of<uint32_t>(workspace, w.found) + counters;
    kernel.arrived = part_of<uint32_t>(workspace, w.arrived) + counters;
    kernel.thresholds = part_of<A>(workspace, w.thresholds) + first;
    kernel.percents = request.percents_from<A>(first);
    if (w.second.bytes > 0) {
      const Global<uint32_t> second = part_of<uint32_t>(workspace, w.second);
      kernel.second = second;
      launch(device,
             SecondDigits<A>{m2, kernel.histogram, second, kernel.percents, kernel.pixels,
                             kernel.parts},
             rows * parts);
    }
    launch(device, kernel, rows * parts);
  }
}

template <int kLanes, typename A, typename Device>
void launch_maps(Device& device, const Request& request, const Summaries<A>& from,
                 Global<Key<A>> ranges, Global<A> out) {
  const int64_t per_block = 256 * kLanes;
  const uint32_t blocks = static_cast<uint32_t>(divide_up(request.pixels, per_block));
  if (request.keep_channels) {
    using Kernel = EachChannel<A, kLanes>;
    static_assert(Kernel::kThreads == 256);
    launch(device, Kernel{from, request.rows(), blocks, out}, request.rows() * blocks);
    return;
  }
  if (request.percents() == 1) {
    launch(device, ChannelSum<A, kLanes, 1>{from, request.images, blocks, out, ranges},
           request.images * blocks);
  } else {
    launch(device, ChannelSum<A, kLanes, 8>{from, request.images, blocks, out, ranges},
           request.images * blocks);
  }
  if (ranges) {
    launch(device, Normalise<A, kLanes>{out, ranges, request.pixels, blocks},
           request.percents() * request.images * blocks);
  }
}

// Everything after the statistics and their summary.
template <typename A, typename Device>
void make_maps(Device& device, const Request& request, const Workspace& w, Memory workspace,
               Global<const A> m2, Global<const A> abssum, Global<A> out) {
  if (request.guides()) launch_selection<A>(device, request, w, workspace, m2);
  Summaries<A> from{};
  from.m2 = request.guides() ? m2 : nullptr;
  from.abssum = abssum;
  from.thresholds = part_of<A>(workspace, w.thresholds);
  from.taint = part_of<uint32_t>(workspace, w.taint);
  from.percents = request.percents();
  from.channels = request.channels;
  from.pixels = request.pixels;
  from.samples = static_cast<A>(request.count);
  from.freedom = static_cast<A>(request.count - 1);
  Global<Key<A>> ranges = request.ranges() ? part_of<Key<A>>(workspace, w.range) : nullptr;
  if (request.pixels % kWide<A> == 0 && on_16_bytes(m2) && on_16_bytes(abssum) &&
      on_16_bytes(out)) {
    launch_maps<kWide<A>>(device, request, from, ranges, out);
  } else {
    launch_maps<1>(device, request, from, ranges, out);
  }
}

template <typename A>
RowSummary row_summary(const Request& request, const Workspace& w, Memory workspace) {
  const bool counts = request.guides() && request.long_rows();
  return {counts ? part_of<uint32_t>(workspace, w.histogram) : nullptr,
          part_of<uint32_t>(workspace, w.taint)};
}

// ---- the operators -----------------------------------------------------------------------------

// guided_absgrad. `out` is [k,B,HW] or, keep_channels, [k,B,C,HW].
template <typename S, typename Device>
void guided_absgrad_on(Device& device, const Stack<S>& stack, const Request& request,
                       const Workspace& w, Memory workspace, Global<Accumulator<S>> out) {
  using A = Accumulator<S>;
  const Global<A> m2 = request.guides() ? part_of<A>(workspace, w.m2) : nullptr;
  const Global<A> abssum = part_of<A>(workspace, w.abssum);
  const RowSummary rows = row_summary<A>(request, w, workspace);
  device.zero(workspace, w.zeroed);
  launch_over<Statistics>(device, layout_of(stack), stack, m2, abssum, rows);
  make_maps<A>(device, request, w, workspace, m2, abssum, out);
}

// guided_absgrad_from_stats: m2 and abssum [B,C,HW], contiguous.
template <typename A, typename Device>
void guided_absgrad_from_stats_on(Device& device, Global<const A> m2, Global<const A> abssum,
                                  const Request& request, const Workspace& w, Memory workspace,
                                  Global<A> out) {
  const Tiles tiles = make_tiles(device, request.rows(), request.pixels, Summarise<A>::kThreads);
  device.zero(workspace, w.zeroed);
  launch(device, Summarise<A>{m2, abssum, tiles, row_summary<A>(request, w, workspace)},
         request.rows() * tiles.blocks);
  make_maps<A>(device, request, w, workspace, m2, abssum, out);
}

// gradient_stats_: the state arrays are [B,C,HW], contiguous.
template <typename S, typename Device>
void gradient_stats_on(Device& device, const Stack<S>& stack, int64_t count,
                       const FoldedState<Accumulator<S>>& state) {
  check_sizes(stack.height * stack.width, stack.channels, stack.samples);
  // The state is contiguous; its 16-byte stores need its addresses to be multiples of 16.
  Layout layout = layout_of(stack);
  if (layout == Layout::kPlanes && !state.aligned()) layout = Layout::kScattered;
  launch_over<Fold>(device, layout, stack, count, state);
}

}  // namespace gag_fast::cuda
