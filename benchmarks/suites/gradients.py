"""Gradients: explain() on EfficientNet-Lite0, n = 20 noisy copies, beside the loops users write."""

from __future__ import annotations

import torch

from benchmarks.competitors import authors_loop, captum_noise_tunnel
from benchmarks.suites import Cases, Group
from gag_fast.explainer import explain
from gag_fast.models import load_model

BATCH, N = 8, 20


def noisy_gradients(device: str) -> Group:
    """8 images x 20 samples: 160 forward and backward passes."""

    def setup() -> Cases:
        model, spec = load_model("efficientnet_lite0")
        model = model.to(device)
        size = spec.preprocessing.size
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(BATCH, 3, size, size, generator=generator).to(device)
        targets = torch.arange(BATCH, device=device)
        cases: Cases = {
            "gag_fast.explain": lambda: explain(model, images, targets, n=N),
            "authors' loop": lambda: authors_loop(model, images, targets, N),
        }
        tunnel = captum_noise_tunnel(model, N)
        if tunnel is not None:
            cases["Captum NoiseTunnel"] = lambda: tunnel(images, targets)
        return cases

    names = ("gag_fast.explain", "authors' loop", "Captum NoiseTunnel")
    return Group(
        f"EfficientNet-Lite0, {BATCH} images x {N} samples",
        names,
        setup,
        units=BATCH * N,
        unit="forward+backward",
    )


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [noisy_gradients(device)]
