// What every backend of an operator checks before it touches memory. The public Python functions
// have already refused bad input with a clear word; these are the last line, for direct callers.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "math/welford.h"

namespace gag_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_accumulator(ScalarType t) {
  return t == ScalarType::Float || t == ScalarType::Double;
}

inline bool is_gradient(ScalarType t) {
  return is_accumulator(t) || t == ScalarType::Half || t == ScalarType::BFloat16;
}

// float64 accumulates in float64, everything else in float32.
inline ScalarType accumulator_of(ScalarType t) {
  return t == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_stack(const Tensor& grads, const char* op) {
  STD_TORCH_CHECK(grads.dim() == 5, op, ": grads must be [B,n,C,H,W], got ", grads.dim(),
                  " dimensions");
  STD_TORCH_CHECK(is_gradient(grads.scalar_type()), op,
                  ": grads must be float32, float64, float16 or bfloat16");
  for (int64_t d = 0; d < 5; ++d) {
    STD_TORCH_CHECK(grads.size(d) > 0, op, ": grads has an empty axis ", d);
  }
}

inline void check_percents(const std::vector<double>& p, int64_t count, const char* op) {
  STD_TORCH_CHECK(!p.empty(), op, ": p must hold at least one percent");
  for (const double value : p) {
    STD_TORCH_CHECK(value >= 0.0 && value <= 100.0, op, ": p must lie in [0, 100], got ", value);
    STD_TORCH_CHECK(count >= 2 || value == 0.0, op,
                    ": a variance needs n >= 2 gradients, got n = ", count, " with p = ", value);
  }
}

inline void check_state(const Tensor& t, const Tensor& like, const char* name, const char* op) {
  STD_TORCH_CHECK(t.dim() == 4 && t.is_contiguous(), op, ": ", name,
                  " must be a contiguous [B,C,H,W] tensor");
  STD_TORCH_CHECK(t.scalar_type() == like.scalar_type() && is_accumulator(t.scalar_type()), op,
                  ": ", name, " must be float32 or float64, all state tensors alike");
  for (int64_t d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(t.size(d) == like.size(d), op, ": ", name, " differs in size along axis ", d);
  }
}

// guided_absgrad_from_stats.
inline void check_statistics(const Tensor& m2, const Tensor& abssum, int64_t count,
                             const std::vector<double>& p, const char* op) {
  check_state(m2, m2, "m2", op);
  check_state(abssum, m2, "abssum", op);
  STD_TORCH_CHECK(count >= 1, op, ": count must be at least 1, got ", count);
  STD_TORCH_CHECK(m2.numel() > 0, op, ": m2 has an empty axis");
  check_percents(p, count, op);
}

// gradient_stats_.
inline void check_gradient_stats(const Tensor& shift, const Tensor& mean, const Tensor& m2,
                                 const Tensor& abssum, const Tensor& grads, int64_t count,
                                 const std::optional<Tensor>& settled, const char* op) {
  check_stack(grads, op);
  STD_TORCH_CHECK(count >= 0, op, ": count must not be negative, got ", count);
  check_state(shift, shift, "shift", op);
  check_state(mean, shift, "mean", op);
  check_state(m2, shift, "m2", op);
  check_state(abssum, shift, "abssum", op);
  STD_TORCH_CHECK(shift.scalar_type() == accumulator_of(grads.scalar_type()), op,
                  ": the state must be float64 for float64 gradients and float32 for others");
  const int64_t axes[] = {0, 2, 3, 4};
  for (int64_t d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(shift.size(d) == grads.size(axes[d]), op, ": axis ", d, " of the state is ",
                    shift.size(d), " long, that of the gradients ", grads.size(axes[d]));
  }
  if (!settled) {
    STD_TORCH_CHECK(count + grads.size(1) <= kRun, op, ": more than ", kRun,
                    " samples need `settled`, got ", count, " + ", grads.size(1));
    return;
  }
  STD_TORCH_CHECK(settled->dim() == 5 && settled->size(0) == 2 && settled->is_contiguous() &&
                      settled->scalar_type() == shift.scalar_type(),
                  op, ": settled must be contiguous [2,B,C,H,W] in the dtype of the state, got ",
                  settled->dim(), " dimensions");
  for (int64_t d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(settled->size(d + 1) == shift.size(d), op, ": settled differs in size along ",
                    "axis ", d, " of the state");
  }
}

}  // namespace gag_fast
