"""A user's script in which a type checker finds nothing, at its strictest. Checked, never run."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import gag_fast
from gag_fast.export import export_onnx
from gag_fast.measures import MeasureName


def aggregated(grads: Tensor, arrays: npt.NDArray[np.float32]) -> None:
    one: Tensor = gag_fast.guided_absgrad(grads, p=85)
    many: Tensor = gag_fast.guided_absgrad([grads, grads], p=[15, 50], channels="keep")
    numpy: npt.NDArray[Any] = gag_fast.guided_absgrad(arrays, normalize=False)
    stats = gag_fast.GradientStats()
    stats.update(grads)
    stats.merge(gag_fast.GradientStats())
    print(one.shape, many.shape, numpy.shape, stats.count, stats.guided_absgrad(p=65))


class Elsewhere:
    """An array of some other library."""

    def __dlpack__(self, *, stream: int | None = None) -> object:
        return stream


def of_others(array: Elsewhere, model: nn.Module) -> Tensor:
    maps: Tensor = gag_fast.guided_absgrad(array)
    return maps + gag_fast.explain(model, array)


def explained(model: nn.Module, images: Tensor, arrays: npt.NDArray[np.float32]) -> Tensor:
    maps = gag_fast.explain(model, images, [1, 2], "smoothgrad", n=8, noise=0.1, progress=True)
    theirs: npt.NDArray[Any] = gag_fast.explain(model, arrays, method="guided_absgrad@65")
    several = gag_fast.explain_many(model, images, methods=["vargrad", "my.module:function"])
    source = gag_fast.OnnxGradients("x.grad.onnx")
    total = maps + several["vargrad"] + gag_fast.explain(source, images, steps=10)
    print(theirs.mean(), gag_fast.methods())
    return total.cpu()


def scored(
    images: Tensor,
    arrays: npt.NDArray[np.float32],
    maps: Tensor,
    masks: Tensor,
    names: list[MeasureName],
) -> float:
    clf = gag_fast.Classifier("model.onnx", providers="cpu")
    res = gag_fast.evaluate(clf, images, maps, [1, 2], ("rcap", "dauc"), "rise", masks)
    more: gag_fast.Scores[Tensor] = gag_fast.evaluate(clf, images, maps, [1, 2], names, masks=masks)
    numpy = gag_fast.evaluate("model.onnx", arrays, maps, [1, 2], "all", progress=print)
    changed = gag_fast.preset("paper", lower_bound=60)
    loss: Tensor = gag_fast.mae(maps, masks) + gag_fast.log_cosh_dice(maps, masks)
    alone: Tensor = gag_fast.rcap(clf, images, maps, [1, 2], preset=changed)
    print(clf(images).argmax(1), res.curves["deletion"].shape, more.gini.mean(), alone, loss)
    return float(res.rcap.mean() + numpy.emprt.sum())


def whole(folder: Path) -> bool:
    model, spec = gag_fast.load_model("efficientnet_lite0")
    images = gag_fast.load_images([folder / "cat.jpg"], spec)
    export_onnx(model, spec, folder / "model.onnx")
    summary = gag_fast.run(
        folder,
        "efficientnet_lite0",
        ["guided_absgrad", "smoothgrad"],
        folder / "run",
        metrics=["rcap"],
        progress=False,
    )
    print(images.shape, torch.get_num_threads(), gag_fast.build_info()["version"])
    return summary.complete
