"""The manifest: what a run was asked for, and whether two of them agree."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import gag_fast
from gag_fast._run_files import canonical, flat_settings
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.own import fingerprint, is_own
from gag_fast.attribution.registry import cost_of, recipes_of
from gag_fast.data import Dataset
from gag_fast.measures import named, preset_of
from gag_fast.models import ModelSpec
from gag_fast.runs.given import open_maps
from gag_fast.runs.worker import Work

FORMAT = 1
LATER: dict[str, Any] = {
    "image_ids": "pixels",
    "until_decided": None,
    "presets": [],
    "gradients": "torch",
    "gradients_sha256": None,
}
"""Settings that came after format 1's first folders: what a folder without them was computed with.

By their names as `differences` shows them ("preset.order"). So an older run is taken up and goes on
as it began, and a start that asks for something else is still refused."""
_NAMED = ("n", "noise", "p", "seed")
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "onnx", "onnxruntime-gpu", "onnxruntime")


def settings_of(work: Work, spec: ModelSpec, dataset: Dataset, chunk: int) -> dict[str, Any]:
    """Everything that decides the numbers of a run, as JSON values; equal for an equal run.

    Not among them: where files lie, engine, number of workers and the classifier's batch size,
    none of which changes a result.
    """
    settings: dict[str, Any] = {
        "data": dataset.fingerprint(),
        "images": len(dataset),
        "model": work.model,
        "model_sha256": spec.weights_sha256,
        "onnx_sha256": file_hash(work.onnx),
        "preprocessing": asdict(spec.preprocessing),
        "methods": list(work.methods),
        "metrics": list(work.metrics),
        "preset": preset_of(asdict(work.preset), named(work.metrics)),
        "presets": [asdict(preset) for preset in work.presets],
        **explaining(work.explanation),
        "image_ids": work.image_ids,
        "batch_size": work.batch_size,
        "chunk": chunk,
        "device": work.device,
        "provider": work.provider,
        "until_decided": None if work.until_decided is None else asdict(work.until_decided),
        "gradients": work.gradients,
        "gradients_sha256": None if work.gradients_file is None else file_hash(work.gradients_file),
        "maps": work.keep_maps,
    }
    # Only where there are any, so that other runs have the settings they always had.
    if own := {name: fingerprint(name.split("/")[0]) for name in work.methods if is_own(name)}:
        settings["own_methods"] = own
    if work.score is not None:
        settings["score"] = work.score
    if work.output is not None:
        settings["output"] = work.output
    if work.maps:
        given = open_maps(work.maps)
        settings["given_maps"] = {name: maps.fingerprint() for name, maps in given.items()}
    return json.loads(canonical(settings))  # tuples become lists, as they will be when read back


def explaining(how: Explanation) -> dict[str, Any]:
    """How to explain, in full: four keys, and whatever else was said under "options"."""
    said = how.changed()
    return {
        "n": how.count,
        "noise": how.noise,
        "p": how.p,
        "seed": how.seed,
        "options": {k: v for k, v in said.items() if k not in _NAMED} | dict(how.options),
    }


def manifest_of(
    settings: Mapping[str, Any], work: Work, spec: ModelSpec, dataset: Dataset, choice: str
) -> dict[str, Any]:
    """The content of manifest.json: the settings, and what a reader wants to know beside them.

    `choice` says which images of the source these are.
    """
    return {
        "format": FORMAT,
        "created": now(),
        "settings": dict(settings),
        "data": {
            "source": os.path.abspath(dataset.source),
            "images": len(dataset),
            "with_masks": sum(item.mask is not None for item in dataset.items),
            "choice": _choice(work, choice),
        },
        "model": {
            "name": spec.name,
            "weights": spec.weights,
            "num_classes": spec.num_classes,
            "score": spec.score,
            "onnx": os.path.abspath(work.onnx),
            "labels": spec.labels,
        },
        "resolved": {
            "batch_size": work.batch_size,
            "score_batch": work.score_batch,
            "threads": work.threads,
            "layer": work.layer,
        },
        "passes": {
            method: sum(cost_of(recipe, work.explanation, (spec.preprocessing.size,) * 2))
            for method, recipe in (recipes_of(work.methods) if work.methods else {}).items()
        },
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
    }


def _choice(work: Work, choice: str) -> str:
    if work.until_decided is None:
        return choice
    return f"{choice}, in a random order of seed {work.until_decided.seed} until decided"


def commit() -> str | None:
    """The commit of the checkout that this package runs from; None outside of one."""
    git = Path(gag_fast.__file__).parents[1] / ".git"
    try:
        if git.is_file():  # a worktree: the file names its folder
            git = Path(git.read_text().partition("gitdir:")[2].strip())
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head[:12]
        name = head.partition(" ")[2]
        common = git / "commondir"
        shared = (git / common.read_text().strip()) if common.exists() else git
        if (shared / name).exists():
            return (shared / name).read_text().strip()[:12]
        packed = (shared / "packed-refs").read_text().splitlines()
        return next((line[:12] for line in packed if line.endswith(f" {name}")), None)
    except OSError:
        return None


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A folder's settings, with those that came after it was begun."""
    return {**LATER, **flat_settings(stored)}


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """In words, one for each setting that differs: "p: 85 in the folder, 65 now"."""
    found = []
    flat_stored, flat_asked = flat_settings(stored), flat_settings(asked)
    for key in sorted(flat_stored.keys() | flat_asked.keys()):
        old, new = (_short(flat.get(key)) for flat in (flat_stored, flat_asked))
        if flat_stored.get(key) != flat_asked.get(key):
            found.append(f"{key}: {old} in the folder, {new} now")
    return found


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that the numbers come from."""
    found = {"gag_fast": gag_fast.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Where it ran."""
    facts: dict[str, Any] = {
        "host": platform.node(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def now() -> str:
    """The time, UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(v) for v in value)
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text  # a hash
