// Every operator's signature, and nothing else. Shapes and meaning:
//
//   B images, n samples, C channels, H x W pixels, k percents, M saliency maps, N masked copies.
//
//   guided_absgrad             grads [B,n,C,H,W], any strides -> [k,B,H,W]; with keep_channels
//                              [k,B,C,H,W]
//   guided_absgrad_from_stats  m2, abssum [B,C,H,W] over `count` samples -> as above
//   gradient_stats_            folds grads [B,m,C,H,W] into shift, mean, m2, abssum [B,C,H,W], that
//                              already hold `count` samples; mean is that of (gradient - shift).
//                              settled [2,B,C,H,W], zeros at first, holds what m2 and abssum have
//                              put by (math/welford.h); not needed for up to 20 samples in all
//   image_keys                 images [B,C,H,W] -> int64 [B], a hash of each image's pixels
//   gaussian_noise             images [B,C,H,W], keys int64 [B], std [B] -> [B,samples,C,H,W]:
//                              image + std * normal(seed, key, first_sample + s, element)
//   saliency_ranks             maps [M,H,W] -> ranks int32 [M,H*W] (0 = most salient; ties by pixel
//                              index), order int32 [M,H*W] (its inverse)
//   compose_                   out [N,C,H,W]; slots int32 [N,4] = (map, count, top, rest): the
//                              pixels of rank < count come from source `top`, others from `rest`;
//                              sources [S,C,H,W], and source -1 is the constant colour fill [C]
//   impute                     pixels [C,H,W], missing bool [H,W] -> [C,H,W], the missing ones the
//                              weighted mean of their eight neighbours; CPU only
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(gag_fast, m) {
  m.def("guided_absgrad(Tensor grads, float[] p, bool normalize, bool keep_channels) -> Tensor");
  m.def(
      "guided_absgrad_from_stats(Tensor m2, Tensor abssum, int count, float[] p, bool normalize, "
      "bool keep_channels) -> Tensor");
  m.def(
      "gradient_stats_(Tensor(a!) shift, Tensor(b!) mean, Tensor(c!) m2, Tensor(d!) abssum, "
      "Tensor grads, int count, Tensor(e!)? settled=None) -> ()");
  m.def("image_keys(Tensor images) -> Tensor");
  m.def(
      "gaussian_noise(Tensor images, Tensor keys, Tensor std, int seed, int first_sample, "
      "int samples) -> Tensor");
  m.def("saliency_ranks(Tensor maps) -> (Tensor ranks, Tensor order)");
  m.def("compose_(Tensor(a!) out, Tensor sources, Tensor fill, Tensor ranks, Tensor slots) -> ()");
  m.def("impute(Tensor pixels, Tensor missing) -> Tensor");
}
