// The gradient stack as the CUDA kernels read it: where its elements lie, and how a thread takes
// several of them with one 16-byte load. Torch-free.
#pragma once

#include <cstdint>

#include "cuda/block.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#else
#include <stdexcept>
#endif

namespace gag_fast::cuda {

// ---- element types, as their bits --------------------------------------------------------------

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename S>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename S>
using Accumulator = typename AccumulatorOf<S>::type;

GAG_BODY float widen(float x) { return x; }
GAG_BODY double widen(double x) { return x; }
GAG_BODY float widen(BFloat16 x) { return from_key<float>(static_cast<uint32_t>(x.bits) << 16); }
GAG_BODY float widen(Float16 x) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(x.bits));
#else
  // Exponent and mantissa into their float32 places, then 2^112 for the difference of the biases,
  // which is exact for subnormal numbers too; infinity and NaN have the top exponent in both.
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  if (rest >= 0x0f800000u) return from_key<float>(sign | 0x7f800000u | (rest & 0x007fffffu));
  const float value = from_key<float>(rest) * 0x1.0p112f;
  return sign ? -value : value;
#endif
}

// ---- several neighbours at once ----------------------------------------------------------------

template <typename T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

template <typename T, int kLanes>
struct alignas(kLanes == 1 ? sizeof(T) : 16) Lanes {
  T lane[kLanes];
};

// Lane l in the accumulator's type.
template <int kLanes, typename T>
GAG_BODY Accumulator<T> widen_lane(const Lanes<T, kLanes>& values, int l) {
  return widen(values.lane[l]);
}
// Two bfloat16 at a time: each is half of a word, and one instruction away from its float32.
template <int kLanes>
GAG_BODY float widen_lane(const Lanes<BFloat16, kLanes>& values, int l) {
  if constexpr (kLanes == 1) {
    return widen(values.lane[0]);
  } else {
    uint32_t word;
    __builtin_memcpy(&word, &values.lane[l & ~1], sizeof word);
    return from_key<float>(l & 1 ? word & 0xffff0000u : word << 16);
  }
}

#if !defined(__CUDACC__)
// What on a GPU is a fault that ends the process' use of it.
template <int kLanes>
void check_alignment(const void* address) {
  if (kLanes > 1 && reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    throw std::logic_error("16-byte access at an address that is not a multiple of 16");
  }
}
#endif

// Consecutive elements in 16-byte pieces (the address is then a multiple of 16) or one element.
// `kStream`: nothing will read them again, so they should not push other data out of the L2 cache.
template <bool kStream, int kLanes, typename P>
GAG_BODY Lanes<Pointed<P>, kLanes> load_lanes(P from) {
  Lanes<Pointed<P>, kLanes> out;
#if defined(__CUDACC__)
  if constexpr (kLanes == 1) {
    out.lane[0] = *from;
  } else {
    static_assert(sizeof out % 16 == 0);
    GAG_UNROLL
    for (int i = 0; i < static_cast<int>(sizeof out) / 16; ++i) {
      const uint4* piece = reinterpret_cast<const uint4*>(from) + i;
      reinterpret_cast<uint4*>(&out)[i] = kStream ? __ldcs(piece) : *piece;
    }
  }
#else
  check_alignment<kLanes>(address_of(from));
  for (int i = 0; i < kLanes; ++i) out.lane[i] = from[i];
#endif
  return out;
}

// What another block of the same launch may have stored, of a pointer to floating-point numbers.
template <int kLanes, typename Block, typename P>
GAG_BODY Lanes<Pointed<P>, kLanes> fresh_lanes(Block& block, P from) {
  Lanes<Pointed<P>, kLanes> out;
#if defined(__CUDACC__)
  if constexpr (kLanes == 1) {
    out.lane[0] = block.fresh(from);
  } else {
    GAG_UNROLL
    for (int i = 0; i < static_cast<int>(sizeof out) / 16; ++i) {
      reinterpret_cast<uint4*>(&out)[i] = __ldcg(reinterpret_cast<const uint4*>(from) + i);
    }
  }
#else
  check_alignment<kLanes>(address_of(from));
  for (int i = 0; i < kLanes; ++i) out.lane[i] = block.fresh(from + i);
#endif
  return out;
}

