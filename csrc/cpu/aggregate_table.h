// The aggregation kernels as a table of functions, one table per SIMD level, chosen once at run
// time. Torch-free. Every level gives the same bits (see aggregate_kernels.h).
#pragma once

#include <cstdint>

#include "math/taint.h"

namespace gag_fast {

// Element types a gradient stack may have. Accumulation is in double for f64, else in float.
enum Source : int { kF32 = 0, kF16 = 1, kBF16 = 2, kF64 = 3, kSources = 4 };

// Running statistics of consecutive pixels: pointers to the first of them (math/welford.h).
template <typename A>
struct StatePointers {
  A* shift;
  A* mean;
  A* m2;
  A* abssum;
  A* settled_m2;  // these two: nullptr where there will be no more than kRun samples
  A* settled_abssum;
};

inline constexpr int64_t kFew = 128;  // as many as two_of_few puts in order

// A is the accumulator, float or double. Lengths and strides are in elements; a "run" is
// consecutive memory, the same run of each sample lying `sample_stride` apart.
template <typename A>
struct AggregateKernels {
  // Eq. 3.2 and 3.3 over n samples of a run. inverse[i] = 1 / (i + 1). variance == nullptr: the
  // absmean only. Returns Taint bits.
  unsigned (*summarise[kSources])(const void* grads, int64_t sample_stride, int64_t n,
                                  int64_t length, const A* inverse, A* variance, A* absmean);

  // m more samples of a run into a state that holds `count`. inverse[i] = 1 / (count + i + 1).
  void (*fold[kSources])(const void* grads, int64_t sample_stride, int64_t m, int64_t length,
                         int64_t count, const A* inverse, StatePointers<A> state);

  // variance = m2 / (count - 1), absmean = abssum / count: summarise's last step. variance ==
  // nullptr: the absmean only. In place is fine. Returns Taint bits.
  unsigned (*finish)(const A* m2, const A* abssum, int64_t count, int64_t length, A* variance,
                     A* absmean);

  // Takes a run of `pixels` pixels of `channels` values each apart: value c goes to plane c, and
  // planes lie `plane_stride` apart.
  void (*take_apart)(const A* from, int64_t channels, int64_t pixels, A* planes,
                     int64_t plane_stride);

  // Appends the values in [low, high] to `inside`, returns how many; *below = how many are < low.
  // `inside` needs room for all of them and one vector more (kMaxLanes).
  int64_t (*bracket)(const A* values, int64_t length, A low, A high, A* inside, int64_t* below);

  // The i-th and the j-th smallest (from 0) of up to kFew values, which are >= 0 and finite.
  void (*two_of_few)(const A* values, int64_t count, int64_t i, int64_t j, A* ith, A* jth);

  // Eq. 3.4 x 3.2 and the channel sum: out[i] = sum_c guided(variance[c][i], absmean[c][i],
  // threshold[c]), planes `plane_stride` apart. variance == nullptr: guide 1 (p = 0). Widens
  // [*low, *high] to the values written.
  void (*blend)(const A* variance, const A* absmean, int64_t plane_stride, int64_t channels,
                int64_t length, const A* threshold, A* out, A* low, A* high);

  // map = (map - low) / (high - low).
  void (*normalise)(A* map, int64_t length, A low, A high);
};

inline constexpr int kMaxLanes = 16;

struct AggregateTables {
  AggregateKernels<float> singles;
  AggregateKernels<double> doubles;
};

extern const AggregateTables aggregate_baseline;
#if defined(__x86_64__)
extern const AggregateTables aggregate_avx2;
extern const AggregateTables aggregate_avx512;
#endif

// The table for this CPU (cpu/simd.h). Call it once outside threads first: it may throw.
template <typename A>
const AggregateKernels<A>& aggregate_kernels();

}  // namespace gag_fast
