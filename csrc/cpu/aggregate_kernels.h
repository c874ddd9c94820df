// Bodies of cpu/aggregate_table.h, included once per instruction set by aggregate_<level>.cpp; see
// the rules in cpu/simd.h. Torch-free.
//
// Vectors are GCC/Clang vector extensions, so one source serves SSE2, NEON, AVX2 and AVX-512. Every
// operation is element by element or order-free (minimum, maximum, count), and -ffp-contract=off
// keeps products and sums apart: every level gives the same bits.
//
// Nothing here may be emitted under a name that another level shares (the linker keeps one copy,
// and it could be the one the CPU cannot run): all is in an anonymous namespace or always_inline,
// and no std:: template is called.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/aggregate_table.h"
#include "math/guide.h"
#include "math/welford.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Vectors never cross a function that is really called, so the ABI they would use is no matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#define GAG_INLINE static inline __attribute__((always_inline))

namespace gag_fast {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kUnroll = 4;  // vectors in flight: 4 state registers each, 32 registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kUnroll = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kUnroll = 4;
#endif

template <typename T>
struct SimdOf {
  typedef T Vec __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / sizeof(T);
};

template <typename A>
using Vec = typename SimdOf<A>::Vec;
typedef uint32_t U32 __attribute__((vector_size(kVectorBytes)));
typedef uint64_t U64 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t U16Half __attribute__((vector_size(kVectorBytes / 2)));

// ---- elements in memory -> vectors of the accumulator ------------------------------------------

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

template <typename To, typename From>
GAG_INLINE To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

template <typename A>
GAG_INLINE Vec<A> broadcast(A x) {
  return x - Vec<A>{};  // exact, and folded into one broadcast
}

GAG_INLINE Vec<float> magnitude_of(Vec<float> x) {
  return bits_as<Vec<float>>(bits_as<U32>(x) & 0x7fffffffu);
}
GAG_INLINE Vec<double> magnitude_of(Vec<double> x) {
  return bits_as<Vec<double>>(bits_as<U64>(x) & 0x7fffffffffffffffull);
}

// a + b computed as a * 1 + b, which is the same number: CPUs that add and multiply-add in
// different units have too few of the former for Welford's recurrence, with three sums to a
// product. Costs a register for the 1, which the narrower levels do not have.
struct PlusInMultiplier {
#if defined(__AVX512F__)
  __attribute__((always_inline)) Vec<float> operator()(Vec<float> a, Vec<float> b) const {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(1), (__m512)b);
  }
  __attribute__((always_inline)) Vec<double> operator()(Vec<double> a, Vec<double> b) const {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, _mm512_set1_pd(1), (__m512d)b);
  }
#else
  template <typename V>
  __attribute__((always_inline)) V operator()(V a, V b) const {
    return a + b;
  }
#endif
};

GAG_INLINE Vec<float> widen(Vec<float> x, float) { return x; }
GAG_INLINE Vec<double> widen(Vec<double> x, double) { return x; }

GAG_INLINE Vec<float> widen(U16Half x, BF16) {
  return bits_as<Vec<float>>(__builtin_convertvector(x, U32) << 16);
}

GAG_INLINE Vec<float> widen(U16Half x, F16) {
#if defined(__AVX512F__)
  return bits_as<Vec<float>>(_mm512_maskz_cvtph_ps(0xffff, bits_as<__m256i>(x)));
#elif defined(__F16C__)
  return bits_as<Vec<float>>(_mm256_cvtph_ps(bits_as<__m128i>(x)));
#else
  // Normal numbers, infinities and NaN: move exponent and mantissa into place, rescale by 2^-112.
  // Subnormal numbers: put the mantissa below a 0.5 and take the 0.5 away. Exact either way.
  const U32 word = __builtin_convertvector(x, U32) << 16;
  const U32 sign = word & 0x80000000u;
  const U32 magnitude = word + word;
  const Vec<float> normal = bits_as<Vec<float>>((magnitude >> 4) + (0xe0u << 23)) * 0x1.0p-112f;
  const Vec<float> subnormal = bits_as<Vec<float>>((magnitude >> 17) | (126u << 23)) - 0.5f;
  const U32 is_subnormal = bits_as<U32>(magnitude < (1u << 27));
  return bits_as<Vec<float>>(sign | (bits_as<U32>(subnormal) & is_subnormal) |
                             (bits_as<U32>(normal) & ~is_subnormal));
#endif
}

