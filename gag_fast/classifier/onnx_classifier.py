"""The classifier that scores: an ONNX Runtime session, or any module or function behaving like one.

clf = Classifier("model.onnx")     # probabilities = clf(images)
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast import onnx_metadata
from gag_fast._errors import ClassifierError, within_memory
from gag_fast._inputs import adopted
from gag_fast.classifier import batch_size as batch_sizes
from gag_fast.classifier import opening
from gag_fast.classifier.arguments import (
    checked_batch_size,
    checked_colours,
    checked_images,
    checked_threads,
)
from gag_fast.classifier.foreign import Wanted
from gag_fast.classifier.lanes import (
    Collect,
    Fill,
    Lane,
    Shape,
    TorchModule,
    check_process,
    image_shape,
)
from gag_fast.classifier.opening import Facts, Opened
from gag_fast.classifier.providers import Providers
from gag_fast.models import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from gag_fast.scores import Reading, check_score, read

log = logging.getLogger("gag_fast")
Images = TypeVar("Images", Tensor, np.ndarray)


class Classifier:
    """Class probabilities of images, in batches, through ONNX Runtime.

    Args:
        source: an .onnx file with one input of images, [B, C, H, W] or [B, H, W, C], float32,
            float16 or uint8 pixels, and an output [B, K] or [B]; or what `opening` opened.
        providers: None: the best that works (CUDA, else CPU), said in `providers` and in the log.
            "cpu", "cuda", "tensorrt", "openvino", ONNX Runtime's own names, or a list of names and
            (name, options) pairs: that one or an error.
        batch_size: images in a forward pass; None: the fastest here, measured once and remembered
            in the user's cache folder.
        threads: CPU threads; None: torch's number. Each runs forward passes of its own.
        mean: per channel, in [0, 1] pixel units, where the file's metadata has none.
        std: likewise.
        score: what the output is, "logits", "probabilities" or "sigmoid" (see `gag_fast.scores`);
            None: what the metadata says, else what the first images show.
        output: name of the output that holds the scores, where there are several.
        device: CUDA device index.
        precision: what the passes compute in, "f32", "fp16" or "bf16" (openvino and tensorrt);
            inputs and outputs stay float32. Less than float32 changes the scores.
        fp16: the same as precision="fp16".
        tf32: allow TensorFloat-32 on CUDA.
        cuda_graph: replay the forward pass as one CUDA graph.
        prefer_nhwc: channels-last kernels on CUDA.
        conv_search: how cuDNN's algorithm is chosen, none of them by timing since ONNX Runtime
            1.20: "EXHAUSTIVE" (its heuristic mode B), "HEURISTIC" (mode A) or "DEFAULT" (the
            list of fallbacks).

    Attributes:
        path: the file, or None.
        providers: what really runs, in order of preference.
        num_classes: K, or None until a function without `num_classes` has run once.
        channels: C, or None where the file leaves it open.
        input_size: side of the square input in pixels, or None where the file leaves it open.
        preprocessing, labels, mean, std: of the model it was exported from, or None.
        score: "logits", "probabilities" or "sigmoid"; None until the first images have shown it.
        fixed_batch: the file's batch size where it is not dynamic, else None.

    Raises:
        ClassifierError: on loading and on use; one line that names what was received.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Opened,
        providers: str | Providers | None = None,
        batch_size: int | None = None,
        *,
        threads: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        score: str | None = None,
        output: str | None = None,
        device: int = 0,
        precision: str = "f32",
        fp16: bool = False,
        tf32: bool = False,
        cuda_graph: bool = False,
        prefer_nhwc: bool = False,
        conv_search: str = "EXHAUSTIVE",
    ) -> None:
        check_score(score)
        if isinstance(source, Opened):
            opened = source
        else:
            options = {
                "tf32": tf32,
                "cuda_graph": cuda_graph,
                "prefer_nhwc": prefer_nhwc,
                "conv_search": conv_search,
                "precision": "fp16" if fp16 else precision,
                "fp16": fp16 or precision == "fp16",
            }
            opened = opening.open_classifier(
                Path(source),
                providers,
                checked_threads(threads),
                device,
                options,
                Wanted(output, mean, std),
            )
        facts = opened.facts
        self.backend, self.providers, self.path = opened.backend, opened.providers, opened.path
        self.channels, self._size, self.fixed_batch = facts.channels, facts.size, facts.fixed_batch
        self._raw_classes = facts.classes
        self._cache_key = " ".join(opened.key)
        self._lanes: tuple[int, Shape, list[Lane]] | None = None
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._reading_lock = threading.Lock()
        self._warned = False
        self.rates: dict[int, float] = {}
        found = self._metadata(facts)
        spec = opened.spec if found is None else found[0]
        self.preprocessing: Preprocessing | None = None if spec is None else spec.preprocessing
        self.labels: tuple[str, ...] | None = None if spec is None else spec.labels
        self.weights_sha256 = "" if spec is None else spec.weights_sha256
        self.mean, self.std = checked_colours(mean, std, self.channels)
        if self.preprocessing is not None:
            self.mean, self.std = self.preprocessing.mean, self.preprocessing.std
        self._declared = score if found is None else found[1]
        if found is not None and score not in (None, found[1]):
            raise ClassifierError(
                f"{self.path} says its scores are {found[1]}, got score={score!r}"
            )
        self._reading: Reading | None = None
        self._batch_size = checked_batch_size(batch_size, facts.fixed_batch, self.path)
        if self.path is not None:
            if self.fixed_batch is not None:
                log.warning(
                    "%s has a fixed batch of %d: it works, slower than one exported with a dynamic "
                    "batch",
                    self.path.name,
                    self.fixed_batch,
                )
            log.info("%s runs on %s", self.path.name, self.providers[0])

    def _metadata(self, facts: Facts) -> tuple[ModelSpec, str] | None:
        if facts.classes is None:
            return None
        classes = max(2, facts.classes)
        return onnx_metadata.decode(facts.metadata, classes, str(self.path), facts.channels)

    @classmethod
    def from_torch(
        cls,
        module: nn.Module,
        spec: ModelSpec | None = None,
        batch_size: int = 16,
        *,
        score: str | None = None,
    ) -> Classifier:
        """A torch module, run in eval mode on the device of its parameters.

        Args:
            module: takes images [B, C, H, W] and gives scores [B, K], as `scores.scores_of` finds
                them in its output.
            spec: its preprocessing and labels, as `load_model` returns them; without it the
                images are taken to be normalised with ImageNet's mean and std.
            batch_size: images in a forward pass.
            score: as for a file.
        """
        parameter = next(module.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        size = None if spec is None else (spec.preprocessing.size,) * 2
        opened = opening.opened_callable(
            TorchModule(module), f"torch:{device.type}", device, None, size, spec
        )
        if score is None and spec is not None:
            score = spec.score
        return cls(opened, batch_size=batch_size, score=score)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Tensor], Any],
        *,
        num_classes: int | None = None,
        input_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        score: str | None = None,
        labels: Sequence[str] | None = None,
        batch_size: int = 16,
        device: str | torch.device = "cpu",
    ) -> Classifier:
        """Any function of a float32 batch [batch_size, C, H, W] that gives scores [batch_size, K].

        The function gets a tensor that is overwritten after it returns, always of the full batch:
        rows beyond the last image hold older ones.
        """
        size = None if input_size is None else (input_size, input_size)
        opened = opening.opened_callable(
            function, "callable", torch.device(device), num_classes, size
        )
        clf = cls(opened, batch_size=batch_size, mean=mean, std=std, score=score)
        clf.labels = None if labels is None else tuple(labels)
        return clf

    @property
    def score(self) -> str | None:
        """What the output is: one of `scores.SCORES`, or None while nothing has shown it."""
        return self._declared if self._reading is None else self._reading.kind

    @property
    def num_classes(self) -> int | None:
        """K, two for a single output; None until a function without `num_classes` has run once."""
        return None if self._raw_classes is None else max(2, self._raw_classes)

    @property
    def input_size(self) -> int | None:
        """Side of the square input in pixels; None where it is open or not square."""
        return self._size[0] if self._size and self._size[0] == self._size[1] else None

    @property
    def device(self) -> torch.device:
        """Where the forward passes run and input buffers lie."""
        return self.backend.device

    @property
    def batch_size(self) -> int:
        """Images in a forward pass; measured at first use where none was given."""
        if self._batch_size is None:
            self._batch_size = self._find_batch_size()
        return self._batch_size

    def _find_batch_size(self) -> int:
        known = batch_sizes.remembered(self._cache_key)
        if known is not None:
            return known
        if self._size is None:
            return 16  # no shape to measure with
        batch, self.rates = batch_sizes.measure(self.backend, (self.channels or 3, *self._size))
        batch_sizes.remember(self._cache_key, batch)
        log.info(
            "batch size %d, of %s",
            batch,
            ", ".join(f"{b}: {rate:.0f} images/s" for b, rate in self.rates.items()),
        )
        return batch

    def black(self, channels: int) -> Tensor:
        """A black pixel after normalisation, (0 - mean) / std: float32 [C] on the CPU."""
        mean, std = self.colours(channels)
        return (-mean / std).float()

    def colours(self, channels: int) -> tuple[Tensor, Tensor]:
        """The mean and std that images were normalised with: float64 [C] each, on the CPU.

        Without metadata and without `mean`: ImageNet's for 3 channels, else 0 and 1.
        """
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,), (1.0,))
            if not self._warned:
                log.warning("this classifier names no mean and std; taking %s and %s", mean, std)
            self._warned = True
        first, second = (torch.tensor(v, dtype=torch.float64) for v in (mean, std))
        return first.expand(channels).clone(), second.expand(channels).clone()

    @within_memory
    def __call__(self, images: Images) -> Images:
        """Class probabilities float32 [B, K] of images [B, C, H, W].

        Args:
            images: torch (CPU or CUDA) or NumPy, normalised for the model.

        Returns:
            the same kind, on the same device.
        """
        images = adopted(images, "images")
        x = self.check_images(images)
        classes = self.classes(x)
        out = torch.empty(x.shape[0], classes, device=self.device)
        batch = self.batch_size

        def fill(buffer: Tensor, job: int) -> int:
            part = x[job * batch : (job + 1) * batch]
            buffer[: part.shape[0]].copy_(part)
            return part.shape[0]

        def collect(scores: Tensor, job: int) -> None:
            out[job * batch : job * batch + scores.shape[0]] = self.probabilities(scores)

        self.drive(-(-x.shape[0] // batch), image_shape(x), fill, collect)
        if isinstance(images, np.ndarray):
            return out.cpu().numpy()
        return out.to(images.device)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Raw scores [N, K] as probabilities; the first ones show of what kind they are."""
        with self._reading_lock:
            if self._reading is None:
                self._reading = read(scores, self._declared, self._far_away)
                name = self.path.name if self.path else self.providers[0]
                log.info("%s: the scores are read as %s", name, self._reading)
        return self._reading.probabilities(scores)

    def logits(self, scores: Tensor) -> Tensor:
        """Raw scores [N, K] as logits, two columns for a single output.

        Raises:
            ClassifierError: the file gives probabilities, of which there are no logits.
        """
        self.probabilities(scores[:1])  # shows of what kind they are
        assert self._reading is not None
        if self._reading.applied:
            raise ClassifierError(f"{self!r} gives probabilities, no logits")
        return self._reading.wide(scores)

    def _far_away(self) -> Tensor:
        """Raw scores of images far from any real one, through a lane of its own."""
        assert self._lanes is not None  # scores came through one
        lane = self.backend.open(*self._lanes[:2])[0]
        noise = torch.Generator().manual_seed(0)
        values = torch.randn(lane.buffer.shape[1:], generator=noise)
        raw = []
        for factor in (30.0, -30.0):
            lane.buffer.copy_((values * factor).expand_as(lane.buffer))
            with torch.inference_mode():
                raw.append(lane.run(1).clone())
        return torch.cat(raw)

    def drive(self, jobs: int, shape: Shape, fill: Fill, collect: Collect) -> None:
        """Runs batches through the classifier: see `backends.Backend.drive`."""
        check_process(self._process, "this Classifier is")
        batch = self.batch_size
        with self._lock:  # two threads may share a classifier, not its buffers
            if self._lanes is None or self._lanes[:2] != (batch, shape):
                self._lanes = None  # the old buffers go before the new ones come
                self._lanes = (batch, shape, self.backend.open(batch, shape))
            self.backend.drive(self._lanes[2], jobs, fill, collect)

    def classes(self, images: Tensor) -> int:
        """K; found with one forward pass where nothing said it yet."""
        if self._raw_classes is None:

            def fill(buffer: Tensor, job: int) -> int:
                buffer[:1].copy_(images[:1])
                return 1

            def collect(scores: Tensor, job: int) -> None:
                self._raw_classes = scores.shape[1]

            self.drive(1, image_shape(images), fill, collect)
        assert self.num_classes is not None
        return self.num_classes

    def check_images(self, images: Any) -> Tensor:
        """Images as a float32 tensor [B, C, H, W] that fits the model, wherever it lies.

        Raises:
            ClassifierError: naming what was received and what is expected.
        """
        return checked_images(images, self.channels, self._size)

    def __repr__(self) -> str:
        """Provider, classes and size."""
        name = self.path.name if self.path else self.providers[0]
        read_as = self._reading or self._declared or "scores of a kind not seen yet"
        return (
            f"Classifier({name}, {self.providers[0]}, {self.num_classes} classes, "
            f"input {self.input_size or 'any'}, {read_as})"
        )
