// The parts of the CPU backend that threads share, under ThreadSanitizer: the memory that is kept
// between calls, the kernels on neighbouring pixel ranges of one image, and what they accumulate. The
// threads are of this program; torch's own pool is not compiled with the sanitizer. Prints a digest.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "cpu/aggregate_table.h"
#include "cpu/scratch.h"
#include "cpu/select.h"

using namespace gag_fast;

namespace {

constexpr int64_t kThreads = 8, kSamples = 23, kPixels = 64 * kThreads;
const AggregateKernels<float>& kernels = aggregate_baseline.singles;

// What one thread does: statistics of its pixels by one read and by folding, then a selection in
// memory that the calls hand to one another.
void work(int64_t thread, const std::vector<float>& stack, const std::vector<float>& inverse,
          std::vector<float>& variance, std::vector<float>& absmean, StatePointers<float> state,
          std::atomic<uint32_t>& selected) {
  const int64_t begin = thread * (kPixels / kThreads), length = kPixels / kThreads;
  kernels.summarise[kF32](stack.data() + begin, kPixels, kSamples, length, inverse.data(),
                          variance.data() + begin, absmean.data() + begin);
  const StatePointers<float> mine{state.shift + begin,      state.mean + begin,
                                  state.m2 + begin,         state.abssum + begin,
                                  state.settled_m2 + begin, state.settled_abssum + begin};
  for (int64_t i = 0; i < kSamples; ++i) {
    kernels.fold[kF32](stack.data() + i * kPixels + begin, kPixels, 1, length, i,
                       inverse.data() + i, mine);
  }
  for (int round = 0; round < 50; ++round) {
    const Scratch memory((length + kMaxLanes) * sizeof(float));
    float* const scratch = static_cast<float*>(memory.data());
    std::memset(scratch, 0, static_cast<size_t>(length) * sizeof(float));
    const float kth = select_kth(kernels, variance.data() + begin, length, length / 2, scratch);
    uint32_t bits;
    std::memcpy(&bits, &kth, sizeof bits);
    selected += bits;
  }
}

}  // namespace

int main() {
  std::vector<float> stack(kSamples * kPixels), inverse(kSamples);
  uint32_t random = 1;
  for (float& value : stack) {
    random = random * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(random)) * 0x1.0p-31f;
  }
  for (int64_t i = 0; i < kSamples; ++i) inverse[i] = 1.0f / static_cast<float>(i + 1);
  std::vector<float> variance(kPixels), absmean(kPixels), maps(6 * kPixels);
  const StatePointers<float> state{maps.data(),
                                   maps.data() + kPixels,
                                   maps.data() + 2 * kPixels,
                                   maps.data() + 3 * kPixels,
                                   maps.data() + 4 * kPixels,
                                   maps.data() + 5 * kPixels};
  std::atomic<uint32_t> selected{0};
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { work(t, stack, inverse, variance, absmean, state, selected); });
  }
  for (std::thread& thread : threads) thread.join();
  int64_t wrong = 0;
  for (int64_t i = 0; i < kPixels; ++i) {
    wrong += variance[i] != (state.settled_m2[i] + state.m2[i]) / static_cast<float>(kSamples - 1);
    wrong +=
        absmean[i] != (state.settled_abssum[i] + state.abssum[i]) / static_cast<float>(kSamples);
  }
  std::printf("%lld wrong, digest %08x\n", static_cast<long long>(wrong), selected.load());
  return wrong != 0;
}
