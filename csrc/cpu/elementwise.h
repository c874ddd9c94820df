// The inner loops of the element-wise operators, compiled once per instruction set (cpu/simd.h).
// Raw pointers and counts only.
#pragma once

#include <cstdint>

namespace gag_fast {

// Which normals: Philox counter and key but for the element.
struct NoiseStream {
  uint64_t seed;
  uint64_t key;
  uint32_t sample;
};

struct ElementwiseKernels {
  // out[i] = image[i] + std * normal(stream, first + i) for i < n; `first` is a multiple of 4.
  void (*noise_f32)(const float* image, float std, NoiseStream stream, int64_t first, int64_t n,
                    float* out);
  void (*noise_f64)(const double* image, float std, NoiseStream stream, int64_t first, int64_t n,
                    double* out);

  // The same for pixels first .. first + n of a channels_last image of `pixels` pixels:
  // out[i*channels + c] = image[i*channels + c] + std * normal(stream, c*pixels + first + i).
  void (*noise_last_f32)(const float* image, float std, NoiseStream stream, int64_t channels,
                         int64_t pixels, int64_t first, int64_t n, float* out);
  void (*noise_last_f64)(const double* image, float std, NoiseStream stream, int64_t channels,
                         int64_t pixels, int64_t first, int64_t n, double* out);

  // Sum of the hashes of n elements, `stride` elements apart, whose logical indexes count up from
  // `index`.
  uint64_t (*hash_f32)(const float* values, int64_t stride, uint32_t index, int64_t n);
  uint64_t (*hash_f64)(const double* values, int64_t stride, uint32_t index, int64_t n);

  // out[i] = ranks[i] < count ? top[i] : rest[i]; float16 as its bits.
  void (*select_f32)(const float* top, const float* rest, const int32_t* ranks, int32_t count,
                     int64_t n, float* out);
  void (*select_f16)(const float* top, const float* rest, const int32_t* ranks, int32_t count,
                     int64_t n, uint16_t* out);
  // out[i] = values[i], rounded to float16.
  void (*convert_f16)(const float* values, int64_t n, uint16_t* out);
};

extern const ElementwiseKernels elementwise_baseline;
#if defined(__x86_64__)
extern const ElementwiseKernels elementwise_avx2;
extern const ElementwiseKernels elementwise_avx512;
#endif

// Those for simd_level().
const ElementwiseKernels& elementwise_kernels();

}  // namespace gag_fast
