"""Run folders with made-up numbers, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

METHODS = ("guided_absgrad", "guided_absgrad@0", "smoothgrad", "vargrad", "vanilla")
SIZE = 48


def photograph(index: int, size: int = 64) -> Image.Image:
    """A picture with a blob whose place depends on `index`."""
    y, x = np.mgrid[:size, :size] / size
    cy, cx = 0.3 + 0.1 * (index % 5), 0.35 + 0.08 * (index % 4)
    blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.03)
    channels = [180 * blob + 40, 120 * x + 60 * blob + 30, 160 * y + 40]
    return Image.fromarray(np.stack(channels, -1).clip(0, 255).astype(np.uint8))


def saliency(index: int, method: int, size: int = SIZE) -> np.ndarray:
    """A map whose bright spot is on the blob of `photograph(index)`."""
    rng = np.random.default_rng(100 * index + method)
    y, x = np.mgrid[:size, :size] / size
    cy, cx = 0.3 + 0.1 * (index % 5), 0.35 + 0.08 * (index % 4)
    blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.01 + 0.01 * method))
    return (blob * rng.random((size, size))).astype(np.float16)


def statistics(index: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Mean |g| and variance `[3, size, size]` of as many noisy gradients as one will."""
    rng = np.random.default_rng(index)
    bright = saliency(index, 0, size).astype(np.float32)
    noise = rng.random((3, size, size))
    absmean = (0.002 * noise + 0.1 * bright * noise).astype(np.float32)
    variance = (absmean**2 * rng.gamma(2, 1, (3, size, size))).astype(np.float32)
    return absmean, variance


def columns(names, methods, rng) -> dict:
    """Scores for every (image, method), image by image; guided_absgrad is better than the rest."""
    count, m = len(names), len(methods)
    base = rng.beta(3, 5, count)[:, None]
    merit = np.linspace(0.08, -0.08, m)[None]
    noise = lambda: rng.normal(0, 0.03, (count, m))  # noqa: E731
    rcap = np.clip(0.6 * base + merit + noise(), 0, 1)
    dauc = np.clip(0.5 * base - merit + noise(), 0, 1)
    iauc = np.clip(base + 0.2 + merit + noise(), 0, 1)
    steps = np.linspace(0, 1, 11)
    deletion = base[..., None] * np.exp(-steps / (0.05 + 0.3 * dauc[..., None]))
    insertion = base[..., None] * (1 - np.exp(-steps / (1.2 - 0.9 * iauc[..., None])))
    recover = rcap[..., None] * np.linspace(0.6, 1, 5)
    flat = lambda values: values.reshape(-1).astype(np.float32)  # noqa: E731
    lists = lambda values: list(values.reshape(-1, values.shape[-1]).astype(np.float32))  # noqa: E731
    return {
        "image": list(np.repeat(np.array(names, dtype=object), m)),
        "method": list(methods) * count,
        "target": np.repeat(rng.integers(0, 4, count), m).astype(np.int32),
        "confidence": np.repeat(rng.random(count), m).astype(np.float32),
        "rcap": flat(rcap),
        "dauc": flat(dauc),
        "iauc": flat(iauc),
        "deletion": lists(deletion),
        "insertion": lists(insertion),
        "recover": lists(recover),
        "status": ["ok"] * (count * m),
        "error": [None] * (count * m),
        "chunk": np.repeat(np.arange(count) // 8, m).astype(np.int32),
        "decode_seconds": np.full(count * m, 0.004, np.float32),
        "explain_seconds": np.full(count * m, 0.13, np.float32),
        "score_seconds": np.full(count * m, 0.11, np.float32),
    }


def make_run(
    path: Path,
    *,
    images: int = 12,
    methods=METHODS,
    seed: int = 0,
    names=None,
    fail=(),
    pictures: bool = True,
    labels=("cat", "dog", "cup", "rocket"),
    curves: bool = True,
    live: bool = False,
) -> Path:
    """Writes a run folder and, beside it, its photographs.

    `fail` maps (image index, method) pairs to reasons: rows with status "failed".
    """
    rng = np.random.default_rng(seed)
    names = list(names or (f"photo_{i:04d}.png" for i in range(images)))
    table = columns(names, methods, rng)
    if not curves:
        for name in ("deletion", "insertion", "recover"):
            del table[name]
    for (index, method), reason in dict(fail).items():
        row = index * len(methods) + list(methods).index(method)
        table["status"][row], table["error"][row] = "failed", reason
        for name in ("rcap", "dauc", "iauc"):
            table[name][row] = np.nan
    (path / "results").mkdir(parents=True)
    pq.write_table(pa.table(table), path / "results" / "part-000000.parquet")
    data = path.parent / f"{path.name}-photos"
    if pictures:
        data.mkdir()
        for index, name in enumerate(names):
            photograph(index).save(data / name)
        (path / "maps").mkdir()
        for start in range(0, len(names), 8):
            members = range(start, min(start + 8, len(names)))
            shard = {
                method: np.stack([saliency(i, k) for i in members])
                for k, method in enumerate(methods)
            }
            shard["images"] = np.array([names[i] for i in members])
            if live:
                both = [statistics(i) for i in members]
                shard["live_images"] = shard["images"]
                shard["live_absmean"], shard["live_variance"] = map(np.stack, zip(*both))
            np.savez(path / "maps" / f"part-{start // 8:06d}.npz", **shard)
    manifest = {
        "format": 1,
        "settings": {
            "model": "tiny",
            "preset": {"name": "paper", "lower_bound": 50, "interval": 10},
            "n": 20,
            "noise": 0.15,
            "seed": seed,
            "preprocessing": {
                "size": SIZE,
                "resize": 56,
                "crop": True,
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "interpolation": "bilinear",
            },
        },
        "data": {"source": str(data), "images": len(names)},
        "model": {"name": "tiny", "labels": list(labels)},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path
