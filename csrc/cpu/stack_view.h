// A gradient stack [B,n,C,H,W] in memory, whatever its strides, read a few pixels of all samples at
// a time. Torch-free. Three ways to read, none of which copies the stack:
//   planar       pixels of a channel, or at least of a row, are neighbours: read in place
//   interleaved  channels_last: read in place, the results (not the stack) are taken apart
//   strided      anything else: a tile of a few samples is gathered into L1
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/aggregate_table.h"

namespace gag_fast {

struct StackView {
  const std::byte* data;
  Source source;
  int element_bytes;
  int64_t B, n, C, H, W;
  int64_t stride_b, stride_n, stride_c, stride_h, stride_w;  // in elements; may be 0 or negative

  int64_t pixels() const { return H * W; }
  const std::byte* at(int64_t b, int64_t offset) const {
    return data + (b * stride_b + offset) * element_bytes;
  }

  // Strides of axes of length 1 mean nothing; give them the values that reading in place wants.
  void canonicalise() {
    if (C == 1) stride_c = H * W;
    if (W == 1) stride_w = H > 1 ? stride_h : (C > 1 && stride_c == 1 ? C : 1);
    if (H == 1) stride_h = W * stride_w;
  }

  bool planar() const { return stride_w == 1; }
  bool interleaved() const { return C > 1 && stride_c == 1 && stride_w == C; }
};

inline constexpr int64_t kTilePixels = 256;
inline constexpr int64_t kTileSamples = 8;

// Cuts the pixels [begin, end) into runs of consecutive memory, `stride_w` apart in the row: calls
// run(first pixel, its offset in a sample and channel, length).
template <typename Run>
void over_rows(const StackView& view, int64_t begin, int64_t end, int64_t row_stride, Run run) {
  if (view.stride_h == row_stride) {  // rows follow each other
    run(begin, begin * view.stride_w, end - begin);
    return;
  }
  for (int64_t pixel = begin; pixel < end;) {
    const int64_t h = pixel / view.W, w = pixel % view.W;
    const int64_t length = std::min(view.W - w, end - pixel);
    run(pixel, h * view.stride_h + w * view.stride_w, length);
    pixel += length;
  }
}

// Gathers `samples` samples of `length` pixels of one channel, kTilePixels apart in `tile`.
template <typename Word>
void gather_tile(const StackView& view, const Word* from, int64_t pixel, int64_t length,
                 int64_t samples, Word* tile) {
  over_rows(view, pixel, pixel + length, view.W * view.stride_w,
            [&](int64_t first, int64_t offset, int64_t count) {
              for (int64_t s = 0; s < samples; ++s) {
                const Word* row = from + s * view.stride_n + offset;
                Word* to = tile + s * kTilePixels + (first - pixel);
                for (int64_t i = 0; i < count; ++i) to[i] = row[i * view.stride_w];
              }
            });
}

// One channel's tile of samples [first, first + samples) of image b.
inline void gather(const StackView& view, int64_t b, int64_t c, int64_t first, int64_t samples,
                   int64_t pixel, int64_t length, void* tile) {
  const std::byte* from = view.at(b, first * view.stride_n + c * view.stride_c);
  switch (view.element_bytes) {
    case 2:
      return gather_tile(view, reinterpret_cast<const uint16_t*>(from), pixel, length, samples,
                         static_cast<uint16_t*>(tile));
    case 4:
      return gather_tile(view, reinterpret_cast<const uint32_t*>(from), pixel, length, samples,
                         static_cast<uint32_t*>(tile));
    default:
      return gather_tile(view, reinterpret_cast<const uint64_t*>(from), pixel, length, samples,
                         static_cast<uint64_t*>(tile));
  }
}

// Calls body(c, pixel, length) for tiles of the pixels [begin, end), channels innermost: those of a
// tile share cache lines when channels are neighbours in memory.
template <typename Body>
void over_tiles(const StackView& view, int64_t begin, int64_t end, Body body) {
  for (int64_t pixel = begin; pixel < end; pixel += kTilePixels) {
    const int64_t length = std::min(kTilePixels, end - pixel);
    for (int64_t c = 0; c < view.C; ++c) body(c, pixel, length);
  }
}

}  // namespace gag_fast
