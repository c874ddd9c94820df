// Runs the CUDA aggregation operators' launches on the CPU, kernel by kernel, block by block,
// thread by thread: the same guided_absgrad.h and kernel bodies that nvcc compiles. A plain C
// interface for tests/cuda; built there with g++, no part of an installed build.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda/emulation/block.h"
#include "cuda/guided_absgrad.h"

namespace gag_fast::cuda {
namespace {

// Layouts shared with tests/cuda/cuda_emulation.py.
struct Options {
  int64_t order;            // of blocks and threads: 0 ascending, 1 descending, others shuffle
  int64_t multiprocessors;  // of the pretended device: decides grids, never results
  int64_t fault_launch;     // the launch that the faults below go to
  int64_t fault_barrier;    // leave out this barrier of each of its blocks; -1: none
  int64_t fault_atomics, fault_arrivals;
  int64_t pipeline;  // a Pipelining
};

struct Report {
  static constexpr int kMostLaunches = 32;
  int64_t launches;
  int64_t barriers[kMostLaunches];  // per block
  int64_t races[kMostLaunches];
  int64_t workspace_bytes;
  char text[1024];  // an error, or the kinds of races
};

class EmulatedDevice {
 public:
  EmulatedDevice(const Options& options, Report& report) : options_(options), report_(report) {}

  int64_t multiprocessors() const { return options_.multiprocessors; }
  Pipelining pipelining() const { return static_cast<Pipelining>(options_.pipeline); }

  void zero(emulation::Region* memory, int64_t bytes) {
    std::memset(reinterpret_cast<void*>(memory->begin), 0, static_cast<size_t>(bytes));
  }

  template <typename Kernel>
  void launch(const Kernel& kernel, uint32_t blocks) {
    run([&kernel](EmulatedBlock& block) { kernel(block); }, blocks, Kernel::kThreads,
        kernel.shared_bytes());
  }

 private:
  // kResident blocks are under way at a time, and take turns.
  void run(const std::function<void(EmulatedBlock&)>& body, uint32_t blocks, int threads,
           int shared_bytes) {
    const int64_t nth = report_.launches++;
    if (nth >= Report::kMostLaunches)
      throw std::runtime_error("more launches than the report holds");
    Launch launch;
    launch.id = ++launches_;
    launch.shuffled = options_.order > 1;
    launch.random.seed(static_cast<uint64_t>(options_.order * 1000003 + nth));
    if (nth == options_.fault_launch) {
      launch.faults = {options_.fault_barrier, options_.fault_atomics != 0,
                       options_.fault_arrivals != 0};
    }
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    if (options_.order == 1) std::reverse(order.begin(), order.end());
    if (launch.shuffled) std::shuffle(order.begin(), order.end(), launch.random);
    std::vector<std::unique_ptr<EmulatedBlock>> resident;
    size_t next = 0, turn = 0;
    while (next < order.size() || !resident.empty()) {
      while (next < order.size() && resident.size() < kResident) {
        resident.push_back(std::make_unique<EmulatedBlock>(launch, order[next++], threads,
                                                           shared_bytes, options_.order));
      }
      turn = (launch.shuffled ? launch.random() : turn + 1) % resident.size();
      if (resident[turn]->advance(body)) resident.erase(resident.begin() + turn);
    }
    report_.barriers[nth] = launch.barriers;
    for (const auto& [kind, count] : launch.races) {
      report_.races[nth] += count;
      const size_t used = std::strlen(report_.text);
      std::snprintf(report_.text + used, sizeof report_.text - used, "launch %d: %s (%d times); ",
                    static_cast<int>(nth), kind.c_str(), static_cast<int>(count));
    }
  }

  static constexpr size_t kResident = 8;
  const Options& options_;
  Report& report_;
  int64_t launches_ = 0;
};

// A workspace as torch's allocator gives it: aligned to 256 bytes, its content left over from
// others.
class Allocation {
 public:
  explicit Allocation(int64_t bytes)
      : bytes_(static_cast<size_t>(bytes) + 256, 0xff), region_(start(), bytes) {}
  emulation::Region* region() { return &region_; }

 private:
  void* start() {
    const auto raw = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<void*>((raw + 255) / 256 * 256);
  }

  std::vector<unsigned char> bytes_;
  emulation::Region region_;
};

// The caller's tensors, each a region of its own.
class Tensors {
 public:
  template <typename T>
  Global<T> operator()(void* data, int64_t count) {
    if (!data) return nullptr;
    regions_.push_back(
        std::make_unique<emulation::Region>(data, count * static_cast<int64_t>(sizeof(T))));
    return Global<T>(regions_.back().get(), data, count);
  }