template <typename S>
struct Element;
template <>
struct Element<float> {
  using Accumulator = float;
  using Packed = Vec<float>;
};
template <>
struct Element<double> {
  using Accumulator = double;
  using Packed = Vec<double>;
};
template <>
struct Element<F16> {
  using Accumulator = float;
  using Packed = U16Half;
};
template <>
struct Element<BF16> {
  using Accumulator = float;
  using Packed = U16Half;
};

// A whole vector, or, at the end of a run, its first `count` lanes with zeros behind them.
constexpr int kWhole = -1;

template <typename S>
GAG_INLINE Vec<typename Element<S>::Accumulator> load(const S* from, int count) {
  typename Element<S>::Packed packed{};
  if (count == kWhole) {
    std::memcpy(&packed, from, sizeof packed);
  } else {
    std::memcpy(&packed, from, static_cast<size_t>(count) * sizeof(S));
  }
  return widen(packed, S{});
}

template <typename A>
GAG_INLINE void store(A* to, Vec<A> x, int count) {
  if (count == kWhole) {
    std::memcpy(to, &x, sizeof x);
  } else {
    std::memcpy(to, &x, static_cast<size_t>(count) * sizeof(A));
  }
}

GAG_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls body(first element, whole-vectors count as a compile-time constant, lanes of the last one)
// over a run: groups of kUnroll vectors, then single vectors, then what is left of one.
template <int kLanes, typename Body>
GAG_INLINE void over_run(int64_t length, Body body) {
  int64_t i = 0;
  for (; i + kUnroll * kLanes <= length; i += kUnroll * kLanes) {
    body.template operator()<kUnroll>(i, kWhole);
  }
  for (; i + kLanes <= length; i += kLanes) body.template operator()<1>(i, kWhole);
  if (i < length) body.template operator()<1>(i, static_cast<int>(length - i));
}

// x * 0 is 0 for finite x and NaN otherwise; a sum of them remembers.
template <typename A>
GAG_INLINE bool any_nan(Vec<A> x) {
  bool found = false;
  for (int i = 0; i < SimdOf<A>::lanes; ++i) found |= x[i] != x[i];
  return found;
}

template <typename A>
GAG_INLINE unsigned taint_of(Vec<A> variance, Vec<A> absmean) {
  return (any_nan<A>(variance) ? kVarianceNotFinite : kClean) |
         (any_nan<A>(absmean) ? kAbsmeanNotFinite : kClean);
}

// ---- statistics --------------------------------------------------------------------------------

// A run is summarised in blocks of pixels, and a block's samples in groups, so that memory sees
// a few long reads at a time instead of n short ones: hardware prefetchers follow the former.
// Between groups a block's moments wait in L2. Tried: README.md, "Statistics".
constexpr int64_t kBlockBytes = 32768;  // of one moment
constexpr int64_t kGroup = 5;           // samples
static_assert(kRun % kGroup == 0, "sums settle between groups");

// Hardware prefetchers stop at the end of a page: whoever reads on asks for the next one.
constexpr int64_t kPage = 4096;
constexpr int64_t kLine = 64;

enum Hint : int { kReadOnce = 0, kIntoL2 = 2 };  // __builtin_prefetch's locality
template <Hint kHint>
GAG_INLINE void prefetch(const void* from, int64_t bytes) {
  const char* line = static_cast<const char*>(from);
  for (int64_t b = 0; b < bytes; b += kLine) __builtin_prefetch(line + b, 0, kHint);
}

