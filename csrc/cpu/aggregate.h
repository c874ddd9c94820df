// From a stack to statistics, pixel range by pixel range: what guided_absgrad and gradient_stats_
// share. Torch-free.
#pragma once

#include <cstdint>

#include "cpu/aggregate_table.h"
#include "cpu/stack_view.h"

namespace gag_fast {

// Variance (unless nullptr) and absmean of the pixels [begin, end) of all channels of image b, into
// planar [C, H*W]. taint[c] |= Taint bits. inverse[i] = 1 / (i + 1), n entries.
template <typename A>
void summarise_pixels(const StackView& view, int64_t b, int64_t begin, int64_t end,
                      const A* inverse, A* variance, A* absmean, unsigned* taint);

// Folds the view's samples into image b's state (planar [C, H*W]) for the pixels [begin, end).
// inverse[i] = 1 / (count + i + 1), n entries.
template <typename A>
void fold_pixels(const StackView& view, int64_t b, int64_t begin, int64_t end, int64_t count,
                 const A* inverse, StatePointers<A> state);

}  // namespace gag_fast
