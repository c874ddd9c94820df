"""Saliency maps as pictures: one map over its image, and the sheet `gag-fast explain` writes.

Everything is drawn with Pillow. A map is shown at the value it has, up to a display ceiling: maps
of gradients are a few bright pixels on a dark field, and on the full scale nothing else would be
visible. The ceiling is the map's 99.5th percentile unless the caller sets one; the colour bar is
labelled with it ("0.68+" when the map goes on above), so the picture never claims more than it
shows.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Resampling
from PIL.PngImagePlugin import PngInfo

from gag_fast._errors import GagFastError
from gag_fast._files import replacing
from gag_fast.report.colormaps import colorize, table

_INK = (28, 30, 34)
_MUTED = (110, 114, 122)
_PAPER = (255, 255, 255)
_RULE = (222, 224, 228)
_MARGIN, _GAP, _BAR = 28, 16, 14
_SOFTWARE = "gag-fast explain"


def as_image(image) -> Image.Image:
    """An RGB picture from a Pillow image, uint8 `[H,W,3]`, or floats in [0,1] `[H,W,3]`/`[3,H,W]`.

    Torch tensors are taken as arrays. Floats are clipped to [0, 1].

    Raises:
        ValueError: any other shape or dtype.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise GagFastError(f"image must be [H, W, 3] or [3, H, W], got shape {tuple(array.shape)}")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise GagFastError(
                f"image must be uint8 or floating point in [0, 1], got {array.dtype}"
            )
        array = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def as_map(values) -> np.ndarray:
    """A saliency map as float64 `[H, W]`; torch tensors are taken as arrays.

    Raises:
        ValueError: anything that is not two-dimensional.
    """
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    if array.ndim != 2:
        raise GagFastError(f"map must be [H, W], got shape {tuple(array.shape)}")
    return array.astype(np.float64)


def display_ceiling(values: np.ndarray, percent: float = 99.5) -> float:
    """The value shown as the brightest colour: a high percentile, or the maximum of a sparse map.

    Returns 1.0 for a map with no positive value, so that an empty map stays dark.
    """
    finite = values[np.isfinite(values)]
    if not finite.size or finite.max() <= 0:
        return 1.0
    ceiling = float(np.percentile(finite, percent))
    return ceiling if ceiling > 0 else float(finite.max())


def overlay(image, values, *, colormap: str = "inferno", ceiling: float | None = None):
    """The map's colours over a greyed, dimmed copy of the image, as an RGB Pillow image.

    A pixel's opacity follows its saliency, so that what the map leaves dark stays readable as
    photograph. The map is resized to the image when their sizes differ.
    """
    picture = as_image(image)
    values = as_map(values)
    ceiling = display_ceiling(values) if ceiling is None else ceiling
    share = np.clip(np.nan_to_num(values / ceiling), 0, 1)
    if share.shape[::-1] != picture.size:
        resized = Image.fromarray(share.astype(np.float32)).resize(
            picture.size, Resampling.BILINEAR
        )
        share = np.clip(np.asarray(resized, dtype=np.float64), 0, 1)
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[..., None]
    base = 0.6 * (0.75 * grey + 0.25 * np.asarray(picture, dtype=np.float64)) + 20
    # Below 1, the exponent lifts faint saliency; from three quarters of the scale on, colour wins.
    alpha = np.clip(1.25 * share**0.7, 0, 1)[..., None]
    mixed = (1 - alpha) * base + alpha * colorize(0.18 + 0.82 * share, colormap)
    return Image.fromarray(np.rint(np.clip(mixed, 0, 255)).astype(np.uint8))


def map_picture(values, *, colormap: str = "inferno", ceiling: float | None = None):
    """The map alone in colours, as an RGB Pillow image of the map's own size."""
    values = as_map(values)
    ceiling = display_ceiling(values) if ceiling is None else ceiling
    return Image.fromarray(colorize(values / ceiling, colormap))


def data_uri(picture: Image.Image, *, quality: int = 85, side: int | None = None) -> str:
    """The picture as a JPEG `data:` URI, scaled down so that no side is longer than `side`."""
    picture = picture.convert("RGB")
    if side is not None and max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _font(size: int):
    return ImageFont.load_default(size)


