"""Saliency maps by guided_absgrad from one .onnx file, without torch's autograd.

maps = OnnxExplanation("gag.onnx")(images, targets)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gag_fast import onnx_metadata, ops
from gag_fast._errors import ClassifierError, within_memory
from gag_fast._inputs import adopted, as_percents, as_targets
from gag_fast.attribution.inputs import as_keys
from gag_fast.classifier.arguments import checked_images
from gag_fast.classifier.graphs import GraphDriver, GraphLane
from gag_fast.classifier.opening import check_bounds
from gag_fast.classifier.providers import Providers
from gag_fast.models import ModelSpec

Images = TypeVar("Images", Tensor, np.ndarray)
INPUTS, OUTPUTS = ("images", "targets", "noise", "p"), ("maps",)


class OnnxExplanation:
    """Runs a file that `export_explanation` wrote, an image on each lane: Algorithm 1 as a graph.

    Args:
        path: the .onnx file.
        providers: None: the best that works (CUDA, else CPU), or as for `Classifier`.
        precision: as for `OnnxGradients`; less than "f32" changes the maps.
        threads: CPU threads; None: torch's number. Each explains an image of its own.
        device: CUDA device index.

    Attributes:
        path: the file.
        providers: what really runs, in order of preference.
        spec: of the model it was exported from, or None.
        num_classes: K.

    Raises:
        ClassifierError: on loading and on use; one line that names what was received.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: str | Providers | None = None,
        *,
        precision: str = "f32",
        threads: int | None = None,
        device: int = 0,
    ) -> None:
        self.path = Path(path)
        self._driver = GraphDriver(self.path, providers, precision, threads, device, batch=1)
        self._session, self.providers = self._driver.session, self._driver.providers
        self._lock = threading.RLock()
        given = {value.name: value for value in self._session.get_inputs()}
        gives = tuple(value.name for value in self._session.get_outputs())
        if set(given) != set(INPUTS) or gives != OUTPUTS:
            raise ClassifierError(
                f"{self.path.name} is no file of an explanation: it takes {', '.join(given)} and "
                f"gives {', '.join(gives)}; write one with gag-fast export NAME OUT.onnx "
                "--explanation FILE"
            )
        shape = given["images"].shape
        if len(shape) != 4 or not all(isinstance(length, int) for length in shape[1:]):
            raise ClassifierError(f"{self.path.name} leaves the images' size open: {shape}")
        check_bounds(shape, (), self.path.name)
        self._shape = (shape[1], shape[2], shape[3])
        metadata = self._session.get_modelmeta().custom_metadata_map
        classes = metadata.get("classes", "")
        if not (classes.isascii() and classes.isdigit()):
            raise ClassifierError(
                f"{self.path}: the metadata's number of classes is {classes[:40]!r}"
            )
        self.num_classes = int(classes)
        found = onnx_metadata.decode(metadata, self.num_classes, str(self.path), shape[1])
        self.spec: ModelSpec | None = None if found is None else found[0]

    @within_memory
    def __call__(
        self,
        images: Images,
        targets: Any,
        noise: Tensor | np.ndarray | None = None,
        p: float | Sequence[float] = 85,
        seed: int = 0,
        *,
        n: int = 20,
        image_ids: Sequence[int] | Tensor | None = None,
    ) -> Images:
        """Maps [B,H,W] in [0, 1], or [B,k,H,W] for k percents.

        Args:
            images: [B,C,H,W], normalised for the model, torch or NumPy.
            targets: classes [B], or one for all.
            noise: standard normal [n,C,H,W], the same for every image; None: what `explain` draws,
                a function of (seed, image, sample).
            p: percent or percents of the guide.
            seed: of the noise, where none is given.
            n: number of samples, where no noise is given.
            image_ids: what stands for the images in the noise, as for `explain`.

        Returns:
            the same kind as the images, on the same device.
        """
        images = adopted(images, "images")
        x = checked_images(images, self._shape[0], self._shape[1:])
        percents, single = as_percents(p)
        classes = as_targets(targets, len(x), self.num_classes)
        fixed = self._checked_noise(noise)
        count = n if fixed is None else len(fixed)
        if count < 2 and any(percents):
            raise ClassifierError(f"the guide needs at least 2 samples, got {count}")
        keys = as_keys(image_ids, x)
        out = torch.empty(len(x), len(percents), *self._shape[1:], device=self._driver.device)

        def work(lane: GraphLane, job: int) -> None:
            lane.inputs["images"].copy_(x[job : job + 1])
            lane.inputs["targets"].copy_(classes[job : job + 1])
            if fixed is None:
                lane.inputs["noise"].copy_(_drawn(keys[job : job + 1], self._shape, seed, count))
            lane.run(1)
            out[job] = lane.outputs["maps"][0]

        with self._lock, torch.inference_mode(False):
            sizes = (count, len(percents))
            lanes = self._driver.lanes(sizes, partial(self._new_lane, *sizes))
            for lane in lanes:
                lane.inputs["p"].copy_(torch.tensor(percents))
                if fixed is not None:
                    lane.inputs["noise"].copy_(fixed)
            self._driver.drive(lanes, len(x), work)
        maps = out[:, 0] if single else out
        if isinstance(images, np.ndarray):
            return maps.cpu().numpy()
        return maps.to(images.device)

    def _checked_noise(self, noise: Any) -> Tensor | None:
        if noise is None:
            return None
        given = torch.as_tensor(noise)
        if given.ndim != 4 or tuple(given.shape[1:]) != self._shape or len(given) == 0:
            wanted = ", ".join(map(str, self._shape))
            raise ClassifierError(f"noise must be [n, {wanted}], got {list(given.shape)}")
        return given.float()

    def _new_lane(self, samples: int, percents: int) -> GraphLane:
        device = self._driver.device
        inputs = {
            "images": torch.zeros(1, *self._shape, device=device),
            "targets": torch.zeros(1, dtype=torch.int64, device=device),
            "noise": torch.zeros(samples, *self._shape, device=device),
            "p": torch.zeros(percents, device=device),
        }
        maps = torch.empty(1, percents, *self._shape[1:], device=device)
        return GraphLane(self._session, inputs, {"maps": maps}, frozenset({"noise", "p"}))

    def __repr__(self) -> str:
        """Provider and size."""
        return f"OnnxExplanation({self.path.name}, {self.providers[0]}, {list(self._shape)})"


def _drawn(keys: Tensor, shape: tuple[int, int, int], seed: int, count: int) -> Tensor:
    """The standard normal noise [n,C,H,W] of one image, as `explain` draws it."""
    zeros, ones = torch.zeros(1, *shape), torch.ones(1)
    noise = ops.gaussian_noise(zeros, keys.cpu(), ones, seed=seed, first_sample=0, samples=count)
    return noise[0]
