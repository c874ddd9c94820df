"""Methods that need forward passes only, beside the bare session and beside Captum.

RISE with few masks does what it does with 4,000, less often: a mask is made, shown and summed.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from benchmarks import material
from benchmarks.scoring import BARE_BATCHES, bare_rate
from benchmarks.suites import Cases, Group
from gag_fast.explainer import explain

MASKS = 256
WINDOW, STRIDE = 32, 32


def rise(device: str) -> Group:
    """RISE of one photograph; the bare session is given as many pictures at its best batch."""

    def setup() -> Cases:
        clf = material.classifier(device)
        images, _, targets = material.scored_images(1, 1)
        session = onnxruntime.InferenceSession(
            str(material.lite0_onnx()), providers=["CPUExecutionProvider"]
        )
        side = images.shape[-1]
        rates = {b: bare_rate(session, b, side, 0.5) for b in BARE_BATCHES}
        batch = max(rates, key=lambda b: rates[b] if MASKS % b == 0 else 0.0)
        shape = (batch, *images.shape[1:])
        array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        name = session.get_inputs()[0].name

        def bare() -> None:
            for _ in range(MASKS // batch):
                session.run(None, {name: array})

        return {
            "gag_fast.explain": lambda: explain(clf, images, targets, "rise", masks=MASKS),
            "bare session": bare,
        }

    names = ("gag_fast.explain", "bare session")
    title = f"RISE, {MASKS} masks, 1 image"
    return Group(title, names, setup, floor="bare session", units=MASKS, unit="picture")


def occlusion(device: str) -> Group:
    """Occlusion by as many windows, through the session and through torch."""

    def setup() -> Cases:
        clf = material.classifier(device)
        module, _ = material.lite0()
        images, _, targets = material.scored_images(1, 1)
        cases: Cases = {
            "gag_fast.explain": lambda: explain(
                clf, images, targets, "occlusion", window=WINDOW, stride=STRIDE
            )
        }
        try:
            from captum.attr import Occlusion
        except ImportError:
            return cases
        method = Occlusion(module)

        def captum() -> None:
            with torch.inference_mode():
                method.attribute(
                    images,
                    (3, WINDOW, WINDOW),
                    strides=(3, STRIDE, STRIDE),
                    target=targets,
                    perturbations_per_eval=8,
                )

        return {**cases, "Captum Occlusion": captum}

    names = ("gag_fast.explain", "Captum Occlusion")
    return Group("occlusion, 49 windows, 1 image", names, setup, units=50, unit="picture")


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [rise(device), occlusion(device)]