// Samples [first, last) of kVectors vectors of pixels, states in registers.
template <bool kVariance, int kVectors, typename S, typename A>
GAG_INLINE void accumulate(Moments<Vec<A>> (&state)[kVectors], const S* grads,
                           int64_t sample_stride, int64_t first, int64_t last, const A* inverse,
                           int count) {
  constexpr int kLanes = SimdOf<A>::lanes;
  for (int64_t i = first; i < last; ++i) {
    const S* from = grads + i * sample_stride;
    const Vec<A> inv = broadcast<A>(inverse[i]);
    for (int v = 0; v < kVectors; ++v) {
      const Vec<A> g = load(from + v * kLanes, count);
      if (kVariance) {
        next_sample(state[v], g, magnitude_of(g), inv, PlusInMultiplier{});
      } else {
        state[v].abssum = state[v].abssum + magnitude_of(g);
      }
    }
  }
}

template <int kVectors, typename S, typename A>
GAG_INLINE void accumulate_first(Moments<Vec<A>> (&state)[kVectors], const S* grads, int count) {
  for (int v = 0; v < kVectors; ++v) {
    const Vec<A> g = load(grads + v * SimdOf<A>::lanes, count);
    first_sample(state[v], g, magnitude_of(g));
  }
}

// The moments of kVectors vectors of pixels. The shift is the first gradient, which is at hand.
template <bool kVariance, int kVectors, typename S, typename A>
GAG_INLINE void resume(Moments<Vec<A>> (&state)[kVectors], const S* grads, const A* mean,
                       const A* m2, const A* abssum, int count) {
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = v * SimdOf<A>::lanes;
    state[v].abssum = load(abssum + at, count);
    if (!kVariance) continue;
    state[v].shift = load(grads + at, count);
    state[v].mean = load(mean + at, count);
    state[v].m2 = load(m2 + at, count);
  }
}

template <bool kVariance, int kVectors, typename A>
GAG_INLINE void suspend(const Moments<Vec<A>> (&state)[kVectors], A* mean, A* m2, A* abssum,
                        int count) {
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = v * SimdOf<A>::lanes;
    store<A>(abssum + at, state[v].abssum, count);
    if (!kVariance) continue;
    store<A>(mean + at, state[v].mean, count);
    store<A>(m2 + at, state[v].m2, count);
  }
}

// Settles the sums of kVectors vectors of pixels; `fresh`: nothing is settled yet.
template <bool kVariance, int kVectors, typename A>
GAG_INLINE void settle_sums(Moments<Vec<A>> (&state)[kVectors], A* settled_m2, A* settled_abssum,
                            bool fresh, int count) {
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = v * SimdOf<A>::lanes;
    Vec<A> abssum = fresh ? Vec<A>{} : load(settled_abssum + at, count);
    settle(abssum, state[v].abssum);
    store<A>(settled_abssum + at, abssum, count);
    if (!kVariance) continue;
    Vec<A> m2 = fresh ? Vec<A>{} : load(settled_m2 + at, count);
    settle(m2, state[v].m2);
    store<A>(settled_m2 + at, m2, count);
  }
}

// The sums as they are: what is settled and what is not.
template <bool kVariance, int kVectors, typename A>
GAG_INLINE void add_settled(Moments<Vec<A>> (&state)[kVectors], const A* settled_m2,
                            const A* settled_abssum, int count) {
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = v * SimdOf<A>::lanes;
    state[v].abssum = load(settled_abssum + at, count) + state[v].abssum;
    if (kVariance) state[v].m2 = load(settled_m2 + at, count) + state[v].m2;
  }
}

