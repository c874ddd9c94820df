// compose_ on CUDA: one thread per four neighbours in memory, or per four pixels of a channels_last
// image. Ranks and sources are small beside the masked copies and stay in the second-level cache, so
// the traffic is one write of the output.
//
// The slots are on the device: their indexes are checked before the upload (gag_fast/perturb/);
// checking here would synchronise. A slot out of range gives a copy of NaN.
#include <torch/csrc/stable/library.h>

#include "checks_images.h"
#include "cuda/launch.h"
#include "math/items.h"
#include "strided.h"

namespace gag_fast {
namespace {

template <typename T>
void launch(const CudaScope& scope, Tensor& out, bool last, const Tensor& sources,
            const Tensor& fill, const Tensor& ranks, const Tensor& slots) {
  ComposeItem<T> body{sources.const_data_ptr<float>(),
                      fill.const_data_ptr<float>(),
                      ranks.const_data_ptr<int32_t>(),
                      reinterpret_cast<const Slot*>(slots.const_data_ptr<int32_t>()),
                      static_cast<T*>(out.mutable_data_ptr()),
                      sources.size(0),
                      ranks.size(0),
                      static_cast<uint32_t>(out.size(1)),
                      static_cast<uint32_t>(out.size(2) * out.size(3)),
                      last,
                      false};
  body.quads = body.may_use_quads();
  launch_items(scope, body, out.size(0), body.items());
}

void compose_(Tensor out, const Tensor& sources, const Tensor& fill, const Tensor& ranks,
              const Tensor& slots) {
  const bool last = prefers_channels_last(out);
  check_compose(out, sources, fill, ranks, slots, last || out.is_contiguous());
  const CudaScope scope(out, "compose_");
  scope.check_device(sources, "sources");
  scope.check_device(fill, "fill");
  scope.check_device(ranks, "ranks");
  scope.check_device(slots, "slots");
  const Tensor dense = in_format(sources, last);
  if (out.scalar_type() == ScalarType::Float) {
    launch<float>(scope, out, last, dense, fill, ranks, slots);
  } else {
    launch<uint16_t>(scope, out, last, dense, fill, ranks, slots);
  }
}

}  // namespace
}  // namespace gag_fast

STABLE_TORCH_LIBRARY_IMPL(gag_fast, CUDA, m) { m.impl("compose_", TORCH_BOX(&gag_fast::compose_)); }
