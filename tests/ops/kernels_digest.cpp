// Runs the aggregation kernels of the baseline level on numbers of its own and prints a digest of
// the results' bits: the same on every processor. Torch-free, so that a cross compiler can build
// it.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/aggregate_table.h"
#include "cpu/select.h"

namespace {

uint64_t digest = 1469598103934665603ull;  // FNV-1a

template <typename T>
void add(const std::vector<T>& values) {
  std::vector<unsigned char> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  for (const unsigned char byte : bytes) digest = (digest ^ byte) * 1099511628211ull;
}

uint32_t random_state = 1;

uint32_t random_bits() {
  random_state = random_state * 1664525u + 1013904223u;
  return random_state >> 8;
}

const auto& baseline_of(float) { return gag_fast::aggregate_baseline.singles; }
const auto& baseline_of(double) { return gag_fast::aggregate_baseline.doubles; }

template <typename S, typename A>
void run(gag_fast::Source source, const std::vector<S>& grads, int64_t n, int64_t length) {
  const gag_fast::AggregateKernels<A>& kernels = baseline_of(A{});
  std::vector<A> inverse(n), variance(length), absmean(length), map(length), scratch(length + 64);
  for (int64_t i = 0; i < n; ++i) inverse[i] = A(1) / static_cast<A>(i + 1);
  const unsigned taint = kernels.summarise[source](grads.data(), length, n, length, inverse.data(),
                                                   variance.data(), absmean.data());
  const A threshold =
      gag_fast::select_kth(kernels, variance.data(), length, length * 85 / 100, scratch.data());
  A low = std::numeric_limits<A>::infinity(), high = -low;
  kernels.blend(variance.data(), absmean.data(), length, 1, length, &threshold, map.data(), &low,
                &high);
  kernels.normalise(map.data(), length, low, high);
  add(variance);
  add(absmean);
  add(map);
  add(std::vector<A>{threshold, low, high, static_cast<A>(taint)});
}

}  // namespace

int main() {
  const int64_t n = 7, length = 1003;
  std::vector<float> singles(n * length);
  std::vector<double> doubles(n * length);
  std::vector<uint16_t> halves(n * length), brains(n * length);
  for (size_t i = 0; i < singles.size(); ++i) {
    doubles[i] = (static_cast<double>(random_bits() % 20001) - 10000.0) / (1 + random_bits() % 7);
    singles[i] = static_cast<float>(doubles[i]);
    halves[i] = static_cast<uint16_t>(random_bits());  // normal and subnormal, but finite:
    if ((halves[i] & 0x7c00) == 0x7c00) halves[i] &= 0x83ff;
    brains[i] = static_cast<uint16_t>((random_bits() & 0x807f) | 0x3f80);  // of magnitude 1 to 2
  }
  run<float, float>(gag_fast::kF32, singles, n, length);
  run<uint16_t, float>(gag_fast::kF16, halves, n, length);
  run<uint16_t, float>(gag_fast::kBF16, brains, n, length);
  run<double, double>(gag_fast::kF64, doubles, n, length);
  std::printf("%016llx\n", static_cast<unsigned long long>(digest));
}
