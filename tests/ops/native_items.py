"""Compiles items.cpp (csrc/math without torch) once per session, and calls it through ctypes."""

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from tests import ROOT

HERE = Path(__file__).parent
CSRC = ROOT / "csrc"


@functools.cache
def library() -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp(prefix="gag_fast_items_"))
    target = folder / "items.so"
    compiler = os.environ.get("CXX", "g++")
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
    command = [compiler, *flags, f"-I{CSRC}", str(HERE / "items.cpp"), "-o", str(target)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def pointer(array: np.ndarray | torch.Tensor) -> ctypes.c_void_p:
    address = array.data_ptr() if isinstance(array, torch.Tensor) else array.ctypes.data
    return ctypes.c_void_p(address)


def i64(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def u32(value: int) -> ctypes.c_uint32:
    return ctypes.c_uint32(value)


def philox(counter: list[int], key: list[int]) -> list[int]:
    out = np.zeros(4, np.uint32)
    library().philox(
        pointer(np.array(counter, np.uint32)), pointer(np.array(key, np.uint32)), pointer(out)
    )
    return out.tolist()


def radii(x: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, np.float32)
    library().radii(pointer(x), i64(x.size), pointer(out))
    return out


def sincos(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    library().turns(pointer(x), i64(x.size), pointer(cosine), pointer(sine))
    return cosine, sine


def halves(x: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, np.uint16)
    library().halves(pointer(x), i64(x.size), pointer(out))
    return out


def sort_keys(x: np.ndarray, map_number: int) -> np.ndarray:
    out = np.empty(x.shape, np.uint64)
    library().sort_keys_f32(pointer(x), i64(x.size), i64(map_number), pointer(out))
    return out


def gaussian_noise(images, keys, std, *, seed, first_sample, samples, quads=True):
    """What the CUDA kernel writes, for contiguous or channels_last `images`."""
    b, c, h, w = images.shape
    last = not images.is_contiguous()
    out = images.new_empty((b, samples, h, w, c) if last else (b, samples, c, h, w))
    run = library().noise_f64 if images.dtype == torch.float64 else library().noise_f32
    run(
        *(pointer(t) for t in (images, keys, std, out)),
        i64(b * samples),
        ctypes.c_uint64(seed & (2**64 - 1)),
        i64(first_sample),
        i64(samples),
        u32(c),
        u32(h * w),
        int(last),
        int(quads),
    )
    return out.permute(0, 1, 4, 2, 3) if last else out


def image_keys(images):
    b, c, h, w = images.shape
    strides = np.array(images.stride(), np.int64)
    keys = np.empty(b, np.int64)
    library().hash_f32(
        pointer(images), i64(b), pointer(strides), u32(c), u32(h), u32(w), pointer(keys)
    )
    return torch.from_numpy(keys)


def compose_(out, sources, fill, ranks, slots, *, width):
    """What the CUDA kernel writes; `sources` in the memory format of `out`."""
    n, c, h, w = out.shape
    library().compose_items(
        *(pointer(t) for t in (sources, fill, ranks, slots, out)),
        i64(n),
        i64(sources.shape[0]),
        i64(ranks.shape[0]),
        u32(c),
        u32(h * w),
        int(not out.is_contiguous()),
        int(out.dtype == torch.float16),
        width,
    )