// How a kernel reads what others left it. Launches of their own are over before it starts; stages of
// one launch (pipeline.h) have stored it a moment ago, on another multiprocessor.
template <bool kFresh, typename Block, typename P>
GAG_BODY Pointed<P> read_one(Block& block, P from) {
  if constexpr (kFresh) return block.fresh(from);
  return from[0];
}
template <bool kFresh, int kLanes, typename Block, typename P>
GAG_BODY Lanes<Pointed<P>, kLanes> read_lanes(Block& block, P from) {
  if constexpr (kFresh) return fresh_lanes<kLanes>(block, from);
  return load_lanes<true, kLanes>(from);
}

// `kStream`: as above, what is stored here should not push other data out.
template <bool kStream, int kLanes, typename T>
GAG_BODY void store_lanes(Global<T> to, const Lanes<T, kLanes>& values) {
#if defined(__CUDACC__)
  if constexpr (kLanes == 1) {
    *to = values.lane[0];
  } else {
    // The intrinsic, for the compiler takes a plain store apart into words.
    GAG_UNROLL
    for (int i = 0; i < static_cast<int>(sizeof values) / 16; ++i) {
      uint4* const piece = reinterpret_cast<uint4*>(to) + i;
      const uint4 bits = reinterpret_cast<const uint4*>(&values)[i];
      kStream ? __stcs(piece, bits) : __stcg(piece, bits);
    }
  }
#else
  check_alignment<kLanes>(address_of(to));
  for (int i = 0; i < kLanes; ++i) to[i] = values.lane[i];
#endif
}

// ---- where the elements lie --------------------------------------------------------------------

// [B,n,C,H,W] with any strides (in elements).
template <typename S>
struct Stack {
  const S* data;
  int64_t images, samples, channels, height, width;
  int64_t image_stride, sample_stride, channel_stride, row_stride, column_stride;
};

// How the threads share the elements of one sample of one image.
//   kPlanes       each channel is dense (NCHW): a thread owns consecutive pixels of one channel
//   kInterleaved  channels innermost (channels_last): a thread owns consecutive elements, that is
//                 several channels of one or two pixels; for up to kMostInterleaved channels
//   kScattered    anything else, or dense but not in multiples of 16 bytes: one element per thread
enum class Layout { kPlanes, kInterleaved, kScattered };

inline constexpr int kMostInterleaved = 5;  // channels whose histograms fit 40 KB of shared memory

template <typename S, Layout kLayout>
inline constexpr int kLanesOf = kLayout == Layout::kScattered ? 1 : kWide<S>;

template <typename S>
Layout layout_of(const Stack<S>& s) {
  // The stride of an axis of size 1 is never walked, whatever it says.
  const auto is = [](int64_t size, int64_t stride, int64_t wanted) {
    return size == 1 || stride == wanted;
  };
  const auto wide = [](int64_t size, int64_t stride) {
    return size == 1 || stride % kWide<S> == 0;
  };
  const int64_t pixels = s.height * s.width;
  if (reinterpret_cast<uintptr_t>(s.data) % 16 != 0 || !wide(s.images, s.image_stride) ||
      !wide(s.samples, s.sample_stride)) {
    return Layout::kScattered;
  }
  if (is(s.width, s.column_stride, 1) && is(s.height, s.row_stride, s.width) &&
      wide(s.channels, s.channel_stride) && pixels % kWide<S> == 0) {
    return Layout::kPlanes;
  }
  if (s.channels <= kMostInterleaved && is(s.channels, s.channel_stride, 1) &&
      is(s.width, s.column_stride, s.channels) &&
      is(s.height, s.row_stride, s.channels * s.width) && pixels * s.channels % kWide<S> == 0) {
    return Layout::kInterleaved;
  }
  return Layout::kScattered;
}

}  // namespace gag_fast::cuda
