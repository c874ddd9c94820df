// impute: missing pixels filled in from their neighbours (cpu/impute.h).
#include "cpu/impute.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstring>

#include "checks.h"
#include "cpu/scratch.h"
#include "strided.h"

namespace gag_fast {
namespace {

constexpr float kTolerance = 1e-5f;
constexpr int kRounds = 500;  // seven or eight are used

void check_impute(const Tensor& pixels, const Tensor& missing) {
  const char* op = "impute";
  STD_TORCH_CHECK(pixels.dim() == 3 && pixels.scalar_type() == ScalarType::Float, op,
                  ": pixels must be float32 [C,H,W], got ", pixels.dim(), " dimensions");
  STD_TORCH_CHECK(missing.dim() == 2 && missing.scalar_type() == ScalarType::Bool, op,
                  ": missing must be bool [H,W], got ", missing.dim(), " dimensions");
  for (int64_t d = 0; d < 3; ++d) {
    STD_TORCH_CHECK(pixels.size(d) > 0, op, ": pixels has an empty axis ", d);
  }
  for (int64_t d = 0; d < 2; ++d) {
    STD_TORCH_CHECK(missing.size(d) == pixels.size(d + 1), op, ": axis ", d, " of missing is ",
                    missing.size(d), " long, that of the pixels ", pixels.size(d + 1));
  }
  STD_TORCH_CHECK(pixels.size(1) * pixels.size(2) < (int64_t{1} << 31), op,
                  ": an image may have fewer than 2^31 pixels, got ",
                  pixels.size(1) * pixels.size(2));
}

Tensor impute(const Tensor& pixels, const Tensor& missing) {
  check_impute(pixels, missing);
  const ImputeSize size{pixels.size(0), pixels.size(1), pixels.size(2)};
  Tensor out =
      torch::stable::new_empty(pixels, {size.channels, size.height, size.width}, ScalarType::Float);
  const Tensor dense = contiguous_copy(pixels), holes = contiguous_copy(missing);
  const size_t bytes = sizeof(float) * static_cast<size_t>(impute_memory(size));
  const Scratch scratch(bytes);
  std::memset(scratch.data(), 0, bytes);
  fill_in(dense.const_data_ptr<float>(), static_cast<const uint8_t*>(holes.const_data_ptr()), size,
          kTolerance, kRounds, static_cast<float*>(scratch.data()), out.mutable_data_ptr<float>());
  return out;
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) { m.impl("impute", TORCH_BOX(&gag_fast::impute)); }
