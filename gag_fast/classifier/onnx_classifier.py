"""The classifier that scores: an ONNX Runtime session, or any module or function behaving like one.

clf = Classifier("model.onnx")     # probabilities = clf(images)
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast import onnx_metadata
from gag_fast._errors import ClassifierError
from gag_fast.classifier import batch_size as batch_sizes
from gag_fast.classifier import opening
from gag_fast.classifier.arguments import (
    check_score,
    checked_batch_size,
    checked_colours,
    checked_images,
    checked_threads,
)
from gag_fast.classifier.lanes import (
    Backend,
    CallableBackend,
    Collect,
    Fill,
    Lane,
    Shape,
    TorchModule,
    image_shape,
)
from gag_fast.classifier.providers import Providers
from gag_fast.models import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing

log = logging.getLogger("gag_fast")
Images = TypeVar("Images", Tensor, np.ndarray)


class Classifier:
    """Class probabilities of images, in batches, through ONNX Runtime.

    Args:
        path: an .onnx file with one float32 input [B, C, H, W] and one output [B, K].
        providers: None: the best that works (CUDA, else CPU), said in `providers` and in the log.
            "cpu", "cuda", "tensorrt", "openvino", ONNX Runtime's own names, or a list of names and
            (name, options) pairs: that one or an error.
        batch_size: images in a forward pass; None: the fastest here, measured once and remembered
            in the user's cache folder.
        threads: CPU threads; None: torch's number. Each runs forward passes of its own.
        mean: per channel, in [0, 1] pixel units, where the file's metadata has none.
        std: likewise.
        score: what the output is, "logits" or "probabilities", where the metadata does not say
            (default "logits").
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
        providers: what really runs, first first.
        num_classes: K, or None until a function without `num_classes` has run once.
        channels: C, or None where the file leaves it open.
        input_size: side of the square input in pixels, or None where the file leaves it open.
        preprocessing, labels, mean, std: of the model it was exported from, or None.
        score: "logits" or "probabilities".
        fixed_batch: the file's batch size where it is not dynamic, else None.

    Raises:
        ClassifierError: on loading and on use; one line that names what was received.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: str | Providers | None = None,
        batch_size: int | None = None,
        *,
        threads: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        score: str | None = None,
        device: int = 0,
        precision: str = "f32",
        fp16: bool = False,
        tf32: bool = False,
        cuda_graph: bool = False,
        prefer_nhwc: bool = False,
        conv_search: str = "EXHAUSTIVE",
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise ClassifierError(f"there is no file {path}")
        options = {
            "tf32": tf32,
            "cuda_graph": cuda_graph,
            "prefer_nhwc": prefer_nhwc,
            "conv_search": conv_search,
            "precision": "fp16" if fp16 else precision,
            "fp16": fp16 or precision == "fp16",
        }
        threads = checked_threads(threads)
        opened = opening.open_classifier(path, providers, threads, device, options)
        facts = opened.facts
        self._start(opened.backend, opened.providers, facts.channels, facts.size, facts.classes)
        self.path: Path | None = path
        self.fixed_batch = facts.fixed_batch
        self._read_metadata(facts.metadata, mean, std, score)
        self._batch_size = checked_batch_size(batch_size, facts.fixed_batch, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self._cache_key = " ".join(
            map(str, (digest, *opened.key, threads, *(f"{k}={v}" for k, v in options.items())))
        )
        if self.fixed_batch is not None:
            log.warning(
                "%s has a fixed batch of %d: it works, slower than one exported with a dynamic "
                "batch",
                path.name,
                self.fixed_batch,
            )
        log.info("%s runs on %s", path.name, self.providers[0])

    @classmethod
    def from_torch(
        cls, module: nn.Module, spec: ModelSpec | None = None, batch_size: int = 16
    ) -> Classifier:
        """A torch module giving logits, run in eval mode on the device of its parameters.

        Args:
            module: takes images [B, C, H, W] and gives logits [B, K].
            spec: its preprocessing and labels, as `load_model` returns them; without it the
                images are taken to be normalised with ImageNet's mean and std.
            batch_size: images in a forward pass.
        """
        parameter = next(module.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        clf = cls.from_callable(
            TorchModule(module),
            num_classes=None if spec is None else spec.num_classes,
            input_size=None if spec is None else spec.preprocessing.size,
            batch_size=batch_size,
            device=device,
        )
        clf.providers = (f"torch:{device.type}",)
        if spec is not None:
            clf.preprocessing, clf.labels = spec.preprocessing, spec.labels
            clf.mean, clf.std = spec.preprocessing.mean, spec.preprocessing.std
        return clf

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Tensor], Any],
        *,
        num_classes: int | None = None,
        input_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        score: str = "logits",
        labels: Sequence[str] | None = None,
        batch_size: int = 16,
        device: str | torch.device = "cpu",
    ) -> Classifier:
        """Any function of a float32 batch [batch_size, C, H, W] that gives scores [batch_size, K].

        The function gets a tensor that is overwritten after it returns, always of the full batch:
        rows beyond the last image hold older ones.
        """
        clf = cls.__new__(cls)
        backend = CallableBackend(function, torch.device(device))
        clf._start(backend, ("callable",), None, input_size, num_classes)
        clf.path, clf.fixed_batch, clf._cache_key = None, None, ""
        clf._read_metadata({}, mean, std, score)
        clf.labels = None if labels is None else tuple(labels)
        clf._batch_size = checked_batch_size(batch_size, None, None)
        return clf

    def _start(
        self,
        backend: Backend,
        providers: tuple[str, ...],
        channels: int | None,
        size: tuple[int, int] | int | None,
        num_classes: int | None,
    ) -> None:
        self.backend, self.providers = backend, providers
        self.channels, self.num_classes = channels, num_classes
        self._size = (size, size) if isinstance(size, int) else size
        self._lanes: tuple[int, Shape, list[Lane]] | None = None
        self._lock = threading.RLock()
        self._warned = False
        self.rates: dict[int, float] = {}

    def _read_metadata(
        self,
        metadata: Mapping[str, str],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        score: str | None,
    ) -> None:
        check_score(score)
        self.preprocessing: Preprocessing | None = None
        self.labels: tuple[str, ...] | None = None
        self.mean, self.std = checked_colours(mean, std, self.channels)
        self.score = score or "logits"
        if self.num_classes is None:
            return
        found = onnx_metadata.decode(metadata, self.num_classes, str(self.path))
        if found is not None:
            spec, self.score = found
            self.preprocessing, self.labels = spec.preprocessing, spec.labels
            self.mean, self.std = spec.preprocessing.mean, spec.preprocessing.std

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
        """A black pixel after normalisation, (0 - mean) / std: float32 [C] on the CPU.

        Without metadata and without `mean`: ImageNet's for 3 channels, else 0 stays 0.
        """
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,), (1.0,))
            if not self._warned:
                log.warning("this classifier names no mean and std; taking %s and %s", mean, std)
            self._warned = True
        black = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        return black.expand(channels).float().clone() if len(mean) == 1 else black.float()

    def __call__(self, images: Images) -> Images:
        """Class probabilities float32 [B, K] of images [B, C, H, W].

        Args:
            images: torch (CPU or CUDA) or NumPy, normalised for the model.

        Returns:
            the same kind, on the same device.
        """
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
        """Raw scores [N, K] as probabilities."""
        return scores.softmax(dim=1) if self.score == "logits" else scores

    def drive(self, jobs: int, shape: Shape, fill: Fill, collect: Collect) -> None:
        """Runs batches through the classifier: see `backends.Backend.drive`."""
        batch = self.batch_size
        with self._lock:  # two threads may share a classifier, not its buffers
            if self._lanes is None or self._lanes[:2] != (batch, shape):
                self._lanes = None  # the old buffers go before the new ones come
                self._lanes = (batch, shape, self.backend.open(batch, shape))
            self.backend.drive(self._lanes[2], jobs, fill, collect)

    def classes(self, images: Tensor) -> int:
        """K; found with one forward pass where nothing said it yet."""
        if self.num_classes is None:

            def fill(buffer: Tensor, job: int) -> int:
                buffer[:1].copy_(images[:1])
                return 1

            def collect(scores: Tensor, job: int) -> None:
                self.num_classes = scores.shape[1]

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
        return (
            f"Classifier({name}, {self.providers[0]}, {self.num_classes} classes, "
            f"input {self.input_size or 'any'})"
        )
