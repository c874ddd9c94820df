// compose_ on the CPU: threads share blocks of pixels of the masked copies; a block is one
// vectorised select per channel (contiguous) or one in all (channels_last, ranks repeated for each
// channel).
#include "math/compose.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "checks_images.h"
#include "cpu/elementwise.h"
#include "strided.h"

namespace gag_fast {
namespace {

constexpr int64_t kPixels = 1024;  // of a block

void check_slots(const Slot* slots, int64_t N, int64_t pixels, int64_t maps, int64_t sources) {
  for (int64_t n = 0; n < N; ++n) {
    const Slot& s = slots[n];
    STD_TORCH_CHECK(valid(s, pixels, maps, sources), "compose_: slot ", n, " is (map ", s.map,
                    ", count ", s.count, ", top ", s.top, ", rest ", s.rest, ") with ", maps,
                    " maps and ", sources, " sources");
  }
}

void copy_run(const ElementwiseKernels&, const float* from, int64_t n, float* to) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}
void copy_run(const ElementwiseKernels& kernels, const float* from, int64_t n, uint16_t* to) {
  kernels.convert_f16(from, n, to);
}
auto select_of(const ElementwiseKernels& kernels, float*) { return kernels.select_f32; }
auto select_of(const ElementwiseKernels& kernels, uint16_t*) { return kernels.select_f16; }

// Each rank `channels` times over.
void repeat(const int32_t* ranks, int64_t n, int64_t channels, int32_t* out) {
  if (channels == 3) {
    for (int64_t i = 0; i < n; ++i) out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = ranks[i];
    return;
  }
  for (int64_t i = 0; i < n; ++i) std::fill(out + i * channels, out + (i + 1) * channels, ranks[i]);
}

// A batch seen as `planes` planes of `pixels` x `width` elements: C planes of width 1 when
// contiguous, one of width C when channels_last.
struct Layout {
  int64_t planes, pixels, width;
  int64_t image() const { return planes * pixels * width; }
};

// One block of every plane of a constant image.
std::vector<float> constant_block(const float* fill, const Layout& layout) {
  std::vector<float> block(layout.planes * kPixels * layout.width);
  for (size_t i = 0; i < block.size(); ++i) {
    block[i] = layout.planes > 1 ? fill[i / kPixels] : fill[i % layout.width];
  }
  return block;
}

template <typename T>
void compose(T* out, const float* sources, const float* fill, const int32_t* ranks,
             const Slot* slots, int64_t N, const Layout& layout) {
  const ElementwiseKernels& kernels = elementwise_kernels();
  const auto select = select_of(kernels, out);
  const std::vector<float> constant = constant_block(fill, layout);
  const int64_t blocks = (layout.pixels + kPixels - 1) / kPixels;
  torch::stable::parallel_for(0, N * blocks, 16, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> repeated(layout.width > 1 ? kPixels * layout.width : 0);
    for (int64_t task = begin; task < end; ++task) {
      const Slot& slot = slots[task / blocks];
      const int64_t first = task % blocks * kPixels;
      const int64_t n = std::min(kPixels, layout.pixels - first);
      const bool mixed = needs_ranks(slot, layout.pixels);
      const int32_t* rank = mixed ? ranks + slot.map * layout.pixels + first : nullptr;
      if (mixed && layout.width > 1) {
        repeat(rank, n, layout.width, repeated.data());
        rank = repeated.data();
      }
      for (int64_t plane = 0; plane < layout.planes; ++plane) {
        const int64_t at = (plane * layout.pixels + first) * layout.width;
        const auto run = [&](int32_t source) {
          return source < 0 ? constant.data() + plane * kPixels * layout.width
                            : sources + source * layout.image() + at;
        };
        T* to = out + task / blocks * layout.image() + at;
        if (mixed) {
          select(run(slot.top), run(slot.rest), rank, slot.count, n * layout.width, to);
        } else {
          copy_run(kernels, run(slot.count > 0 ? slot.top : slot.rest), n * layout.width, to);
        }
      }
    }
  });
}

void compose_(Tensor out, const Tensor& sources, const Tensor& fill, const Tensor& ranks,
              const Tensor& slots) {
  const bool last = prefers_channels_last(out);
  check_compose(out, sources, fill, ranks, slots, last || out.is_contiguous());
  const int64_t N = out.size(0), C = out.size(1), pixels = out.size(2) * out.size(3);
  static_assert(sizeof(Slot) == 4 * sizeof(int32_t));
  const Slot* slot = reinterpret_cast<const Slot*>(slots.const_data_ptr<int32_t>());
  check_slots(slot, N, pixels, ranks.size(0), sources.size(0));
  const Layout layout = last ? Layout{1, pixels, C} : Layout{C, pixels, 1};
  const Tensor dense = in_format(sources, last);
  const float* source = dense.const_data_ptr<float>();
  const float* colour = fill.const_data_ptr<float>();
  const int32_t* rank = ranks.const_data_ptr<int32_t>();
  if (out.scalar_type() == ScalarType::Float) {
    compose(out.mutable_data_ptr<float>(), source, colour, rank, slot, N, layout);
  } else {
    compose(static_cast<uint16_t*>(out.mutable_data_ptr()), source, colour, rank, slot, N, layout);
  }
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CPU, m) { m.impl("compose_", TORCH_BOX(&gag_fast::compose_)); }
