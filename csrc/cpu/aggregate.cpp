#include "cpu/aggregate.h"

#include "cpu/simd.h"
#include "math/welford.h"

namespace gag_fast {

namespace {

const AggregateTables& tables() {
#if defined(__x86_64__)
  return *choose(simd_level(), &aggregate_baseline, &aggregate_avx2, &aggregate_avx512);
#else
  return aggregate_baseline;
#endif
}

}  // namespace

template <>
const AggregateKernels<float>& aggregate_kernels<float>() {
  return tables().singles;
}
template <>
const AggregateKernels<double>& aggregate_kernels<double>() {
  return tables().doubles;
}

// ---- statistics of a pixel range ---------------------------------------------------------------

namespace {

// channels_last: statistics of a tile in memory order, then apart into planes. The stack is read in
// place; only one value in n is moved.
template <typename A>
void summarise_interleaved(const StackView& view, int64_t b, int64_t begin, int64_t end,
                           const A* inverse, A* variance, A* absmean, unsigned* taint) {
  constexpr int64_t kValues = 6144;
  A v[kValues], a[kValues];
  const AggregateKernels<A>& kernels = aggregate_kernels<A>();
  const int64_t C = view.C, HW = view.pixels();
  const int64_t tile = kValues / C;
  over_rows(view, begin, end, view.W * C, [&](int64_t first, int64_t offset, int64_t count) {
    for (int64_t done = 0; done < count; done += tile) {
      const int64_t length = std::min(tile, count - done), pixel = first + done;
      const unsigned found =
          kernels.summarise[view.source](view.at(b, offset + done * C), view.stride_n, view.n,
                                         length * C, inverse, variance ? v : nullptr, a);
      if (variance) kernels.take_apart(v, C, length, variance + pixel, HW);
      kernels.take_apart(a, C, length, absmean + pixel, HW);
      if (found == kClean) continue;
      for (int64_t i = 0; i < length * C; ++i) {  // rare: which channels was it?
        if (variance && v[i] * A(0) != A(0)) taint[i % C] |= kVarianceNotFinite;
        if (a[i] * A(0) != A(0)) taint[i % C] |= kAbsmeanNotFinite;
      }
    }
  });
}

template <typename A>
void summarise_strided(const StackView& view, int64_t b, int64_t begin, int64_t end,
                       const A* inverse, A* variance, A* absmean, unsigned* taint) {
  alignas(64) A gathered[kTileSamples * kTilePixels];
  A shift[kTilePixels], mean[kTilePixels], m2[kTilePixels], abssum[kTilePixels];
  A settled_m2[kTilePixels], settled_abssum[kTilePixels];
  const StatePointers<A> state{shift, mean, m2, abssum, settled_m2, settled_abssum};
  const AggregateKernels<A>& kernels = aggregate_kernels<A>();
  over_tiles(view, begin, end, [&](int64_t c, int64_t pixel, int64_t length) {
    if (view.n > kRun) {
      std::fill(settled_m2, settled_m2 + length, A(0));
      std::fill(settled_abssum, settled_abssum + length, A(0));
    }
    for (int64_t done = 0; done < view.n; done += kTileSamples) {
      const int64_t samples = std::min(kTileSamples, view.n - done);
      gather(view, b, c, done, samples, pixel, length, gathered);
      kernels.fold[view.source](gathered, kTilePixels, samples, length, done, inverse + done,
                                state);
    }
    for (int64_t i = 0; view.n > kRun && i < length; ++i) {
      m2[i] = settled_m2[i] + m2[i];
      abssum[i] = settled_abssum[i] + abssum[i];
    }
    const int64_t at = c * view.pixels() + pixel;
    taint[c] |= kernels.finish(m2, abssum, view.n, length, variance ? variance + at : nullptr,
                               absmean + at);
  });
}

template <typename A>
StatePointers<A> advance(StatePointers<A> state, int64_t by) {
  const auto settled = [by](A* p) { return p ? p + by : nullptr; };
  return {state.shift + by,  state.mean + by,           state.m2 + by,
          state.abssum + by, settled(state.settled_m2), settled(state.settled_abssum)};
}

}  // namespace

template <typename A>
void summarise_pixels(const StackView& view, int64_t b, int64_t begin, int64_t end,
                      const A* inverse, A* variance, A* absmean, unsigned* taint) {
  if (view.interleaved() && view.C <= 64) {
    return summarise_interleaved(view, b, begin, end, inverse, variance, absmean, taint);
  }
  if (!view.planar()) {
    return summarise_strided(view, b, begin, end, inverse, variance, absmean, taint);
  }
  const auto summarise = aggregate_kernels<A>().summarise[view.source];
  for (int64_t c = 0; c < view.C; ++c) {
    over_rows(view, begin, end, view.W, [&](int64_t first, int64_t offset, int64_t length) {
      const int64_t to = c * view.pixels() + first;
      taint[c] |= summarise(view.at(b, c * view.stride_c + offset), view.stride_n, view.n, length,
                            inverse, variance ? variance + to : nullptr, absmean + to);
    });
  }
}

template <typename A>
void fold_pixels(const StackView& view, int64_t b, int64_t begin, int64_t end, int64_t count,
                 const A* inverse, StatePointers<A> state) {
  const auto fold = aggregate_kernels<A>().fold[view.source];
  if (view.planar()) {
    for (int64_t c = 0; c < view.C; ++c) {
      over_rows(view, begin, end, view.W, [&](int64_t first, int64_t offset, int64_t length) {
        fold(view.at(b, c * view.stride_c + offset), view.stride_n, view.n, length, count, inverse,
             advance(state, c * view.pixels() + first));
      });
    }
    return;
  }
  alignas(64) A gathered[kTileSamples * kTilePixels];
  over_tiles(view, begin, end, [&](int64_t c, int64_t pixel, int64_t length) {
    for (int64_t done = 0; done < view.n; done += kTileSamples) {
      const int64_t samples = std::min(kTileSamples, view.n - done);
      gather(view, b, c, done, samples, pixel, length, gathered);
      fold(gathered, kTilePixels, samples, length, count + done, inverse + done,
           advance(state, c * view.pixels() + pixel));
    }
  });
}

#define GAG_FAST_INSTANTIATE(A)                                                                    \
  template void summarise_pixels<A>(const StackView&, int64_t, int64_t, int64_t, const A*, A*, A*, \
                                    unsigned*);                                                    \
  template void fold_pixels<A>(const StackView&, int64_t, int64_t, int64_t, int64_t, const A*,     \
                               StatePointers<A>);
GAG_FAST_INSTANTIATE(float)
GAG_FAST_INSTANTIATE(double)
#undef GAG_FAST_INSTANTIATE

}  // namespace gag_fast
