"""Photographs: those of the ImageNet samples where they are, and small made-up ones to write."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tests import ROOT

SAMPLES = Path(
    os.environ.get("GAG_FAST_PHOTOS") or ROOT.parent / "shared" / "data" / "imagenet-samples"
)


def save_photo(path: Path, seed: int, height: int = 40, width: int = 36) -> Path:
    """Smooth random colours: a real gradient everywhere."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path
