"""Random numbers that belong to a picture: a function of (seed, image, number), nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from gag_fast import ops


def image_numbers(images: Tensor) -> list[int]:
    """A 64-bit number for each image [B, C, H, W], of its pixels alone."""
    return ops.image_keys(images).tolist()


def noise_of(
    shape: torch.Size, key: int, seed: int, device: torch.device, number: int = 0
) -> Tensor:
    """Standard normal noise of a shape [C, H, W] for an image's key and a number."""
    keys = torch.tensor([key], dtype=torch.int64, device=device)
    zero = torch.zeros(1, *shape, device=device)
    std = torch.ones(1, device=device)
    found = ops.gaussian_noise(zero, keys, std, seed=seed, first_sample=number, samples=1)
    return found[0, 0]


def generator_of(key: int, seed: int, number: int = 0) -> torch.Generator:
    """A CPU generator for other draws, of the same three numbers."""
    mixed = (key * 0x9E3779B97F4A7C15 + seed * 0xBF58476D1CE4E5B9 + number) & (2**63 - 1)
    return torch.Generator().manual_seed(mixed)
