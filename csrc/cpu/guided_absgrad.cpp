// guided_absgrad and guided_absgrad_from_stats on the CPU. csrc/README.md says how and why.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <vector>

#include "checks.h"
#include "cpu/aggregate.h"
#include "cpu/scratch.h"
#include "cpu/select.h"
#include "cpu/stack_tensor.h"
#include "math/percentile.h"
#include "strided.h"

namespace gag_fast {
namespace {

// What a call wants of every image, and where the results go.
template <typename A>
struct Job {
  int64_t C, HW;
  std::vector<double> p;
  bool normalize, keep_channels, need_variance;
  A* out;              // [k, B, HW] or, keep_channels, [k, B, C, HW]
  int64_t k_stride;    // elements between two percents' results
  int64_t map_values;  // HW or C * HW

  A* map(int64_t j, int64_t b) const { return out + j * k_stride + b * map_values; }
};

// One image's planar statistics and what else its maps need, all reused from image to image.
template <typename A>
struct Workspace {
  A* variance;                  // [C, HW]
  A* absmean;                   // [C, HW]
  std::vector<unsigned> taint;  // [C], Taint bits
  std::vector<A> threshold;     // [k, C]
  std::vector<A> low, high;     // [k]
};

// How a step's loop is run: all of it here, or dealt to torch's threads.
struct Serial {
  template <typename Body>
  void pixels(int64_t count, Body body) const {
    body(int64_t{0}, count);
  }
  template <typename Body>
  void items(int64_t count, Body body) const {
    for (int64_t i = 0; i < count; ++i) body(i);
  }
};

struct Parallel {
  template <typename Body>
  void pixels(int64_t count, Body body) const {
    parallel_over_pixels(count, body);
  }
  template <typename Body>
  void items(int64_t count, Body body) const {
    torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) body(i);
    });
  }
};

// The smallest of `length` variances that is >= their p-th percentile (math/percentile.h).
template <typename A>
A threshold_of(const A* variance, int64_t length, double p, A* scratch) {
  const AggregateKernels<A>& kernels = aggregate_kernels<A>();
  const PercentilePlace place = percentile_place(p, length);
  const A above = select_kth(kernels, variance, length, place.above(), scratch);
  if (!close_call<A>(place)) return above;
  const A below = select_kth(kernels, variance, length, place.below, scratch);
  return threshold_between(below, above, place.weight);
}

// The threshold of every percent and channel.
// `scratch` has one row for each thread that may work at once.
template <typename A, typename Loop>
void find_thresholds(const Job<A>& job, Workspace<A>& work, const std::vector<A*>& scratch,
                     const Loop& loop) {
  const int64_t rows = static_cast<int64_t>(job.p.size()) * job.C;
  const int64_t tasks = static_cast<int64_t>(scratch.size());
  loop.items(tasks, [&](int64_t task) {
    for (int64_t row = task * rows / tasks; row < (task + 1) * rows / tasks; ++row) {
      const double p = job.p[row / job.C];
      const int64_t c = row % job.C;
      if (work.taint[c] != kClean || p == 0.0) continue;
      work.threshold[row] = threshold_of(work.variance + c * job.HW, job.HW, p, scratch[task]);
    }
  });
}

// nullptr where p = 0 makes the guide 1 whatever the variance.
template <typename A>
const A* guiding_variance(const Job<A>& job, const Workspace<A>& work, int64_t j) {
  return job.p[j] == 0.0 ? nullptr : work.variance;
}

// channels="keep": guide x absmean of every channel.
template <typename A, typename Loop>
void write_channels(const Job<A>& job, int64_t b, Workspace<A>& work, const Loop& loop) {
  const int64_t k = static_cast<int64_t>(job.p.size());
  loop.items(k * job.C, [&](int64_t item) {
    const int64_t j = item / job.C, c = item % job.C;
    A* row = job.map(j, b) + c * job.HW;
    if (spoils(work.taint[c], job.p[j] != 0.0)) {
      std::fill(row, row + job.HW, std::numeric_limits<A>::quiet_NaN());
      return;
    }
    A low = std::numeric_limits<A>::infinity(), high = -low;  // not asked for
    const A* variance = guiding_variance(job, work, j);
    aggregate_kernels<A>().blend(variance ? variance + c * job.HW : nullptr,
                                 work.absmean + c * job.HW, job.HW, 1, job.HW,
                                 &work.threshold[item], row, &low, &high);
  });
}

// Lets `value` replace `extreme` where it is further out; in any order, from any thread.
template <typename A, typename Further>
void widen(A& extreme, A value, Further further) {
  std::atomic_ref<A> shared(extreme);
  A seen = shared.load();
  while (further(value, seen) && !shared.compare_exchange_weak(seen, value)) {
  }
}