def _fit(draw: ImageDraw.ImageDraw, text: str, font, width: int) -> str:
    """The text, or as much of it as fits into `width` pixels followed by an ellipsis."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"


def _tick(value: float) -> str:
    """A colour bar's number: two significant digits, without trailing zeros."""
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}" if digits <= 6 else f"{value:.1e}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _draw_bar(sheet, left: int, top: int, height: int, ceiling: float, maximum: float, colormap):
    """A vertical colour bar with its scale: 0, the middle and the display ceiling."""
    draw = ImageDraw.Draw(sheet)
    column = table(colormap)[::-1][:, None, :]
    bar = Image.fromarray(np.ascontiguousarray(column)).resize((_BAR, height), Resampling.BILINEAR)
    sheet.paste(bar, (left, top))
    font = _font(14)
    clipped = maximum > ceiling * (1 + 1e-9)
    for share in (0.0, 0.5, 1.0):
        y = top + (height - 1) * (1 - share)
        draw.line((left + _BAR, y, left + _BAR + 4, y), fill=_MUTED)
        label = _tick(ceiling * share) + ("+" if clipped and share == 1 else "")
        draw.text((left + _BAR + 9, y), label, font=font, fill=_MUTED, anchor="lm")


def sheet(
    image,
    values,
    lines: Sequence[str] = (),
    *,
    colormap: str = "inferno",
    ceiling: float | None = None,
    side: int = 360,
) -> Image.Image:
    """Image, map and overlay side by side with a colour bar, as an RGB Pillow image.

    Args:
        image: what `as_image` takes; shown at the map's aspect, `side` pixels high or wide.
        values: the map, `[H, W]`, in any units.
        lines: text above the panels; the first is the heading (predicted class and probability).
        colormap: a name from `colormaps.names()`.
        ceiling: the value shown as the brightest colour; None takes `display_ceiling(values)`.
        side: pixels of a panel's longer side.
    """
    picture, values = as_image(image), as_map(values)
    ceiling = display_ceiling(values) if ceiling is None else float(ceiling)
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = picture.resize(size, Resampling.LANCZOS)
    colors = map_picture(values, colormap=colormap, ceiling=ceiling).resize(
        size, Resampling.BICUBIC
    )
    panels = [
        ("image", shown),
        ("map", colors),
        ("overlay", overlay(shown, values, colormap=colormap, ceiling=ceiling)),
    ]
    head = 0 if not lines else 34 + 22 * (len(lines) - 1) + 8
    top = _MARGIN + head
    bar_left = _MARGIN + 3 * size[0] + 3 * _GAP
    width = bar_left + _BAR + 56 + _MARGIN // 2
    canvas = Image.new("RGB", (width, top + size[1] + 30 + _MARGIN // 2), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, line in enumerate(lines):
        font, ink = (_font(24), _INK) if index == 0 else (_font(16), _MUTED)
        y = _MARGIN - 6 if index == 0 else _MARGIN + 26 + 22 * (index - 1)
        draw.text((_MARGIN, y), _fit(draw, line, font, width - 2 * _MARGIN), font=font, fill=ink)
    for index, (caption, panel) in enumerate(panels):
        left = _MARGIN + index * (size[0] + _GAP)
        canvas.paste(panel, (left, top))
        draw.rectangle((left - 1, top - 1, left + size[0], top + size[1]), outline=_RULE)
        draw.text((left, top + size[1] + 9), caption, font=_font(15), fill=_MUTED)
    finite = values[np.isfinite(values)]
    maximum = float(finite.max()) if finite.size else 0.0
    _draw_bar(canvas, bar_left, top, size[1], ceiling, maximum, colormap)
    return canvas


def save_overlay(path, image, values, lines: Sequence[str] = (), **options) -> Path:
    """Writes `sheet(image, values, lines, **options)` to `path` (its suffix picks the format).

    The file appears whole or not at all. Returns the path.

    Raises:
        ValueError: a suffix that Pillow does not know, or a shape `sheet` does not take.
    """
    path = Path(path)
    extensions = Image.registered_extensions()
    if path.suffix.lower() not in extensions:
        raise GagFastError(f"{path}: cannot tell a picture format from suffix {path.suffix!r}")
    picture = sheet(image, values, lines, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        picture.save(aside, extensions[path.suffix.lower()], pnginfo=_signature())
    return path


def is_ours(path) -> bool:
    """Whether a file is a PNG that `save_overlay` wrote, by the signature in it."""
    try:
        if not Path(path).is_file():  # a pipe would block
            return False
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _signature() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", _SOFTWARE)
    return info
