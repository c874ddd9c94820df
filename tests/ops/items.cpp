// The torch-free headers of csrc/math behind a C interface: the tests run the CUDA kernels' bodies
// (math/items.h) here, looping over copies and items as the grid does, in a scrambled order.
#include "math/items.h"

#include <cmath>
#include <cstdint>

#include "math/percentile.h"
#include "math/welford.h"

using namespace gag_fast;

namespace {

// Every (copy, item) once, in an order that no thread block has: a coprime stride through the
// items.
template <typename Body>
void run(const Body& body, int64_t copies, uint32_t items) {
  uint64_t stride = 7919;
  while (items % stride == 0) ++stride;
  for (int64_t copy = copies - 1; copy >= 0; --copy) {
    for (uint64_t i = 0; i < items; ++i) body(copy, static_cast<uint32_t>(i * stride % items));
  }
}

template <typename T>
void noise(const T* images, const int64_t* keys, const float* std, T* out, int64_t copies,
           uint64_t seed, int64_t first_sample, int64_t samples, uint32_t channels, uint32_t pixels,
           bool last, bool may_use_quads) {
  const int64_t elements = static_cast<int64_t>(channels) * pixels;
  const bool quads = may_use_quads && holds_quads(images, elements) && holds_quads(out, elements);
  const NoiseItem<T> body{images,  keys,     std,    out,  seed, first_sample,
                          samples, channels, pixels, last, quads};
  run(body, copies / samples * body.groups(), body.items());
}

template <typename T>
void compose(const float* sources, const float* fill, const int32_t* ranks, const int32_t* slots,
             void* out, int64_t copies, int64_t source_count, int64_t map_count, uint32_t channels,
             uint32_t pixels, bool last, bool quads) {
  ComposeItem<T> body{sources,
                      fill,
                      ranks,
                      reinterpret_cast<const Slot*>(slots),
                      static_cast<T*>(out),
                      source_count,
                      map_count,
                      channels,
                      pixels,
                      last,
                      false};
  body.quads = quads && body.may_use_quads();
  run(body, copies, body.items());
}

}  // namespace

extern "C" {

void philox(const uint32_t* counter, const uint32_t* key, uint32_t* out) {
  const Philox4 r = philox4x32_10(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
  for (int i = 0; i < 4; ++i) out[i] = r.x[i];
}

void radii(const uint32_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = radius(x[i]);
}

void turns(const uint32_t* x, int64_t n, float* cosine, float* sine) {
  for (int64_t i = 0; i < n; ++i) sincos_turn(x[i], cosine[i], sine[i]);
}

void halves(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_half(x[i]);
}

void sort_keys_f32(const float* x, int64_t n, int64_t map, uint64_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = sort_key(x[i], map);
}

// Items of a copy, and the last one's first element, as NoiseItem and ComposeItem number them.
void item_numbers(uint32_t channels, uint32_t pixels, int last, int width, uint32_t* noise,
                  uint32_t* compose) {
  NoiseItem<float> body{};
  body.channels = channels;
  body.pixels = pixels;
  body.last = last;
  *noise = body.items();
  ComposeItem<float> copy{};
  copy.channels = channels;
  copy.pixels = pixels;
  copy.last = last;
  copy.quads = width == 4;
  *compose = copy.items();
}

void place(double p, int64_t n, int64_t* below, double* weight) {
  const PercentilePlace at = percentile_place(p, n);
  *below = at.below;
  *weight = at.weight;
}

// p = tenths / 10. How many N up to `most` have a place whose order statistic is not the one of the
// exact rank tenths (N - 1) / 1000, and is not a close call either: none should.
int64_t wrong_places(int64_t tenths, int64_t most) {
  int64_t wrong = 0;
  for (int64_t n = 1; n <= most; ++n) {
    const PercentilePlace at = percentile_place(static_cast<double>(tenths) / 10.0, n);
    const int64_t exact = tenths * (n - 1), whole = exact / 1000;
    if (exact % 1000 != 0) {
      wrong += at.above() != whole + 1 || close_call<float>(at);
    } else {
      wrong += at.above() != whole && !(at.below == whole && close_call<float>(at));
    }
  }
  return wrong;
}

float threshold_f32(float below, float above, double weight) {
  return threshold_between(below, above, weight);
}

// A sum of n times the same terms, by the statistics' recurrence.
float long_sum(const float* terms, int64_t count, int64_t n) {
  float settled = 0, recent = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (settles(i)) settle(settled, recent);
    recent += terms[i % count];
  }
  return settled + recent;
}

void noise_f32(const float* images, const int64_t* keys, const float* std, float* out,
               int64_t copies, uint64_t seed, int64_t first_sample, int64_t samples,
               uint32_t channels, uint32_t pixels, int last, int quads) {
  noise(images, keys, std, out, copies, seed, first_sample, samples, channels, pixels, last, quads);
}

void noise_f64(const double* images, const int64_t* keys, const float* std, double* out,
               int64_t copies, uint64_t seed, int64_t first_sample, int64_t samples,
               uint32_t channels, uint32_t pixels, int last, int quads) {
  noise(images, keys, std, out, copies, seed, first_sample, samples, channels, pixels, last, quads);
}

void hash_f32(const float* images, int64_t copies, const int64_t* strides, uint32_t channels,
              uint32_t height, uint32_t width, uint64_t* keys) {
  const HashItem<float> hash{images, strides[0], strides[1], strides[2], strides[3], height, width};
  for (int64_t copy = 0; copy < copies; ++copy) keys[copy] = 0;
  run([&](int64_t copy, uint32_t item) { keys[copy] += hash(copy, item); }, copies,
      channels * height * width);
}

void compose_items(const float* sources, const float* fill, const int32_t* ranks,
                   const int32_t* slots, void* out, int64_t copies, int64_t source_count,
                   int64_t map_count, uint32_t channels, uint32_t pixels, int last, int half,
                   int width) {
  const auto body = half ? compose<uint16_t> : compose<float>;
  body(sources, fill, ranks, slots, out, copies, source_count, map_count, channels, pixels, last,
       width == 4);
}

}  // extern "C"
