// What Python may ask of the build. Knows nothing of torch: it can be imported to explain why the
// operators did not load.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

namespace py = pybind11;

namespace {

py::list split(const std::string& text) {
  py::list items;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    items.append(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return items;
}

py::dict build_info() {
  py::dict info;
  info["version"] = GAG_FAST_VERSION;
  info["compiler"] = GAG_FAST_COMPILER;
  info["cxx_flags"] = GAG_FAST_CXX_FLAGS;
  info["torch_built_with"] = GAG_FAST_TORCH_BUILT_WITH;
  info["torch_minimum"] = "2.10";
  info["cuda_version"] = std::string(GAG_FAST_CUDA_VERSION).empty()
                             ? py::object(py::none())
                             : py::object(py::str(GAG_FAST_CUDA_VERSION));
  info["cuda_architectures"] = split(GAG_FAST_CUDA_ARCHITECTURES);
  info["sanitizers"] = split(GAG_FAST_SANITIZERS);
  return info;
}

py::list cpu_features() {
  py::list features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) features.append("avx2");
  if (__builtin_cpu_supports("f16c")) features.append("f16c");
  if (__builtin_cpu_supports("avx512f")) features.append("avx512f");
  if (__builtin_cpu_supports("avx512bw")) features.append("avx512bw");
  if (__builtin_cpu_supports("avx512dq")) features.append("avx512dq");
  if (__builtin_cpu_supports("avx512vl")) features.append("avx512vl");
#elif defined(__aarch64__)
  features.append("neon");
#endif
  return features;
}

}  // namespace

PYBIND11_MODULE(_build_info, module) {
  module.doc() = "Facts of this build of gag_fast's native libraries.";
  module.def("build_info", &build_info,
             "Versions, compiler, flags and CUDA architectures this build was made with.");
  module.def("cpu_features", &cpu_features, "SIMD features of the CPU this process runs on.");
}
