// Standard normals from random integers (Box-Muller), in float32 with operations that IEEE 754
// defines to the bit: + - * sqrt, conversions from integers, selects. No libm, no contraction: the
// same bits from every compiler, SIMD level and device. Torch-free, host and device.
//
//   z0 = r cos(a), z1 = r sin(a), r = sqrt(-2 ln u), u in (0, 1) of 31 bits, a of 32 bits
//
// The integers are never squeezed into one float first, which would cost the digits of ln u near
// u = 1 and the tail: the two ends of u are measured from their own end. |z| reaches 6.66; the
// error against the same formula in float64 stays below 1e-6 (tests/ops/test_noise.py).
//
// The polynomials are minimax fits, those of S. L. Moshier's Cephes library (logf, sinf, cosf).
#pragma once

#include <cstdint>

#include "math/host_device.h"
#include "math/philox.h"

namespace gag_fast {

// IEEE square root of v in [2^-32, 64], correctly rounded, whatever the compiler's flags say.
GAG_HD float exact_sqrt(float v) {
#if defined(__CUDA_ARCH__)
  // What __fsqrt_rn does from 2^-101 on, without its branch for what is smaller or infinite.
  float inverse;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(v));
  const float root = __fmul_rn(v, inverse);
  return __fmaf_rn(__fmaf_rn(-root, root, v), __fmul_rn(inverse, 0.5f), root);
#else
  return __builtin_sqrtf(v);
#endif
}

// ln(1 + r) for r in [sqrt(1/2) - 1, sqrt(2) - 1], without the leading r.
GAG_HD float log1p_tail(float r) {
  const float z = r * r;
  float y = 7.0376836292e-2f;
  y = y * r - 1.1514610310e-1f;
  y = y * r + 1.1676998740e-1f;
  y = y * r - 1.2420140846e-1f;
  y = y * r + 1.4249322787e-1f;
  y = y * r - 1.6668057665e-1f;
  y = y * r + 2.0000714765e-1f;
  y = y * r - 2.4999993993e-1f;
  y = y * r + 3.3333331174e-1f;
  return y * r * z - 0.5f * z;
}

// sqrt(-2 ln u), u = ((x >> 1) + 1/2) / 2^31.
GAG_HD float radius(uint32_t x) {
  const uint32_t k = x >> 1;
  // u >= sqrt(1/2): ln u = ln(1 - v), where v = 1 - u = ((2^31 - 1 - k) + 1/2) / 2^31 is small and
  // therefore accurate.
  const bool upper = k >= 0x5A82799Au;
  const uint32_t from_end = upper ? 0x7FFFFFFFu - k : k;
  const float f = (static_cast<float>(static_cast<int32_t>(from_end)) + 0.5f) * 4.656612873e-10f;
  // u < sqrt(1/2): u = 2^e m with m in [sqrt(1/2), sqrt(2)). 0x3F3504F3 is sqrt(1/2).
  const uint32_t offset = bits_of(f) - 0x3F3504F3u;
  const int32_t e = static_cast<int32_t>(offset) >> 23;
  const float m = float_of((offset & 0x007FFFFFu) + 0x3F3504F3u);
  const float r = upper ? -f : m - 1.0f;
  const float exponent = static_cast<float>(upper ? 0 : e);
  // e ln 2 in two parts, the first exact.
  float y = log1p_tail(r) + exponent * -2.12194440e-4f;
  y = (r + y) + exponent * 0.693359375f;
  return exact_sqrt(-2.0f * y);
}

// cos and sin of a = 2 pi x / 2^32: the nearest quarter turn is taken off in integers, exactly.
GAG_HD void sincos_turn(uint32_t x, float& cosine, float& sine) {
  const uint32_t turn = x + 0x20000000u;  // its upper two bits: the nearest quarter, 4 being 0
  const int32_t rest = static_cast<int32_t>(x - (turn & 0xC0000000u));
  const float a = static_cast<float>(rest) * 1.462918079e-9f;  // (pi / 2) / 2^30
  const float z = a * a;
  float s = -1.9515295891e-4f;
  s = s * z + 8.3321608736e-3f;
  s = s * z - 1.6666654611e-1f;
  s = s * z * a + a;
  float c = 2.443315711809948e-5f;
  c = c * z - 1.388731625493765e-3f;
  c = c * z + 4.166664568298827e-2f;
  c = c * z * z - 0.5f * z + 1.0f;
  const bool swap = (turn & 0x40000000u) != 0;
  const uint32_t cosine_sign = (turn + 0x40000000u) & 0x80000000u;
  const uint32_t sine_sign = turn & 0x80000000u;
  cosine = float_of(bits_of(swap ? s : c) ^ cosine_sign);
  sine = float_of(bits_of(swap ? c : s) ^ sine_sign);
}

struct Normal4 {
  float z[4];
};

// The standard normals of elements 4 quad .. 4 quad + 3 of (seed, key, sample).
GAG_HD Normal4 normal4(uint64_t seed, uint64_t key, uint32_t sample, uint32_t quad) {
  const Philox4 u =
      philox4x32_10(quad, sample, static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32),
                    static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  Normal4 n;
  for (int pair = 0; pair < 2; ++pair) {
    const float r = radius(u.x[2 * pair]);
    float c, s;
    sincos_turn(u.x[2 * pair + 1], c, s);
    n.z[2 * pair] = r * c;
    n.z[2 * pair + 1] = r * s;
  }
  return n;
}

}  // namespace gag_fast
