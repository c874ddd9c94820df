#include "cpu/simd.h"

#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <string>

namespace gag_fast {
namespace {

Simd widest() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return Simd::kAvx512;
  if (avx2) return Simd::kAvx2;
#endif
  return Simd::kBaseline;
}

const char* name(Simd level) {
  return level == Simd::kAvx512 ? "avx512" : level == Simd::kAvx2 ? "avx2" : "baseline";
}

Simd chosen() {
  const Simd best = widest();
  const char* text = std::getenv("GAG_FAST_SIMD");
  const std::string asked = text ? text : "";
  if (asked.empty()) return best;
  for (const Simd level : {Simd::kBaseline, Simd::kAvx2, Simd::kAvx512}) {
    if (asked != name(level)) continue;
    STD_TORCH_CHECK(level <= best, "GAG_FAST_SIMD=", asked, ", but this CPU has no more than ",
                    name(best));
    return level;
  }
  STD_TORCH_CHECK(false, "GAG_FAST_SIMD must be baseline, avx2 or avx512, got '", asked, "'");
  return best;
}

}  // namespace

Simd simd_level() {
  static const Simd level = chosen();
  return level;
}

}  // namespace gag_fast
