"""Builds the native parts with CMake; everything declarative lives in pyproject.toml.

Environment:
  GAG_FAST_CUDA=0|1      leave the CUDA library out, or insist on it (default: built when possible)
  GAG_FAST_CUDA_ARCHS    CMake architecture list (default "80-real;90-real;90-virtual")
  GAG_FAST_SANITIZE      "address,undefined": compile the CPU library with sanitizers
  GAG_FAST_LOCAL_VERSION auto: a wheel's version says what it was built for, +cpu or +cu130 (`make
                         wheel`); default none, as an index takes no wheels of local versions
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def find_nvcc() -> str | None:
    """The CUDA compiler: $CUDACXX, then $CUDA_HOME/bin/nvcc, then nvcc on PATH."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [os.environ.get("CUDACXX"), f"{home}/bin/nvcc" if home else None, "nvcc"]
    return next((path for c in candidates if c and (path := shutil.which(c))), None)


def want_cuda(torch) -> bool:
    """Whether to build the CUDA library; stops with one line when it is forced but impossible."""
    asked = os.environ.get("GAG_FAST_CUDA", "auto").lower()
    if asked not in {"auto", "0", "1"}:
        raise SystemExit(f"error: GAG_FAST_CUDA must be 0, 1 or auto, got {asked!r}")
    if asked == "0":
        return False
    missing = None
    if find_nvcc() is None:
        missing = "no nvcc in $CUDACXX, $CUDA_HOME/bin or on PATH"
    elif torch.version.cuda is None:
        missing = f"torch {torch.__version__} is a build without CUDA"
    if missing and asked == "1":
        raise SystemExit(
            f"error: GAG_FAST_CUDA=1 but the CUDA library cannot be built: {missing}; "
            "fix that or set GAG_FAST_CUDA=0 for a CPU build"
        )
    if missing:
        print(f"gag_fast: building for the CPU only ({missing})", file=sys.stderr)
    return missing is None


def version() -> str:
    """gag_fast.__version__, read without importing; with what the wheel is built for on request."""
    text = (ROOT / "gag_fast" / "__init__.py").read_text()
    public = re.search(r'^__version__ = "(.+)"$', text, re.M).group(1)
    if os.environ.get("GAG_FAST_LOCAL_VERSION") != "auto":
        return public
    import torch

    return (
        f"{public}+cu{torch.version.cuda.replace('.', '')}" if want_cuda(torch) else f"{public}+cpu"
    )


class AnyPython(bdist_wheel):
    """A wheel for every Python of a platform.

    torch loads the libraries of operators, so they use nothing of Python's own interface. The
    informational module does; a Python that it was not built for reads build_facts.json.
    """

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none and the platform."""
        return "py3", "none", super().get_tag()[2]


class CMakeBuild(build_ext):
    """One CMake run builds the CPU library, the CUDA library and the pybind11 module."""

    def copy_extensions_to_source(self) -> None:
        """Editable installs: beside the module, the two torch libraries go to the checkout too."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib, "gag_fast")
        for library in [*built.glob("_gag_fast_*.so"), built / "build_facts.json"]:
            # A new file, not new bytes in the old one: a running process may have it mapped.
            target = ROOT / "gag_fast" / library.name
            target.unlink(missing_ok=True)
            shutil.copy2(library, target)

    def build_extension(self, ext: Extension) -> None:
        import torch

        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        torch_dir = Path(torch.__file__).parent
        cuda = want_cuda(torch)
        args = [
            f"-DCMAKE_BUILD_TYPE={os.environ.get('CMAKE_BUILD_TYPE', 'Release')}",
            f"-DGAG_FAST_OUTPUT_DIR={module.parent}",
            f"-DGAG_FAST_VERSION={version().partition('+')[0]}",
            f"-DGAG_FAST_CUDA={'ON' if cuda else 'OFF'}",
            f"-DGAG_FAST_SANITIZE={os.environ.get('GAG_FAST_SANITIZE', '')}",
            f"-DTORCH_DIR={torch_dir}",
            f"-DTORCH_VERSION={torch.__version__}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        try:
            import pybind11

            args.append(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
        except ImportError:
            print("gag_fast: no pybind11, so no compiled _build_info", file=sys.stderr)
            args.append("-DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON")
        if cuda:
            archs = os.environ.get("GAG_FAST_CUDA_ARCHS", "80-real;90-real;90-virtual")
            args += [f"-DCMAKE_CUDA_COMPILER={find_nvcc()}", f"-DCMAKE_CUDA_ARCHITECTURES={archs}"]
        if shutil.which("ninja"):
            args += ["-G", "Ninja"]
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        # A pip build environment has a new path each time: a cache made in another is of no use.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        try:
            subprocess.run(["cmake", "-S", str(ROOT), "-B", str(build), *args], check=True)
            subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        except FileNotFoundError:
            raise SystemExit("error: cmake not found; pip install cmake ninja") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"error: {' '.join(error.cmd[:2])} failed, see above") from None


setup(
    version=version(),
    # `export/` is a top-level folder of the checkout and the package `gag_fast.export` installed:
    # a package called `export` in site-packages would be everybody's name.
    package_dir={"gag_fast": "gag_fast", "gag_fast.export": "export"},
    packages=["gag_fast", "gag_fast.export"]
    + [
        "gag_fast." + str(init.parent.relative_to(ROOT / "gag_fast")).replace(os.sep, ".")
        for init in sorted((ROOT / "gag_fast").glob("*/**/__init__.py"))
    ],
    package_data={
        "gag_fast": ["py.typed", "report/*.html", "report/*.css", "report/*.js"],
        "gag_fast.export": ["page/*"],
    },
    # Optional: it is not there where pybind11 is not.
    ext_modules=[Extension("gag_fast._build_info", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AnyPython},
)