 private:
  std::vector<std::unique_ptr<emulation::Region>> regions_;
};

int64_t maps_in(const Request& request) {
  return request.percents() * (request.keep_channels ? request.rows() : request.images) *
         request.pixels;
}

template <typename S>
Stack<S> stack_of(const void* data, const int64_t* size, const int64_t* stride) {
  return {static_cast<const S*>(data),
          size[0],
          size[1],
          size[2],
          size[3],
          size[4],
          stride[0],
          stride[1],
          stride[2],
          stride[3],
          stride[4]};
}

// dtype: 0 float32, 1 float64, 2 float16, 3 bfloat16.
template <typename Body>
int guarded(int dtype, Report& report, Body body) {
  std::memset(&report, 0, sizeof report);
  try {
    switch (dtype) {
      case 0:
        body.template operator()<float>();
        return 0;
#if !defined(GAG_FAST_ONLY_FLOAT32)  // a test that compiles this often needs no more
      case 1:
        body.template operator()<double>();
        return 0;
      case 2:
        body.template operator()<Float16>();
        return 0;
      case 3:
        body.template operator()<BFloat16>();
        return 0;
#endif
    }
    throw std::runtime_error("unknown dtype");
  } catch (const std::exception& error) {
    std::snprintf(report.text, sizeof report.text, "%s", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace gag_fast::cuda

using namespace gag_fast::cuda;

extern "C" {

int emulate_guided_absgrad(int dtype, const void* data, const int64_t* size, const int64_t* stride,
                           const double* p, int64_t k, int normalize, int keep_channels, void* out,
                           const Options* options, Report* report) {
  return guarded(dtype, *report, [&]<typename S>() {
    using A = Accumulator<S>;
    const Request request{size[0],    size[2],        size[3] * size[4], size[1],
                          {p, p + k}, normalize != 0, keep_channels != 0};
    EmulatedDevice device(*options, *report);
    const Stack<S> stack = stack_of<S>(data, size, stride);
    const Workspace plan = plan_workspace<A>(request, true, ring_of(device, stack, request));
    report->workspace_bytes = plan.bytes;
    Allocation memory(plan.bytes);
    Tensors tensors;
    guided_absgrad_on(device, stack, request, plan, memory.region(),
                      tensors.template operator()<A>(out, maps_in(request)));
  });
}

#if !defined(GAG_FAST_ONLY_FLOAT32)

// float32 statistics of B x C rows of `pixels`: the bytes of the workspace, by arithmetic alone.
int emulate_workspace(int64_t images, int64_t channels, int64_t pixels, int64_t count,
                      const double* p, int64_t k, int own_statistics, Report* report) {
  return guarded(0, *report, [&]<typename S>() {
    const Request request{images, channels, pixels, count, {p, p + k}, true, false};
    report->workspace_bytes = plan_workspace<float>(request, own_statistics != 0).bytes;
  });
}

// dtype 0 or 1; size is [B,C,H,W].
int emulate_guided_absgrad_from_stats(int dtype, const void* m2, const void* abssum, int64_t count,
                                      const int64_t* size, const double* p, int64_t k,
                                      int normalize, int keep_channels, void* out,
                                      const Options* options, Report* report) {
  return guarded(dtype, *report, [&]<typename S>() {
    using A = Accumulator<S>;
    const Request request{size[0],    size[1],        size[2] * size[3], count,
                          {p, p + k}, normalize != 0, keep_channels != 0};
    const Workspace plan = plan_workspace<A>(request, false);
    report->workspace_bytes = plan.bytes;
    Allocation memory(plan.bytes);
    Tensors tensors;
    EmulatedDevice device(*options, *report);
    const auto given = [&](const void* map) -> Global<const A> {
      return tensors.template operator()<A>(const_cast<void*>(map),
                                            request.rows() * request.pixels);
    };
    guided_absgrad_from_stats_on(device, given(m2), given(abssum), request, plan, memory.region(),
                                 tensors.template operator()<A>(out, maps_in(request)));
  });
}

int emulate_gradient_stats(int dtype, void* shift, void* mean, void* m2, void* abssum,
                           void* settled, const void* data, const int64_t* size,
                           const int64_t* stride, int64_t count, const Options* options,
                           Report* report) {
  return guarded(dtype, *report, [&]<typename S>() {
    using A = Accumulator<S>;
    EmulatedDevice device(*options, *report);
    const int64_t elements = size[0] * size[2] * size[3] * size[4];
    Tensors tensors;
    const auto map = [&](void* data) { return tensors.template operator()<A>(data, elements); };
    void* const settled_abssum = settled ? static_cast<A*>(settled) + elements : nullptr;
    gradient_stats_on(device, stack_of<S>(data, size, stride), count,
                      FoldedState<A>{map(shift), map(mean), map(m2), map(abssum), map(settled),
                                     map(settled_abssum)});
  });
}

#endif

}  // extern "C"
