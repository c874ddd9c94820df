// What lets the headers of this folder be compiled for the host and for a GPU: the function
// attribute and the bits of a float. Torch-free.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GAG_HD __host__ __device__ __forceinline__
#else
#define GAG_HD inline __attribute__((always_inline))
#endif

#if defined(__CUDA_ARCH__)
#define GAG_LOOP _Pragma("unroll 1")  // a loop that stays one
#else
#define GAG_LOOP
#endif

namespace gag_fast {

GAG_HD uint32_t bits_of(float v) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(v);
#else
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
#endif
}

GAG_HD uint64_t bits_of(double v) {
#if defined(__CUDA_ARCH__)
  return static_cast<uint64_t>(__double_as_longlong(v));
#else
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
#endif
}

GAG_HD float float_of(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
#endif
}

}  // namespace gag_fast