// channels="sum": guide x absmean, added over channels, and each map's range.
template <typename A, typename Loop>
void write_sums(const Job<A>& job, int64_t b, Workspace<A>& work, const std::vector<char>& spoiled,
                const Loop& loop) {
  constexpr A kInfinity = std::numeric_limits<A>::infinity();
  constexpr int64_t kBlock = 1024;  // pixels whose statistics stay in L1 from percent to percent
  const int64_t k = static_cast<int64_t>(job.p.size());
  std::fill(work.low.begin(), work.low.end(), kInfinity);
  std::fill(work.high.begin(), work.high.end(), -kInfinity);
  loop.pixels(job.HW, [&](int64_t begin, int64_t end) {
    std::vector<A> low(k, kInfinity), high(k, -kInfinity);
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t length = std::min(kBlock, end - at);
      for (int64_t j = 0; j < k; ++j) {
        if (spoiled[j]) continue;
        const A* variance = guiding_variance(job, work, j);
        aggregate_kernels<A>().blend(variance ? variance + at : nullptr, work.absmean + at, job.HW,
                                     job.C, length, &work.threshold[j * job.C], job.map(j, b) + at,
                                     &low[j], &high[j]);
      }
    }
    for (int64_t j = 0; j < k; ++j) {
      widen(work.low[j], low[j], std::less<A>{});
      widen(work.high[j], high[j], std::greater<A>{});
    }
  });
}

// Min-max of the sums, where that is asked for and they have a range.
template <typename A, typename Loop>
void finish_sums(const Job<A>& job, int64_t b, Workspace<A>& work, const std::vector<char>& spoiled,
                 const Loop& loop) {
  loop.pixels(job.HW, [&](int64_t begin, int64_t end) {
    for (int64_t j = 0; j < static_cast<int64_t>(job.p.size()); ++j) {
      A* map = job.map(j, b);
      const bool overflowed = !(work.high[j] < std::numeric_limits<A>::infinity());
      if (spoiled[j] || (job.normalize && overflowed)) {
        std::fill(map + begin, map + end, std::numeric_limits<A>::quiet_NaN());
      } else if (job.normalize && work.low[j] == work.high[j]) {
        std::fill(map + begin, map + end, A(0));
      } else if (job.normalize) {
        aggregate_kernels<A>().normalise(map + begin, end - begin, work.low[j], work.high[j]);
      }
    }
  });
}

// The steps after the statistics.
template <typename A, typename Loop>
void write_maps(const Job<A>& job, int64_t b, Workspace<A>& work, const std::vector<A*>& scratch,
                const Loop& loop) {
  if (job.need_variance) find_thresholds(job, work, scratch, loop);
  if (job.keep_channels) return write_channels(job, b, work, loop);
  std::vector<char> spoiled(job.p.size(), 0);
  for (size_t j = 0; j < spoiled.size(); ++j) {
    for (int64_t c = 0; c < job.C; ++c) spoiled[j] |= spoils(work.taint[c], job.p[j] != 0.0);
  }
  write_sums(job, b, work, spoiled, loop);
  finish_sums(job, b, work, spoiled, loop);
}

// Runs job over all images. statistics(b, begin, end, work, taint) fills the workspace for a pixel
// range. Images go to threads whole, so that an image's statistics stay in its core's cache; the
// images left over, fewer than threads, are shared pixel range by pixel range.
template <typename A, typename Statistics>
void run(const Job<A>& job, int64_t B, Statistics statistics) {
  aggregate_kernels<A>();  // an unknown GAG_FAST_SIMD throws here rather than in a thread
  const int64_t threads = std::max<int64_t>(1, torch::stable::get_num_threads());
  const int64_t tasks = B >= threads ? threads : 1;
  const int64_t each = B >= threads ? B / threads : 0;
  const int64_t k = static_cast<int64_t>(job.p.size());
  const int64_t planes = job.C * job.HW;
  const int64_t row = job.HW + kMaxLanes;  // select_kth's scratch
  const bool shared = each * tasks < B;
  const int64_t maps = job.need_variance ? 2 * planes : planes;
  const int64_t selections = std::min(threads, job.C);  // at once, in an image that is shared
  const int64_t rows =
      !job.need_variance ? 0 : (shared ? std::max(tasks, selections) : tasks) * row;
  const Scratch memory(sizeof(A) * static_cast<size_t>(tasks * maps + rows));
  A* const base = static_cast<A*>(memory.data());

  const auto workspace = [&](int64_t task) {
    A* at = base + task * maps;
    return Workspace<A>{job.need_variance ? at + planes : nullptr,
                        at,
                        std::vector<unsigned>(job.C),
                        std::vector<A>(k * job.C),
                        std::vector<A>(k),
                        std::vector<A>(k)};
  };
  const auto scratch = [&](int64_t task) { return base + tasks * maps + task * row; };

  if (each > 0) {
    torch::stable::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        Workspace<A> work = workspace(task);
        for (int64_t b = task * each; b < (task + 1) * each; ++b) {
          std::fill(work.taint.begin(), work.taint.end(), 0u);
          statistics(b, int64_t{0}, job.HW, work, work.taint.data());
          write_maps(job, b, work, {scratch(task)}, Serial{});
        }
      }
    });
  }
  if (!shared) return;
  Workspace<A> work = workspace(0);
  std::vector<A*> row_scratch(selections);
  for (int64_t i = 0; i < selections; ++i) row_scratch[i] = scratch(i);
  for (int64_t b = each * tasks; b < B; ++b) {
    std::fill(work.taint.begin(), work.taint.end(), 0u);
    parallel_over_pixels(job.HW, [&](int64_t begin, int64_t end) {
      std::vector<unsigned> taint(job.C);
      statistics(b, begin, end, work, taint.data());
      for (int64_t c = 0; c < job.C; ++c) {
        if (taint[c] != kClean) std::atomic_ref<unsigned>(work.taint[c]).fetch_or(taint[c]);
      }
    });
    write_maps(job, b, work, row_scratch, Parallel{});
  }
}

