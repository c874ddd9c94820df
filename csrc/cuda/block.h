// How the kernels of this folder are written, so that a machine without a GPU can run them.
//
// A kernel is a functor: its members are the launch parameters, `operator()(Block&)` is the body. A
// body is a sequence of phases; a phase is a function of the thread index over shared memory that
// the block hands out, and a barrier ends it:
//
//   block.phase([&](int t) { sums[t] = ...; });                 // all threads, then a barrier
//   block.last_phase([&](int t) { if (t == 0) *out = sums[0]; });  // all threads, no barrier
//
// Nothing lives across phases in a thread's own variables: what one phase leaves to the next is in
// shared or global memory. Control flow between phases is the same for the whole block, so it
// depends on launch parameters, on block.index(), on what `arrive` returned or on global memory
// that nobody changes any more.
//
// This file holds the block of a GPU, where a phase is the thread's own code and __syncthreads().
// emulation/block.h holds the block of the tests, where a phase is a loop over all threads, in any
// order, that also watches for two threads touching one address without a barrier between them. The
// bodies are the same source.
//
// What a body may ask of its block:
//   index()             which block of the launch this is (blockIdx.x)
//   shared<T>(offset)   T[] at a byte offset of the block's shared memory
//   atomic_add, atomic_or, atomic_max(pointer, value)
//                       on shared or global memory; atomic_add returns the old value
//   fresh(pointer)      loads global memory that another block may have written, past the L1 cache
//   wait(pointer, value)  returns once atomic_add has brought the counter to `value`
//   fence()             what the thread, and before the last barrier the block, has stored is seen
//                       by whoever sees what the thread stores or updates afterwards; and the
//                       reverse
//
// Global memory that a launch writes is reached through Global<T>, a plain pointer on a GPU.
#pragma once

#include <cstdint>
#include <type_traits>

#if !defined(__CUDACC__)
#include "cuda/emulation/global.h"
#endif

#if defined(__CUDACC__)
#define GAG_BODY __device__ __forceinline__
#define GAG_UNROLL _Pragma("unroll")
#define GAG_UNROLL_NEVER _Pragma("unroll 1")
#else
#define GAG_BODY inline
#define GAG_UNROLL
#define GAG_UNROLL_NEVER
#endif

namespace gag_fast::cuda {

#if defined(__CUDACC__)
template <typename T>
using Global = T*;
#endif

// The type of what a pointer or a Global points to, without const.
template <typename P>
struct PointedBy;
template <typename T>
struct PointedBy<T*> {
  using type = std::remove_const_t<T>;
};
#if !defined(__CUDACC__)
template <typename T>
struct PointedBy<Global<T>> {
  using type = std::remove_const_t<T>;
};
#endif
template <typename P>
using Pointed = typename PointedBy<P>::type;

template <typename T>
const void* address_of(T* p) {
  return p;
}
#if !defined(__CUDACC__)
template <typename T>
const void* address_of(const Global<T>& p) {
  return p.raw();
}
#endif

template <typename P>
bool on_16_bytes(const P& p) {
  return reinterpret_cast<uintptr_t>(address_of(p)) % 16 == 0;
}

// Every GPU gives a block this many bytes of shared memory without being asked.
inline constexpr int kMostShared = 48 * 1024;

template <typename T>
struct KeyOf;
template <>
struct KeyOf<float> {
  using type = uint32_t;
  static constexpr int bits = 31;  // the sign of a value >= 0 says nothing
};
template <>
struct KeyOf<double> {
  using type = uint64_t;
  static constexpr int bits = 63;
};
template <typename T>
using Key = typename KeyOf<T>::type;

// Inverse of order_key (math/percentile.h).
template <typename T>
GAG_BODY T from_key(Key<T> key) {
  T value;
  static_assert(sizeof value == sizeof key);
  __builtin_memcpy(&value, &key, sizeof value);
  return value;
}

#if defined(__CUDACC__)

class GpuBlock {
 public:
  GAG_BODY uint32_t index() const { return blockIdx.x; }

  template <typename F>
  GAG_BODY void phase(F body) {
    body(static_cast<int>(threadIdx.x));
    __syncthreads();
  }

  template <typename F>
  GAG_BODY void last_phase(F body) {
    body(static_cast<int>(threadIdx.x));
  }

  template <typename T>
  GAG_BODY T* shared(int offset) const {
    extern __shared__ __align__(16) unsigned char gag_shared_memory[];
    return reinterpret_cast<T*>(gag_shared_memory + offset);
  }

  GAG_BODY uint32_t atomic_add(uint32_t* p, uint32_t value) const { return atomicAdd(p, value); }
  GAG_BODY void atomic_or(uint32_t* p, uint32_t value) const { atomicOr(p, value); }
  GAG_BODY void atomic_max(uint32_t* p, uint32_t value) const { atomicMax(p, value); }
  GAG_BODY void atomic_max(uint64_t* p, uint64_t value) const {
    atomicMax(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(value));
  }

  GAG_BODY uint32_t fresh(const uint32_t* p) const { return __ldcg(p); }
  GAG_BODY uint64_t fresh(const uint64_t* p) const {
    return __ldcg(reinterpret_cast<const unsigned long long*>(p));
  }

  GAG_BODY float fresh(const float* p) const { return __ldcg(p); }
  GAG_BODY double fresh(const double* p) const { return __ldcg(p); }

  GAG_BODY void wait(const uint32_t* p, uint32_t value) const {
    for (;;) {
      uint32_t now;
      asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(p) : "memory");
      if (now >= value) return;
      __nanosleep(200);
    }
  }

  GAG_BODY void fence() const { __threadfence(); }
};

// One instantiation per kernel functor.
template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocksPerMultiprocessor)
    run_kernel(const __grid_constant__ Kernel kernel) {
  GpuBlock block;
  kernel(block);
}

#endif

// Called by all `blocks` blocks of a group, each after a phase: publishes what the block wrote and
// counts it. True in the last block to come, which from then on sees what all the others published.
// `answer` is the place of 4 bytes of shared memory.
template <typename Block>
GAG_BODY bool arrive(Block& block, Global<uint32_t> counter, uint32_t blocks, int answer) {
  auto is_last = block.template shared<uint32_t>(answer);
  block.phase([&](int t) {
    if (t > 0) return;
    block.fence();
    is_last[0] = block.atomic_add(counter, 1u) == blocks - 1;
    block.fence();
  });
  return is_last[0] != 0;
}

}  // namespace gag_fast::cuda