template <bool kVariance, typename S, typename A>
unsigned summarise_run(const S* grads, int64_t sample_stride, int64_t n, int64_t length,
                       const A* inverse, A* variance, A* absmean) {
  constexpr int kLanes = SimdOf<A>::lanes;
  constexpr int64_t kBlock = kBlockBytes / sizeof(A);
  const Vec<A> samples = broadcast<A>(static_cast<A>(n));
  const Vec<A> freedom = broadcast<A>(static_cast<A>(n - 1));
  Vec<A> taint_variance{}, taint_absmean{};
  // Blocks of about equal size, in whole vectors, rather than full ones and a short one.
  const int64_t blocks = (length + kBlock - 1) / kBlock;
  const int64_t each = ((length + blocks - 1) / blocks + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  A mean[kBlock], settled_m2[kBlock], settled_abssum[kBlock];
  for (int64_t begin = 0; begin < length; begin += each) {
    const int64_t pixels = smaller(each, length - begin);
    const S* block = grads + begin;
    for (int64_t first = 0; first < n; first += kGroup) {
      const int64_t last = smaller(first + kGroup, n);
      const S* next = last < n ? block + last * sample_stride : block + pixels;
      const int64_t following = last < n ? smaller(kGroup, n - last) : smaller(kGroup, n);
      over_run<kLanes>(pixels, [&]<int kVectors>(int64_t at,
                                                 int count) __attribute__((always_inline)) {
        const S* from = block + at;
        A* const m2 = kVariance ? variance + begin + at : nullptr;
        A* const abssum = absmean + begin + at;
        for (int64_t i = 0; i < following; ++i) {
          prefetch<kIntoL2>(next + at + i * sample_stride, kVectors * kLanes * sizeof(S));
        }
        Moments<Vec<A>> state[kVectors];
        if (first == 0) {
          accumulate_first<kVectors, S, A>(state, from, count);
        } else {
          resume<kVariance, kVectors, S, A>(state, from, mean + at, m2, abssum, count);
        }
        if (settles(first)) {
          settle_sums<kVariance, kVectors, A>(state, settled_m2 + at, settled_abssum + at,
                                              first == kRun, count);
        }
        accumulate<kVariance, kVectors, S, A>(state, from, sample_stride, first ? first : 1, last,
                                              inverse, count);
        if (last == n) {
          if (n > kRun) {
            add_settled<kVariance, kVectors, A>(state, settled_m2 + at, settled_abssum + at, count);
          }
          for (int v = 0; v < kVectors; ++v) {
            if (kVariance) state[v].m2 = state[v].m2 / freedom;
            if (kVariance) taint_variance += state[v].m2 * A(0);
            state[v].abssum = state[v].abssum / samples;
            taint_absmean += state[v].abssum * A(0);
          }
        }
        suspend<kVariance, kVectors, A>(state, mean + at, m2, abssum, count);
      });
    }
  }
  return taint_of<A>(taint_variance, taint_absmean);
}

template <typename S, typename A>
unsigned summarise(const void* grads, int64_t sample_stride, int64_t n, int64_t length,
                   const A* inverse, A* variance, A* absmean) {
  const S* from = static_cast<const S*>(grads);
  return variance
             ? summarise_run<true, S, A>(from, sample_stride, n, length, inverse, variance, absmean)
             : summarise_run<false, S, A>(from, sample_stride, n, length, inverse, variance,
                                          absmean);
}

template <typename S, typename A>
void fold(const void* grads, int64_t sample_stride, int64_t m, int64_t length, int64_t count,
          const A* inverse, StatePointers<A> state) {
  constexpr int kLanes = SimdOf<A>::lanes;
  const S* run = static_cast<const S*>(grads);
  const bool settles_first = settles(count);
  const int64_t until = smaller(m, kRun - count % kRun);  // samples before the next settling
  over_run<kLanes>(length, [&]<int kVectors>(int64_t at, int lanes) __attribute__((always_inline)) {
    A *const shift = state.shift + at, *const mean = state.mean + at, *const m2 = state.m2 + at,
             *const abssum = state.abssum + at;
    if (m == 1) {  // the sample waits for memory, and must not push the state out of the caches
      prefetch<kReadOnce>(reinterpret_cast<const char*>(run + at) + kPage,
                          kVectors * kLanes * sizeof(S));
    }
    Moments<Vec<A>> s[kVectors];
    const auto settle_here = [&]() __attribute__((always_inline)) {
      settle_sums<true, kVectors, A>(s, state.settled_m2 + at, state.settled_abssum + at, false,
                                     lanes);
    };
    if (count == 0) {
      accumulate_first<kVectors, S, A>(s, run + at, lanes);
      for (int v = 0; v < kVectors; ++v) store<A>(shift + v * kLanes, s[v].shift, lanes);
    } else {
      resume<true, kVectors, A, A>(s, shift, mean, m2, abssum, lanes);
      if (settles_first) settle_here();
    }
    accumulate<true, kVectors, S, A>(s, run + at, sample_stride, count == 0, until, inverse, lanes);
    for (int64_t i = until; i < m; i += kRun) {
      settle_here();
      accumulate<true, kVectors, S, A>(s, run + at, sample_stride, i, smaller(m, i + kRun), inverse,
                                       lanes);
    }
    suspend<true, kVectors, A>(s, mean, m2, abssum, lanes);
  });
}

template <typename A>
unsigned finish(const A* m2, const A* abssum, int64_t count, int64_t length, A* variance,
                A* absmean) {
  constexpr int kLanes = SimdOf<A>::lanes;
  const Vec<A> samples = broadcast<A>(static_cast<A>(count));
  const Vec<A> freedom = broadcast<A>(static_cast<A>(count - 1));
  Vec<A> taint_variance{}, taint_absmean{};
  over_run<kLanes>(length, [&]<int kVectors>(int64_t at, int lanes) __attribute__((always_inline)) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t i = at + v * kLanes;
      if (variance) {
        const Vec<A> value = load(m2 + i, lanes) / freedom;
        taint_variance += value * A(0);
        store<A>(variance + i, value, lanes);
      }
      const Vec<A> value = load(abssum + i, lanes) / samples;
      taint_absmean += value * A(0);
      store<A>(absmean + i, value, lanes);
    }
  });
  return taint_of<A>(taint_variance, taint_absmean);
}

