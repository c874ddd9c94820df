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
// p = 0 alone skips Selection, m2 and the counts. Many images of one percent are made by one launch
// instead: memset, Pipeline. A `Device` offers launch(kernel, blocks), zero(pointer, bytes),
// multiprocessors() and pipelining(), all on one stream.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/pipeline.h"
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

// Whether one kernel makes the maps of many images (pipeline.h).
enum class Pipelining : int { kWhereItPays, kNever, kAlways };

// The images whose statistics that kernel holds at a time, and how far its stages lie apart; 0
// slots: the kernels are launched one after another.
struct Ring {
  int64_t slots, lag;
};

// A part of the workspace: a byte offset (the workspace's start is a multiple of 256, as torch's
// allocator gives) and a length; 0 where it is not needed.
struct Part {
  int64_t offset, bytes;
};

struct Workspace {
  Ring ring;
  Part histogram, second, taint, found, arrived, next, done, range;
  int64_t zeroed;  // the parts above lie before this offset and must be 0 at the start
  Part thresholds, candidates, m2, abssum;
  int64_t bytes;
};

// own_statistics: m2 and abssum are to be computed, not given.
template <typename A>
Workspace plan_workspace(const Request& request, bool own_statistics, const Ring& ring = {}) {
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
  const int64_t held = ring.slots > 0 ? ring.slots * request.channels : rows;
  Workspace w{};
  w.ring = ring;
  w.histogram = take(select_long, rows * kFirstBins * 4);
  w.second = take(ring.slots == 0 && counts_second_digits<A>(request),
                  rows * request.percents_from<A>(0).ranks * SecondDigits<A>::D::kBins * 4);
  w.taint = take(true, rows * 4);
  w.found = take(select_long, launches * rows * 4);
  w.arrived = take(select_long, launches * rows * 4);
  w.next = take(ring.slots > 0, 4);
  w.done = take(ring.slots > 0, request.images * kStages * 4);
  w.range =
      take(request.ranges(), request.percents() * request.images * kRangeEnds * sizeof(Key<A>));
  w.zeroed = at;
  w.thresholds = take(request.guides(), rows * request.percents() * sizeof(A));
  w.candidates = take(select_long, held * request.pixels * sizeof(A));
  w.m2 = take(own_statistics && request.guides(), held * request.pixels * sizeof(A));
  w.abssum = take(own_statistics, held * request.pixels * sizeof(A));
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

// A Selection for the first percents.
template <typename Kernel, typename A>
Kernel selection_of(const Request& request, const Workspace& w, Memory workspace,
                    Global<const A> m2, int64_t parts) {
  Kernel kernel{};
  kernel.m2 = m2;
  kernel.histogram = request.long_rows() ? part_of<uint32_t>(workspace, w.histogram) : nullptr;
  kernel.candidates = part_of<Key<A>>(workspace, w.candidates);
  kernel.found = part_of<uint32_t>(workspace, w.found);
  kernel.arrived = part_of<uint32_t>(workspace, w.arrived);
  kernel.thresholds = part_of<A>(workspace, w.thresholds);
  kernel.threshold_stride = request.percents();
  kernel.percents = request.percents_from<A>(0);
  kernel.pixels = static_cast<uint32_t>(request.pixels);
  kernel.parts = static_cast<uint32_t>(parts);
  kernel.freedom = static_cast<A>(request.count - 1);
  return kernel;
}

template <typename A, typename Device>
void launch_selection(Device& device, const Request& request, const Workspace& w, Memory workspace,
                      Global<const A> m2) {
  const int64_t rows = request.rows();
  const bool long_rows = request.long_rows();
  const int64_t parts = long_rows ? parts_of_row(device, rows, request.pixels) : 1;
  auto kernel = selection_of<Selection<A>, A>(request, w, workspace, m2, parts);
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

template <typename A>
Summaries<A> summaries(const Request& request, const Workspace& w, Memory workspace,
                       Global<const A> m2, Global<const A> abssum) {
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
  return from;
}

// Everything after the statistics and their summary.
template <typename A, typename Device>
void make_maps(Device& device, const Request& request, const Workspace& w, Memory workspace,
               Global<const A> m2, Global<const A> abssum, Global<A> out) {
  if (request.guides()) launch_selection<A>(device, request, w, workspace, m2);
  const Summaries<A> from = summaries<A>(request, w, workspace, m2, abssum);
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

// ---- all stages in one kernel ------------------------------------------------------------------

// A row's statistics are made by blocks of kPipelineRounds tiles: long enough to pay for clearing
// and flushing counts, short enough that few images are under way at a time.
inline constexpr int64_t kPipelineRounds = 4;

inline Tiles pipeline_tiles(const Request& request) {
  using P = Pipeline;
  const int64_t tiles =
      divide_up(request.pixels, static_cast<int64_t>(P::kThreads) * P::MakeStatistics::kLanes);
  const int64_t rounds = std::min(kPipelineRounds, tiles);
  return {request.pixels, static_cast<uint32_t>(divide_up(tiles, rounds)),
          static_cast<int>(rounds)};
}

// Blocks of the launch: as many as the device holds at a time.
template <typename Device>
int64_t pipeline_blocks(const Device& device) {
  return device.multiprocessors() * Pipeline::kBlocksPerMultiprocessor;
}

// The ring of a call, without slots where Pipeline cannot make its maps, or not faster: it can for
// dense float32 planes of long rows, one percent and min-max; it is faster for many images whose ring
// fits the L2 cache beside the passing stack (model.py).
template <typename S, typename Device>
Ring ring_of(const Device& device, const Stack<S>& stack, const Request& request) {
  using A = Accumulator<S>;
  constexpr int64_t kRingBytes = 24 << 20;
  const Pipelining choice = device.pipelining();
  if (choice == Pipelining::kNever || !std::is_same_v<S, float> || request.percents() != 1 ||
      !request.guides() || !request.ranges() || !request.long_rows() ||
      layout_of(stack) != Layout::kPlanes) {
    return {};
  }
  const int64_t items = request.channels * pipeline_tiles(request).blocks;
  const int64_t lag = divide_up(pipeline_blocks(device), items) + 1;
  const Ring ring{2 * lag + 2, lag};
  const int64_t bytes = ring.slots * request.channels * request.pixels * 2 * sizeof(A);
  const bool pays = request.images >= 2 * ring.slots && bytes <= kRingBytes;
  const int64_t numbers = (request.images + Schedule::kNormaliseLags * lag) * 16 * items;
  return (pays || choice == Pipelining::kAlways) && numbers <= INT32_MAX
             ? Ring{std::min(ring.slots, request.images), lag}
             : Ring{};
}

template <typename Device>
void launch_pipeline(Device& device, const Stack<float>& stack, const Request& request,
                     const Workspace& w, Memory workspace, Global<float> out) {
  using A = float;
  using P = Pipeline;
  constexpr int64_t kPart = 16384;  // pixels of a row that a block of Selection reads
  const Global<A> m2 = part_of<A>(workspace, w.m2), abssum = part_of<A>(workspace, w.abssum);
  const Global<Key<A>> ranges = part_of<Key<A>>(workspace, w.range);
  const Tiles tiles = pipeline_tiles(request);
  const int64_t parts = divide_up(request.pixels, kPart);
  const int64_t per_block = static_cast<int64_t>(P::kThreads) * kWide<A>;
  const uint32_t map_blocks = static_cast<uint32_t>(divide_up(request.pixels, per_block));
  const uint32_t map_items = (map_blocks - 1) / P::kMapTiles + 1;
  const uint32_t channels = static_cast<uint32_t>(request.channels);
  P kernel{};
  kernel.schedule = {
      static_cast<uint32_t>(request.images),
      static_cast<uint32_t>(w.ring.lag),
      static_cast<uint32_t>(w.ring.slots),
      {map_items, map_items, channels * static_cast<uint32_t>(parts), channels * tiles.blocks}};
  kernel.next = part_of<uint32_t>(workspace, w.next);
  kernel.done = part_of<uint32_t>(workspace, w.done);
  kernel.statistics = {stack, tiles, m2, abssum, row_summary<A>(request, w, workspace)};
  kernel.selection = selection_of<typename P::Select, A>(request, w, workspace, m2, parts);
  kernel.sum = {summaries<A>(request, w, workspace, m2, abssum), request.images, map_blocks, out,
                ranges};
  kernel.min_max = {out, ranges, request.pixels, map_blocks};
  launch(device, kernel, pipeline_blocks(device));
}

// ---- the operators -----------------------------------------------------------------------------

// guided_absgrad. `out` is [k,B,HW] or, keep_channels, [k,B,C,HW].
template <typename S, typename Device>
void guided_absgrad_on(Device& device, const Stack<S>& stack, const Request& request,
                       const Workspace& w, Memory workspace, Global<Accumulator<S>> out) {
  using A = Accumulator<S>;
  if constexpr (std::is_same_v<S, float>) {
    if (w.ring.slots > 0) {
      device.zero(workspace, w.zeroed);
      return launch_pipeline(device, stack, request, w, workspace, out);
    }
  }
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