template <typename A>
Job<A> make_job(Tensor& out, int64_t B, int64_t C, int64_t HW, const std::vector<double>& p,
                bool normalize, bool keep_channels) {
  Job<A> job;
  job.C = C, job.HW = HW, job.p = p;
  job.normalize = normalize, job.keep_channels = keep_channels;
  job.need_variance = std::any_of(p.begin(), p.end(), [](double v) { return v != 0.0; });
  job.out = static_cast<A*>(out.mutable_data_ptr());
  job.map_values = keep_channels ? C * HW : HW;
  job.k_stride = B * job.map_values;
  return job;
}

template <typename A>
void from_stack(const Tensor& grads, const std::vector<double>& p, bool normalize,
                bool keep_channels, Tensor& out) {
  const StackView view = view_of(grads);
  const auto job = make_job<A>(out, view.B, view.C, view.pixels(), p, normalize, keep_channels);
  const std::vector<A> inverse = inverses<A>(0, view.n);
  run(job, view.B,
      [&](int64_t b, int64_t begin, int64_t end, const Workspace<A>& work, unsigned* taint) {
        summarise_pixels(view, b, begin, end, inverse.data(), work.variance, work.absmean, taint);
      });
}

template <typename A>
void from_stats(const Tensor& m2, const Tensor& abssum, int64_t count, const std::vector<double>& p,
                bool normalize, bool keep_channels, Tensor& out) {
  const int64_t B = m2.size(0), C = m2.size(1), HW = m2.size(2) * m2.size(3);
  const auto job = make_job<A>(out, B, C, HW, p, normalize, keep_channels);
  const A* squares = static_cast<const A*>(m2.const_data_ptr());
  const A* sums = static_cast<const A*>(abssum.const_data_ptr());
  const AggregateKernels<A>& kernels = aggregate_kernels<A>();
  run(job, B,
      [&](int64_t b, int64_t begin, int64_t end, const Workspace<A>& work, unsigned* taint) {
        for (int64_t c = 0; c < C; ++c) {
          const int64_t from = (b * C + c) * HW + begin, to = c * HW + begin;
          taint[c] |=
              kernels.finish(squares + from, sums + from, count, end - begin,
                             work.variance ? work.variance + to : nullptr, work.absmean + to);
        }
      });
}

Tensor guided_absgrad(const Tensor& grads, std::vector<double> p, bool normalize,
                      bool keep_channels) {
  check_stack(grads, "guided_absgrad");
  check_percents(p, grads.size(1), "guided_absgrad");
  const ScalarType type = accumulator_of(grads.scalar_type());
  Tensor out =
      new_maps(grads, type, static_cast<int64_t>(p.size()),
               {grads.size(0), grads.size(2), grads.size(3), grads.size(4)}, keep_channels);
  if (type == ScalarType::Double) {
    from_stack<double>(grads, p, normalize, keep_channels, out);
  } else {
    from_stack<float>(grads, p, normalize, keep_channels, out);
  }
  return out;
}

Tensor guided_absgrad_from_stats(const Tensor& m2, const Tensor& abssum, int64_t count,
                                 std::vector<double> p, bool normalize, bool keep_channels) {
  check_statistics(m2, abssum, count, p, "guided_absgrad_from_stats");
  Tensor out = new_maps(m2, m2.scalar_type(), static_cast<int64_t>(p.size()),
                        {m2.size(0), m2.size(1), m2.size(2), m2.size(3)}, keep_channels);
  if (m2.scalar_type() == ScalarType::Double) {
    from_stats<double>(m2, abssum, count, p, normalize, keep_channels, out);
  } else {
    from_stats<float>(m2, abssum, count, p, normalize, keep_channels, out);
  }
  return out;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) {
  m.impl("guided_absgrad", TORCH_BOX(&gag_fast::guided_absgrad));
  m.impl("guided_absgrad_from_stats", TORCH_BOX(&gag_fast::guided_absgrad_from_stats));
}