template <typename A>
void take_apart(const A* __restrict from, int64_t channels, int64_t pixels, A* __restrict planes,
                int64_t plane_stride) {
  if (channels == 3) {  // what images have, and a pattern compilers know how to vectorise
    A* __restrict red = planes;
    A* __restrict green = planes + plane_stride;
    A* __restrict blue = planes + 2 * plane_stride;
    for (int64_t i = 0; i < pixels; ++i) {
      red[i] = from[3 * i];
      green[i] = from[3 * i + 1];
      blue[i] = from[3 * i + 2];
    }
    return;
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < pixels; ++i) planes[c * plane_stride + i] = from[i * channels + c];
  }
}

// ---- selection ---------------------------------------------------------------------------------

// One at a time, without a branch: what is left of a vector, and the baseline level.
template <typename A>
GAG_INLINE void bracket_each(const A* values, int64_t length, A low, A high, A* inside,
                             int64_t& found, int64_t& below) {
  for (int64_t i = 0; i < length; ++i) {
    const A v = values[i];
    inside[found] = v;
    found += (v >= low) & (v <= high);
    below += v < low;
  }
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each mask of a vector's values, the 32-bit lanes that bring those it has to the front.
template <int kValues>
struct ToFront {
  uint8_t lane[1 << kValues][8] = {};

  constexpr ToFront() {
    constexpr int kWords = 8 / kValues;  // of a value
    for (int mask = 0; mask < 1 << kValues; ++mask) {
      int to = 0;
      for (int v = 0; v < kValues; ++v) {
        for (int w = 0; w < kWords && (mask >> v & 1); ++w) {
          lane[mask][to++] = static_cast<uint8_t>(v * kWords + w);
        }
      }
    }
  }
};
constexpr ToFront<8> kFloatsToFront;
constexpr ToFront<4> kDoublesToFront;

GAG_INLINE __m256i to_front(__m256i values, const uint8_t* lanes) {
  const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(lanes));
  return _mm256_permutevar8x32_epi32(values, _mm256_cvtepu8_epi32(packed));
}
#endif

