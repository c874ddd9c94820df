#!/usr/bin/env bash
# The operator tests under AddressSanitizer and UndefinedBehaviorSanitizer: builds the CPU library
# with both into a scratch folder and runs tests/ops on it (arguments go to pytest). Any report ends
# the run with a non-zero status.
#
#   PYTHON=python3 SANITIZERS=address,undefined tests/sanitize.sh [-k noise]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
sanitizers=${SANITIZERS:-address,undefined}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

read -r torch_dir torch_version pybind11_dir executable < <("$python" -c '
import sys, pathlib, pybind11, torch
torch_dir = pathlib.Path(torch.__file__).parent
print(torch_dir, torch.__version__, pybind11.get_cmake_dir(), sys.executable)')

cmake -S . -B "$scratch/build" \
  -DCMAKE_BUILD_TYPE=Debug \
  -DGAG_FAST_OUTPUT_DIR="$scratch/lib" -DGAG_FAST_VERSION=sanitized -DGAG_FAST_CUDA=OFF \
  -DGAG_FAST_SANITIZE="$sanitizers" -DTORCH_DIR="$torch_dir" -DTORCH_VERSION="$torch_version" \
  -Dpybind11_DIR="$pybind11_dir" -DPython_EXECUTABLE="$executable" >"$scratch/cmake.log" ||
  { cat "$scratch/cmake.log"; exit 1; }
cmake --build "$scratch/build" --target gag_fast_cpu --parallel "$(nproc)"

# The interpreter is not built with the sanitizers, so their runtimes come first by LD_PRELOAD;
# leaks are not looked for, the interpreter and torch never free everything.
runtimes=$(for name in asan ubsan; do "${CXX:-g++}" -print-file-name="lib$name.so"; done | paste -sd:)
export GAG_FAST_LIBRARY_DIR="$scratch/lib"
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

# Proof that it is a sanitized library that runs: it asks for a sanitizer's runtime.
needed=$(readelf -d "$scratch/lib/_gag_fast_cpu.so")
[[ $needed == *libasan* || $needed == *libubsan* ]] ||
  { echo "error: the library was built without sanitizers ($sanitizers)" >&2; exit 1; }

# --capture=sys: pytest must not swallow what the sanitizers print as the process dies. What
# torch.compile makes of the operators is other code, and compiles for minutes here.
LD_PRELOAD="$runtimes" "$executable" -m pytest tests/ops -p no:cacheprovider --capture=sys \
  -k "not compiles_into_one_graph" "$@"
