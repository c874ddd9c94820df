"""Session throughput by batch size: ONNX Runtime beside torch, on EfficientNet-Lite0."""

from __future__ import annotations

import copy

import numpy as np
import torch

from benchmarks import material
from benchmarks.suites import Cases, Group


def forward(batch: int, device: str) -> Group:
    """Class scores of one batch."""

    def setup() -> Cases:
        import onnxruntime

        module, spec = material.lite0()
        size = spec.preprocessing.size
        images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        clf = material.classifier(device)
        clf.batch_size  # noqa: B018 - measured once, not inside the first timed call
        session = onnxruntime.InferenceSession(
            str(material.lite0_onnx()), providers=["CPUExecutionProvider"]
        )
        name, array = session.get_inputs()[0].name, images.numpy()
        last = copy.deepcopy(module).to(memory_format=torch.channels_last)
        images_last = images.to(memory_format=torch.channels_last)

        def torch_forward(network, x):
            with torch.inference_mode():
                return network(x)

        return {
            "gag_fast.Classifier": lambda: clf(images),
            "bare session": lambda: session.run(None, {name: np.asarray(array)}),
            "torch, channels_last": lambda: torch_forward(last, images_last),
            "torch, NCHW": lambda: torch_forward(module, images),
        }

    names = ("gag_fast.Classifier", "bare session", "torch, channels_last", "torch, NCHW")
    return Group(
        f"EfficientNet-Lite0 forward, batch {batch}",
        names,
        setup,
        floor="bare session",
        units=batch,
        unit="image",
    )


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [forward(batch, device) for batch in (1, 4, 16, 64)]