template <typename A>
int64_t bracket(const A* values, int64_t length, A low, A high, A* inside, int64_t* below) {
  int64_t found = 0, less = 0, i = 0;
#if defined(__AVX512F__)
  // Compress in a register and store a whole vector: compressing into memory is slow on some CPUs.
  if constexpr (sizeof(A) == 4) {
    const __m512 lows = _mm512_set1_ps(low), highs = _mm512_set1_ps(high);
    for (; i + 16 <= length; i += 16) {
      const __m512 v = _mm512_loadu_ps(values + i);
      const __mmask16 under = _mm512_cmp_ps_mask(v, lows, _CMP_LT_OQ);
      const __mmask16 in =
          _mm512_mask_cmp_ps_mask(static_cast<__mmask16>(~under), v, highs, _CMP_LE_OQ);
      _mm512_storeu_ps(inside + found, _mm512_maskz_compress_ps(in, v));
      found += __builtin_popcount(in);
      less += __builtin_popcount(under);
    }
  } else {
    const __m512d lows = _mm512_set1_pd(low), highs = _mm512_set1_pd(high);
    for (; i + 8 <= length; i += 8) {
      const __m512d v = _mm512_loadu_pd(values + i);
      const __mmask8 under = _mm512_cmp_pd_mask(v, lows, _CMP_LT_OQ);
      const __mmask8 in =
          _mm512_mask_cmp_pd_mask(static_cast<__mmask8>(~under), v, highs, _CMP_LE_OQ);
      _mm512_storeu_pd(inside + found, _mm512_maskz_compress_pd(in, v));
      found += __builtin_popcount(in);
      less += __builtin_popcount(under);
    }
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) {
    const __m256 lows = _mm256_set1_ps(low), highs = _mm256_set1_ps(high);
    for (; i + 8 <= length; i += 8) {
      const __m256 v = _mm256_loadu_ps(values + i);
      const int under = _mm256_movemask_ps(_mm256_cmp_ps(v, lows, _CMP_LT_OQ));
      const int in = ~under & _mm256_movemask_ps(_mm256_cmp_ps(v, highs, _CMP_LE_OQ));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(inside + found),
                          to_front(_mm256_castps_si256(v), kFloatsToFront.lane[in]));
      found += __builtin_popcount(in);
      less += __builtin_popcount(under);
    }
  } else {
    const __m256d lows = _mm256_set1_pd(low), highs = _mm256_set1_pd(high);
    for (; i + 4 <= length; i += 4) {
      const __m256d v = _mm256_loadu_pd(values + i);
      const int under = _mm256_movemask_pd(_mm256_cmp_pd(v, lows, _CMP_LT_OQ));
      const int in = ~under & _mm256_movemask_pd(_mm256_cmp_pd(v, highs, _CMP_LE_OQ));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(inside + found),
                          to_front(_mm256_castpd_si256(v), kDoublesToFront.lane[in]));
      found += __builtin_popcount(in);
      less += __builtin_popcount(under);
    }
  }
#endif
  bracket_each(values + i, length - i, low, high, inside, found, less);
  *below = less;
  return found;
}

// A value's place in ascending order is how many are less: counted, there is no branch that could
// be mispredicted, as there is in sorting.
template <typename A>
void two_of_few(const A* values, int64_t count, int64_t i, int64_t j, A* ith, A* jth) {
  constexpr int kLanes = SimdOf<A>::lanes;
  constexpr int kStep = kUnroll * kLanes;
  typedef decltype(Vec<A>{} < Vec<A>{}) Counts;  // integers as wide as A
  const Counts most_i = Counts{} + static_cast<int>(i), most_j = Counts{} + static_cast<int>(j);
  A padded[kFew];
  for (int64_t k = 0; k < kFew; ++k) padded[k] = k < count ? values[k] : A(__builtin_huge_val());
  // The largest value with at most i less than it is the i-th, also where values are equal.
  Vec<A> largest_i{}, largest_j{};
  for (int64_t at = 0; at < count; at += kStep) {
    Vec<A> x[kUnroll];
    Counts less[kUnroll] = {};
    for (int v = 0; v < kUnroll; ++v) x[v] = load(padded + at + v * kLanes, kWhole);
    for (int64_t k = 0; k < count; ++k) {
      const Vec<A> other = broadcast<A>(padded[k]);
      for (int v = 0; v < kUnroll; ++v) less[v] -= other < x[v];  // true is -1
    }
    for (int v = 0; v < kUnroll; ++v) {
      const Vec<A> low = less[v] <= most_i ? x[v] : Vec<A>{};
      const Vec<A> high = less[v] <= most_j ? x[v] : Vec<A>{};
      largest_i = low > largest_i ? low : largest_i;
      largest_j = high > largest_j ? high : largest_j;
    }
  }
  *ith = *jth = 0;
  for (int l = 0; l < kLanes; ++l) {
    *ith = largest_i[l] > *ith ? largest_i[l] : *ith;
    *jth = largest_j[l] > *jth ? largest_j[l] : *jth;
  }
}

