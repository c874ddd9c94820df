// Which of the compiled variants of a CPU kernel runs. A kernel's source is included by up to three
// translation units, <kernels>_baseline.cpp, <kernels>_avx2.cpp and <kernels>_avx512.cpp, which
// CMake compiles for their instruction set; the operator picks one of the three at run time.
//
// Two rules for those files, or a machine without AVX-512 may be handed AVX-512 code:
//   - no torch headers and no standard-library templates in them: the linker keeps one copy of an
//     inline function, and it may be the one compiled for the wider instruction set;
//   - everything they define sits in an anonymous namespace or is always inlined, except the one
//     entry point per file, whose name tells the level.
// The variants differ in speed alone: contraction is off, so every level gives the same bits.
#pragma once

namespace gag_fast {

enum class Simd { kBaseline, kAvx2, kAvx512 };

// The widest level this CPU and this build have; GAG_FAST_SIMD=baseline|avx2|avx512, read once per
// process, forces one and is an error where the CPU does not have it.
Simd simd_level();

// The variant of `level` among the three; those that are not compiled (other processors) are null.
template <typename Kernel>
Kernel choose(Simd level, Kernel baseline, Kernel avx2, Kernel avx512) {
  if (level == Simd::kAvx512 && avx512) return avx512;
  if (level != Simd::kBaseline && avx2) return avx2;
  return baseline;
}

}  // namespace gag_fast
