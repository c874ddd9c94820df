// Runs the CUDA aggregation operators' launches on the CPU, kernel by kernel, block by block,
// thread by thread: the same guided_absgrad.h and kernel bodies that nvcc compiles. A plain C
// interface for tests/cuda; built there with g++, no part of an installed build.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
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

  void zero(void* from, int64_t bytes) { std::memset(from, 0, static_cast<size_t>(bytes)); }

  template <typename Kernel>
  void launch(const Kernel& kernel, uint32_t blocks) {
    const int64_t nth = report_.launches++;
    if (nth >= Report::kMostLaunches)
      throw std::runtime_error("more launches than the report holds");
    Launch launch;
    if (nth == options_.fault_launch) {
      launch.faults = {options_.fault_barrier, options_.fault_atomics != 0,
                       options_.fault_arrivals != 0};
    }
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    if (options_.order == 1) std::reverse(order.begin(), order.end());
    if (options_.order > 1) {
      std::shuffle(order.begin(), order.end(), std::mt19937_64(options_.order));
    }
    for (const uint32_t index : order) {
      EmulatedBlock block(launch, index, Kernel::kThreads, kernel.shared_bytes(), options_.order);
      kernel(block);
    }
    report_.barriers[nth] = launch.barriers;
    for (const auto& [kind, count] : launch.races) {
      report_.races[nth] += count;
      const size_t used = std::strlen(report_.text);
      std::snprintf(report_.text + used, sizeof report_.text - used, "launch %d: %s (%d times); ",
                    static_cast<int>(nth), kind.c_str(), static_cast<int>(count));
    }
  }

 private:
  const Options& options_;
  Report& report_;
};

// As torch's allocator gives it: aligned to 256 bytes, its content left over from others.
class Memory {
 public:
  explicit Memory(int64_t bytes) : bytes_(static_cast<size_t>(bytes) + 256, 0xff) {}
  void* data() {
    const auto raw = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<void*>((raw + 255) / 256 * 256);
  }

 private:
  std::vector<unsigned char> bytes_;
};

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
      case 1:
        body.template operator()<double>();
        return 0;
      case 2:
        body.template operator()<Float16>();
        return 0;
      case 3:
        body.template operator()<BFloat16>();
        return 0;
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
    const Workspace plan = plan_workspace<A>(request, true);
    report->workspace_bytes = plan.bytes;
    Memory memory(plan.bytes);
    EmulatedDevice device(*options, *report);
    guided_absgrad_on(device, stack_of<S>(data, size, stride), request, plan, memory.data(),
                      static_cast<A*>(out));
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
    Memory memory(plan.bytes);
    EmulatedDevice device(*options, *report);
    guided_absgrad_from_stats_on(device, static_cast<const A*>(m2), static_cast<const A*>(abssum),
                                 request, plan, memory.data(), static_cast<A*>(out));
  });
}

int emulate_gradient_stats(int dtype, void* shift, void* mean, void* m2, void* abssum,
                           void* settled, const void* data, const int64_t* size,
                           const int64_t* stride, int64_t count, const Options* options,
                           Report* report) {
  return guarded(dtype, *report, [&]<typename S>() {
    using A = Accumulator<S>;
    EmulatedDevice device(*options, *report);
    A* const put_by = static_cast<A*>(settled);
    const int64_t elements = size[0] * size[2] * size[3] * size[4];
    gradient_stats_on(
        device, stack_of<S>(data, size, stride), count,
        FoldedState<A>{static_cast<A*>(shift), static_cast<A*>(mean), static_cast<A*>(m2),
                       static_cast<A*>(abssum), put_by, put_by ? put_by + elements : nullptr});
  });
}

}  // extern "C"
