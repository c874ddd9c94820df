"""Reads image files that may be anything, and turns pictures into a model's input.

What becomes of the unusual (each has a test):
  greyscale, palette, CMYK    converted to RGB
  alpha                       laid over white, the page that such pictures are drawn for
  16 bit a channel            scaled to 8 bits (greyscale: v / 257, rounded)
  EXIF orientation            applied, as every viewer does
  animated                    the first frame
  wrong extension             does not matter, the content decides
  other formats than FORMATS  refused; some of PIL's start a program to be read
  too many pixels             refused before it is decoded: a decompression bomb
  truncated, empty, no image, a folder, a pipe    refused
Every refusal is an ImageError that names the file and the reason.

PIL and NumPy only, torch where a tensor is asked for: the processes that decode start quickly
and stay small.
"""

from __future__ import annotations

import os
import stat
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from gag_fast._errors import GagFastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gag_fast.models import ModelSpec, Preprocessing

MAX_BYTES = 1 << 30
"""Larger files are refused before they are read; a picture of MAX_PIXELS is smaller."""

MAX_PIXELS = 89_478_485
"""Pictures with more pixels are refused; PIL's own threshold (0.25 GiB as RGB)."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
"""The formats that are read, by PIL's names. All are decoded by libraries inside this process.

PIL knows many more, and tries them all where it is not told which: EPS goes to Ghostscript, so an
EPS file that is called cat.png would be a program that runs. So every picture is opened with this
list."""

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
    + (".pgm", ".pbm", ".jp2", ".avif")
)
"""What counts as a picture when a folder is searched."""

_WHITE = (255, 255, 255, 255)


class ImageError(GagFastError):
    """A file that cannot be read as an image; the message names the file and the reason."""


def read_bytes(path: str | os.PathLike[str], span: tuple[int, int] | None = None) -> bytes:
    """The bytes of a regular file: all of them, or those of `span` (first byte, count).

    Raises:
        ImageError: there is no such file, it is none, it is empty or cannot be read.
    """
    facts = regular(path)
    size = facts.st_size if span is None else span[1]
    if size > MAX_BYTES:
        raise ImageError(f"{path}: is too large for a picture ({size:,} bytes)")
    try:
        data = Path(path).read_bytes() if span is None else _read_span(path, *span)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise ImageError(f"{path}: not enough memory to read it") from None
    if not data:
        raise ImageError(f"{path}: is empty (0 bytes)")
    return data


def regular(path: str | os.PathLike[str]) -> os.stat_result:
    """The facts of a regular file: opening a pipe or a device could block for ever.

    Raises:
        ImageError: there is no such file, or it is none.
    """
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # the name holds a NUL byte
        raise ImageError(f"{path}: no file can have such a name ({error})") from None
    if stat.S_ISDIR(facts.st_mode):
        raise ImageError(f"{path}: is a folder, not an image")
    if not stat.S_ISREG(facts.st_mode):
        raise ImageError(f"{path}: is not a regular file")
    return facts


def _read_span(path: str | os.PathLike[str], first: int, count: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(first)
        return file.read(count)


def decode_image(data: bytes, name: str | os.PathLike[str]) -> Image.Image:
    """The first picture in `data`, upright, mode RGB. `name` stands in the error messages."""
    try:
        with warnings.catch_warnings():
            # PIL warns of the size, checked below, and of broken EXIF data, which does no harm.
            warnings.simplefilter("ignore")
            picture = Image.open(BytesIO(data), formats=_formats())
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width}×{height}")
            picture.load()
            return _to_rgb(_upright(picture))
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: too many pixels ({error}), more than {MAX_PIXELS:,}: refused as a "
            "decompression bomb"
        ) from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name}: is not an image that can be read (first bytes {data[:8]!r}); "
            f"formats: {', '.join(FORMATS)}"
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it") from None
    except Exception as error:  # PIL's plugins raise whatever a broken file makes them
        raise ImageError(f"{name}: cannot be decoded: {error or type(error).__name__}") from None


@cache
def _formats() -> list[str]:
    """FORMATS, as far as this PIL has them: an older one is without AVIF."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads an image file.

    Args:
        path: the file.

    Returns:
        PIL image, mode RGB, 8 bits, upright.

    Raises:
        ImageError: naming the file and the reason.
    """
    return decode_image(read_bytes(path), path)


def decode_mask(data: bytes, name: str | os.PathLike[str]) -> Image.Image:
    """A mask file as mode L with 0 (background) and 255 (object): more than half the maximum."""
    grey = np.asarray(decode_image(data, name).convert("L"))
    return Image.fromarray(((grey > grey.max() / 2) * 255).astype(np.uint8))


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block says nothing about the orientation
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        picture = _to_8_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture)
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Deep greyscale (modes I;16, I, F) as mode L."""
    deep = np.asarray(picture)
    low, high = float(deep.min()), float(deep.max())
    if picture.mode.startswith("I") and low >= 0 and high <= 65535:
        values = deep / 257.0
    elif picture.mode == "F" and low >= 0 and high <= 1:
        values = deep * 255.0
    else:
        raise ImageError(
            f"pixels of mode {picture.mode} from {low:g} to {high:g} have no standard brightness; "
            "16-bit integers, or floats from 0 to 1, have"
        )
    return Image.fromarray(np.rint(values).astype(np.uint8))


