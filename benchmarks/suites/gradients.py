"""Gradients: explain() on EfficientNet-Lite0, n = 20 noisy copies, beside the loops users write."""

from __future__ import annotations

import torch

from benchmarks.suites import Cases, Group
from gag_fast.explainer import explain
from gag_fast.models import load_model

BATCH, N = 8, 20


def authors_loop(model: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor):
    """The published code's loop: n passes over the batch, NCHW, weights not frozen."""
    std = 0.15 * (images.max() - images.min())
    samples = []
    for _ in range(N):
        noisy = (images + torch.randn_like(images) * std).requires_grad_(True)
        model(noisy).gather(1, targets[:, None]).sum().backward()
        samples.append(noisy.grad)
    model.zero_grad(set_to_none=True)
    return samples


def captum_noise_tunnel(model: torch.nn.Module):
    """Captum's NoiseTunnel over Saliency, or None where Captum is not installed."""
    try:
        from captum.attr import NoiseTunnel, Saliency
    except ImportError:
        return None
    tunnel = NoiseTunnel(Saliency(model))

    def attribute(images: torch.Tensor, targets: torch.Tensor):
        return tunnel.attribute(
            images, nt_type="smoothgrad", nt_samples=N, nt_samples_batch_size=1, stdevs=0.6,
            target=targets, abs=False,
        )  # fmt: skip

    return attribute


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
            "authors' loop": lambda: authors_loop(model, images, targets),
        }
        tunnel = captum_noise_tunnel(model)
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
