"""`gag_fast.plot`: photographs, their maps and curves side by side, as a matplotlib figure."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gag_fast import measures
from gag_fast._errors import GagFastError, InputTypeError
from gag_fast._inputs import adopted, as_numbers, describe
from gag_fast.images import denormalise
from gag_fast.metrics import Scores
from gag_fast.models import ModelSpec, Preprocessing
from gag_fast.report import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = 2.2
"""Side of a picture."""

_DOTS = 90
"""An inch, in a notebook."""


def plot(
    maps: Any,
    images: Any,
    spec: ModelSpec | Preprocessing | None = None,
    *,
    scores: Scores[Any] | None = None,
    titles: Sequence[str] | None = None,
    colormap: str = "inferno",
    overlays: bool = True,
) -> Figure:
    """Draws a row for each image: the photograph, each map, the map over the photograph, curves.

    A map is shown up to its 99.5th percentile, as on the pages of reports.

    Args:
        maps: `[B,H,W]`, or `[B,M,H,W]` for M maps of each image; or name -> `[B,H,W]`, as
            `explain_many` returns them. Torch, NumPy or an array that speaks DLPack.
        images: `[B,C,H,W]`, normalised for the model; or B Pillow images.
        spec: the model's, as `load_model` returns it, or its preprocessing: undoes the
            normalisation. None: ImageNet's mean and std.
        scores: what `evaluate` gave for these maps: draws their curves, and names their values.
        titles: of the B rows.
        colormap: "inferno", "magma" or "viridis".
        overlays: whether each map is drawn over the photograph too.

    Returns:
        `matplotlib.figure.Figure`, which a notebook shows and `.savefig(path)` writes; pyplot does
        not know it, so there is nothing to close.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: maps, images, scores or titles that do not belong together.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install 'gag-fast[plot]'") from None
    names, found = _maps_of(maps)
    photographs = _photographs(images, spec)
    if len(photographs) != found.shape[0]:
        raise GagFastError(
            f"maps and images must be as many, got {found.shape[0]} and {len(photographs)}"
        )
    if titles is not None and len(titles) != len(photographs):
        raise GagFastError(f"titles must be {len(photographs)}, one an image, got {len(titles)}")
    curves = {} if scores is None else _curves_of(scores, found.shape)
    columns = 1 + len(names) * (1 + overlays) + len(curves)
    rows = len(photographs)
    figure = Figure(figsize=(_INCHES * columns, (_INCHES + 0.35) * rows), layout="constrained")
    for row, axes in enumerate(figure.subplots(rows, columns, squeeze=False)):
        cells = iter(axes)
        heading = "image" if titles is None else titles[row]
        _picture(next(cells), photographs[row], heading)
        for column, name in enumerate(names):
            values = found[row, column]
            said = _said(scores, row, column)
            _picture(next(cells), pictures.map_picture(values, colormap=colormap), f"{name}{said}")
            if overlays:
                over = pictures.overlay(photographs[row], values, colormap=colormap)
                _picture(next(cells), over, "")
        for curve, (x, y) in curves.items():
            _lines(next(cells), measures.CURVES[curve], names, x[row], y[row])
    # A notebook that never imported pyplot would show its name only.
    figure._repr_jpeg_ = functools.partial(_jpeg, figure)  # type: ignore[attr-defined]
    return figure


def _jpeg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=_DOTS, pil_kwargs={"quality": 85})
    return buffer.getvalue()


def _maps_of(maps: Any) -> tuple[list[str], np.ndarray]:
    """Names of the maps of an image, and the maps `[B,M,H,W]`."""
    if isinstance(maps, Mapping):
        if not maps:
            raise GagFastError("maps must hold at least one method's, got none")
        each = {str(name): as_numbers(value, f"maps[{name!r}]") for name, value in maps.items()}
        shapes = {name: list(value.shape) for name, value in each.items()}
        first = next(iter(shapes.values()))
        if len(first) != 3 or any(shape != first for shape in shapes.values()):
            raise GagFastError(f"maps must be name -> [B, H, W], all alike, got {shapes}")
        return list(each), torch.stack(list(each.values()), dim=1).cpu().double().numpy()
    found = as_numbers(maps, "maps")
    if found.dim() not in (3, 4) or 0 in found.shape:
        raise GagFastError(f"maps must be [B, H, W] or [B, M, H, W], got {list(found.shape)}")
    if found.dim() == 3:
        return ["map"], found[:, None].cpu().double().numpy()
    return [f"map {i}" for i in range(found.shape[1])], found.cpu().double().numpy()


def _photographs(images: Any, spec: ModelSpec | Preprocessing | None) -> list[Image.Image]:
    if isinstance(images, (list, tuple)) and all(isinstance(i, Image.Image) for i in images):
        return [pictures.as_image(image) for image in images]
    given = adopted(images, "images")
    if not isinstance(given, (Tensor, np.ndarray)):
        raise InputTypeError(
            f"images must be [B, C, H, W] or Pillow images, got {describe(images)}"
        )
    batch = as_numbers(given, "images")
    how = spec.preprocessing if isinstance(spec, ModelSpec) else spec or Preprocessing()
    if batch.dim() != 4 or batch.shape[1] not in (1, 3):
        raise GagFastError(
            f"images must be [B, C, H, W] with 1 or 3 channels, got {list(batch.shape)}"
        )
    if len(how.mean) not in (1, batch.shape[1]):
        raise GagFastError(
            f"images of {batch.shape[1]} channels need a spec of as many, got one of "
            f"{len(how.mean)}"
        )
    return [denormalise(image, how) for image in batch]


def _curves_of(
    scores: Scores[Any], shape: tuple[int, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curve -> x and y `[B,M,steps]`, of those that are drawn over a share of the pixels."""
    curves = {}
    for name, values in scores.curves.items():
        if name not in scores.pixels:
            continue
        y, x = (as_numbers(v, name).cpu().double().numpy() for v in (values, scores.pixels[name]))
        y, x = (v if v.ndim == 3 else v[:, None] for v in (y, x))
        if y.shape[:2] != shape[:2]:
            raise GagFastError(
                f"scores must be of these maps, {list(shape[:2])}, got {list(y.shape[:2])}"
            )
        curves[name] = (x / (shape[-1] * shape[-2]), y)
    return curves


def _said(scores: Scores[Any] | None, row: int, column: int) -> str:
    """The values of the first three measures of one map, on a line of their own."""
    if scores is None:
        return ""
    words = []
    for name, values in list(scores.values.items())[:3]:
        value = as_numbers(values, name)
        one = float(value[row] if value.dim() == 1 else value[row, column])
        words.append(f"{measures.measure(name).label} {one:.3f}")
    return "\n" + "  ".join(words)


def _picture(axes: Any, picture: Image.Image, title: str) -> None:
    axes.imshow(np.asarray(picture))
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _lines(axes: Any, curve: measures.Curve, names: list[str], x: Any, y: Any) -> None:
    """The curves of all maps of one image."""
    for i, name in enumerate(names):
        axes.plot(x[i], y[i], label=name, linewidth=1.2, marker=".", markersize=3)
    axes.set_title(curve.title, fontsize=8)
    axes.set_xlabel(curve.x_label, fontsize=7)
    axes.set_ylim(-0.02, 1.02)
    axes.tick_params(labelsize=6)
    axes.set_box_aspect(1)
    if len(names) > 1:
        axes.legend(fontsize=6, frameon=False)