# ---- a model's input ----------------------------------------------------------------------------


def fit(picture: Image.Image, preprocessing: Preprocessing, nearest: bool = False) -> Image.Image:
    """Resizes (and crops) a picture to the model's input size.

    The same pixels as torchvision's Resize and CenterCrop give on a PIL image.

    Args:
        picture: PIL image.
        preprocessing: `crop`: the shorter side becomes `resize`, then the centre `size`×`size` is
            cut out; otherwise the picture is stretched to `size`×`size`.
        nearest: take the nearest pixel (masks) instead of interpolating.

    Returns:
        PIL image of `size`×`size`, mode RGB, or L for a model of one channel.
    """
    size = preprocessing.size
    if len(preprocessing.mean) == 1:
        picture = picture.convert("L")
    if nearest:
        how = Image.Resampling.NEAREST
    else:
        how = Image.Resampling[preprocessing.interpolation.upper()]
    if not preprocessing.crop:
        return picture.resize((size, size), how)
    width, height = picture.size
    short, long = sorted((width, height))
    scaled = int(preprocessing.resize * long / short)
    if scaled * preprocessing.resize > MAX_PIXELS:
        raise ImageError(
            f"{width}×{height} is too long and thin: with a shorter side of "
            f"{preprocessing.resize} it would have more than {MAX_PIXELS:,} pixels"
        )
    new = (preprocessing.resize, scaled) if width <= height else (scaled, preprocessing.resize)
    if new != picture.size:
        picture = picture.resize(new, how)
    left, top = (round((side - size) / 2.0) for side in new)
    return picture.crop((left, top, left + size, top + size))


def pixels_of(picture: Image.Image) -> np.ndarray:
    """A PIL image as uint8 [H, W, C]."""
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def normalise(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 pixels [..., H, W, C] -> float32 [..., C, H, W], (pixel / 255 - mean) / std."""
    import torch

    planes = np.moveaxis(pixels, -1, -3)
    values = torch.from_numpy(np.array(planes, np.float32, order="C")).div_(255)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32).view(-1, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float32).view(-1, 1, 1)
    return values.sub_(mean).div_(std)


def preprocess(picture: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """A PIL image -> the model's input, float32 [C, size, size]."""
    return normalise(pixels_of(fit(picture, preprocessing)), preprocessing)


def load_images(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    spec: ModelSpec | Preprocessing,
) -> torch.Tensor:
    """Image files -> what a classifier takes, float32 [B, C, size, size], normalised.

    Args:
        paths: one file or several.
        spec: the classifier's, as `load_model` returns it, or its preprocessing.

    Raises:
        ImageError: naming the file and the reason.
    """
    import torch

    preprocessing: Any = getattr(spec, "preprocessing", spec)
    files = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not files:
        raise ImageError("load_images needs at least one file, got none")
    return torch.stack([preprocess(load_image(path), preprocessing) for path in files])


def denormalise(image: torch.Tensor, preprocessing: Preprocessing) -> Image.Image:
    """A model's input [C, H, W] -> the PIL image that it shows."""
    import torch

    image = image.detach().to("cpu", torch.float32)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32).view(-1, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float32).view(-1, 1, 1)
    pixels = image.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255)
    pixels = pixels.to(torch.uint8).expand(3, -1, -1)  # one channel: grey
    return Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())
