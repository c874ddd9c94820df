"""Gradients of a classifier through ONNX Runtime: a source of gradients without torch's autograd.

grads = OnnxGradients("x.grad.onnx")(images, targets)
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gag_fast import onnx_metadata
from gag_fast._errors import ClassifierError, within_memory
from gag_fast._inputs import adopted, as_targets
from gag_fast.classifier.arguments import checked_batch_size, checked_images
from gag_fast.classifier.graphs import GraphDriver, GraphLane
from gag_fast.classifier.lanes import Shape
from gag_fast.classifier.opening import check_bounds
from gag_fast.classifier.providers import CPU, Providers
from gag_fast.models import ModelSpec

log = logging.getLogger("gag_fast")
Images = TypeVar("Images", Tensor, np.ndarray)

INPUTS, OUTPUTS = ("images", "targets"), ("gradients", "logits")
TOLERANCE = 0.05
"""Largest relative difference of an image's gradient, sum |difference| / sum |gradient|, between
two float32 providers. ReLUs that rounding turns over make up to 4e-3; a wrong graph, 1 and more."""


class OnnxGradients:
    """Gradients of class scores by the images, from a file that `export_gradients` wrote.

    d score / d image by torch's own autograd, as an ONNX graph. Can stand wherever `explain` takes
    a model; methods that look into a module refuse it.

    Args:
        path: the .onnx file.
        providers: None: the best that works (CUDA, else CPU), or as for `Classifier`. Any other
            than the CPU's is compared with it once on opening, and refused where it is wrong.
        batch_size: images in a pass; None: 1 on the CPU, where passes run side by side, 32 on CUDA.
        precision: "f32", or "bf16" or "fp16" where the provider has it: gradients are then off by
            a tenth to four tenths, which is logged.
        threads: CPU threads; None: torch's number. Each runs passes of its own.
        device: CUDA device index.

    Attributes:
        path: the file.
        sha256: hash of the file's bytes.
        providers: what really runs, in order of preference.
        spec: of the model it was exported from, or None.
        num_classes: K.
        fixed_batch: the batch size where no other can be computed, else None.
        scores: what it differentiates: the class's logit.

    Raises:
        ClassifierError: on loading and on use; one line that names what was received.
    """

    scores: tuple[str, ...] = ("logit",)
    memory_format = torch.contiguous_format

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: str | Providers | None = None,
        batch_size: int | None = None,
        precision: str = "f32",
        *,
        threads: int | None = None,
        device: int = 0,
    ) -> None:
        self.path = Path(path)
        chosen = checked_batch_size(batch_size, None, self.path)
        self._driver = GraphDriver(self.path, providers, precision, threads, device, chosen or 1)
        self._session, self.providers = self._driver.session, self._driver.providers
        self._read_signature()
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        on_cpu = self._driver.device.type == "cpu"
        chosen = checked_batch_size(batch_size, self.fixed_batch, self.path)
        self._rows = chosen or (1 if on_cpu else 32)
        # Several passes a lane at each call: what is done between calls then hardly counts.
        self._at_once = self._rows * (8 * self._driver.lanes_at_once if on_cpu else 1)
        self._lock = threading.RLock()
        self._precision = precision
        if self.providers[0] != CPU or precision != "f32":
            self._compare_with_the_cpu()
        log.info("%s runs on %s", self.path.name, self.providers[0])

    def _read_signature(self) -> None:
        given = {value.name: value for value in self._session.get_inputs()}
        gives = {value.name: value for value in self._session.get_outputs()}
        if tuple(given) != INPUTS or tuple(gives) != OUTPUTS:
            raise ClassifierError(
                f"{self.path.name} is no file of gradients: it must take {', '.join(INPUTS)} and "
                f"give {', '.join(OUTPUTS)}, it takes {', '.join(given)} and gives "
                f"{', '.join(gives)}; write one with gag-fast export NAME OUT.onnx --gradients FILE"
            )
        batch, *shape = given["images"].shape
        self.fixed_batch: int | None = batch if isinstance(batch, int) else None
        scores = gives["logits"].shape
        lengths = (*shape, *scores[1:])
        if len(lengths) != 4 or not all(isinstance(length, int) for length in lengths):
            raise ClassifierError(
                f"{self.path.name} leaves sizes open: images {[batch, *shape]}, logits {scores}"
            )
        check_bounds(given["images"].shape, scores, self.path.name)
        self._shape: Shape = tuple(shape)
        self.num_classes = int(scores[1])
        metadata = self._session.get_modelmeta().custom_metadata_map
        found = onnx_metadata.decode(metadata, self.num_classes, str(self.path), self._shape[0])
        self.spec: ModelSpec | None = None if found is None else found[0]

    @property
    def device(self) -> torch.device:
        """Where the passes run."""
        return self._driver.device

    @within_memory
    def __call__(self, images: Images, targets: Any) -> Images:
        """Gradients float32 [B,C,H,W] of the targets' scores at images [B,C,H,W].

        Args:
            images: torch (CPU or CUDA) or NumPy, normalised for the model.
            targets: classes [B], or one for all.

        Returns:
            the same kind as the images, on the same device.
        """
        images = adopted(images, "images")
        x = checked_images(images, self._shape[0], self._shape[1:])
        classes = as_targets(targets, len(x), self.num_classes)
        found = self._run(x, classes, "gradients")
        if isinstance(images, np.ndarray):
            return found.cpu().numpy()
        return found.to(images.device)

    def check(self, images: Tensor) -> None:
        """Refuses images that do not fit the file; any device will do."""
        checked_images(images, self._shape[0], self._shape[1:])

    def batch_size(self, image: Tensor) -> int:
        """Modified images that keep every lane busy."""
        return self._at_once

    def classes(self, image: Tensor) -> int:
        """K."""
        return self.num_classes

    def logits(self, images: Tensor) -> Tensor:
        """Scores [B, K]: what the file gives beside gradients."""
        targets = torch.zeros(len(images), dtype=torch.int64)
        return self._run(images.float(), targets, "logits").to(images.device)

    def gradients(self, images: Tensor, targets: Tensor, *, score: str = "logit") -> Tensor:
        """Gradients [N,C,H,W] of the targets' scores at images [N,C,H,W], however many."""
        if score not in self.scores:
            raise ClassifierError(
                f"{self.path.name} has no gradient of the {score}: use the module"
            )
        return self._run(images.float(), targets, "gradients").to(images.device)

    def _run(self, images: Tensor, targets: Tensor, wanted: str) -> Tensor:
        rows = self._rows
        shape = (self.num_classes,) if wanted == "logits" else self._shape
        out = torch.empty(len(images), *shape, device=self.device)

        def work(lane: GraphLane, job: int) -> None:
            part = slice(job * rows, min((job + 1) * rows, len(images)))
            count = part.stop - part.start
            lane.inputs["images"][:count].copy_(images[part])
            lane.inputs["targets"][:count].copy_(targets[part])
            lane.run(count if self.fixed_batch is None and self.device.type == "cpu" else rows)
            out[part] = lane.outputs[wanted][:count]

        with self._lock, torch.inference_mode(False):  # callers may keep the result for autograd
            lanes = self._driver.lanes(None, self._new_lane)
            self._driver.drive(lanes, -(-len(images) // rows), work)
        return out

    def _new_lane(self) -> GraphLane:
        images = torch.zeros(self._rows, *self._shape, device=self.device)
        targets = torch.zeros(self._rows, dtype=torch.int64, device=self.device)
        scores = torch.empty(self._rows, self.num_classes, device=self.device)
        return GraphLane(
            self._session,
            {"images": images, "targets": targets},
            {"gradients": torch.empty_like(images), "logits": scores},
        )

    def _compare_with_the_cpu(self) -> None:
        """A provider can be wrong: two images' gradients against those of the CPU's float32."""
        images = torch.randn(2, *self._shape, generator=torch.Generator().manual_seed(0))
        targets = torch.tensor([0, self.num_classes - 1])
        found = self(images, targets)
        right = OnnxGradients(self.path, "cpu", threads=1)(images, targets)
        off = float(((found - right).abs().sum((1, 2, 3)) / right.abs().sum((1, 2, 3))).max())
        if self._precision != "f32":
            log.warning(
                "%s in %s: gradients off by %.2g of their size",
                self.path.name,
                self._precision,
                off,
            )
        elif not off <= TOLERANCE:
            raise ClassifierError(
                f"{self.providers[0]} computes the gradients of {self.path.name} wrong: relative "
                f"difference {off:.2g} from the CPU provider's; use providers='cpu'"
            )

    def __repr__(self) -> str:
        """Provider, classes and size."""
        return f"OnnxGradients({self.path.name}, {self.providers[0]}, {self.num_classes} classes)"