// ---- guide x absmean, channel sum, min-max -----------------------------------------------------

template <bool kVariance, typename A>
GAG_INLINE void blend_run(const A* variance, const A* absmean, int64_t plane_stride,
                          int64_t channels, int64_t length, const A* threshold, A* out, A* low,
                          A* high) {
  constexpr int kLanes = SimdOf<A>::lanes;
  Vec<A> lows = broadcast<A>(*low), highs = broadcast<A>(*high);
  over_run<kLanes>(length, [&]<int kVectors>(int64_t at, int lanes) __attribute__((always_inline)) {
    const auto term = [&](int64_t c, int v) __attribute__((always_inline)) {
      const int64_t i = c * plane_stride + at + v * kLanes;
      const Vec<A> a = load(absmean + i, lanes);
      if constexpr (kVariance) {
        return guided(load(variance + i, lanes), a, broadcast<A>(threshold[c]));
      } else {
        return a;
      }
    };
    Vec<A> sum[kVectors];
    for (int v = 0; v < kVectors; ++v) sum[v] = term(0, v);
    for (int64_t c = 1; c < channels; ++c) {
      for (int v = 0; v < kVectors; ++v) sum[v] = sum[v] + term(c, v);
    }
    for (int v = 0; v < kVectors; ++v) {
      if (lanes != kWhole) {  // lanes beyond the end must not count as zeros
        for (int l = lanes; l < kLanes; ++l) sum[v][l] = sum[v][0];
      }
      lows = sum[v] < lows ? sum[v] : lows;
      highs = sum[v] > highs ? sum[v] : highs;
      store<A>(out + at + v * kLanes, sum[v], lanes);
    }
  });
  for (int l = 0; l < kLanes; ++l) {
    *low = lows[l] < *low ? lows[l] : *low;
    *high = highs[l] > *high ? highs[l] : *high;
  }
}

template <typename A>
void blend(const A* variance, const A* absmean, int64_t plane_stride, int64_t channels,
           int64_t length, const A* threshold, A* out, A* low, A* high) {
  if (variance) {
    blend_run<true, A>(variance, absmean, plane_stride, channels, length, threshold, out, low,
                       high);
  } else {
    blend_run<false, A>(variance, absmean, plane_stride, channels, length, threshold, out, low,
                        high);
  }
}

template <typename A>
void normalise(A* map, int64_t length, A low, A high) {
  constexpr int kLanes = SimdOf<A>::lanes;
  const Vec<A> lows = broadcast<A>(low), range = broadcast<A>(high - low);
  over_run<kLanes>(length, [&]<int kVectors>(int64_t at, int lanes) __attribute__((always_inline)) {
    for (int v = 0; v < kVectors; ++v) {
      A* pixel = map + at + v * kLanes;
      store<A>(pixel, (load<A>(pixel, lanes) - lows) / range, lanes);
    }
  });
}

constexpr AggregateTables kTables = {
    {{summarise<float, float>, summarise<F16, float>, summarise<BF16, float>, nullptr},
     {fold<float, float>, fold<F16, float>, fold<BF16, float>, nullptr},
     finish<float>,
     take_apart<float>,
     bracket<float>,
     two_of_few<float>,
     blend<float>,
     normalise<float>},
    {{nullptr, nullptr, nullptr, summarise<double, double>},
     {nullptr, nullptr, nullptr, fold<double, double>},
     finish<double>,
     take_apart<double>,
     bracket<double>,
     two_of_few<double>,
     blend<double>,
     normalise<double>},
};

}  // namespace
}  // namespace gag_fast

#undef GAG_INLINE
