"""The facts of a classifier that travel inside its ONNX file, as ONNX metadata_props strings.

Keys: `gag_fast.format` (version of this list), `name`, `mean`, `std`, `input_size`, `resize`,
`crop`, `interpolation`, `labels`, `score`, `weights`, `weights_sha256`. Words are written as they
are, everything else (numbers, lists, true/false) as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gag_fast._errors import ClassifierError, GagFastError, InputTypeError
from gag_fast.models import ModelSpec, Preprocessing
from gag_fast.scores import SCORES

FORMAT = 1


def encode(spec: ModelSpec, score: str) -> dict[str, str]:
    """The metadata_props of a classifier; `score` says what its output is ("logits" or so)."""
    p = spec.preprocessing
    values: dict[str, Any] = {
        "gag_fast.format": FORMAT,
        "name": spec.name,
        "mean": p.mean,
        "std": p.std,
        "input_size": p.size,
        "resize": p.resize,
        "crop": p.crop,
        "interpolation": p.interpolation,
        "labels": spec.labels,
        "score": score,
        "weights": spec.weights,
        "weights_sha256": spec.weights_sha256,
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def decode(
    props: Mapping[str, str],
    num_classes: int,
    source: str = "the file",
    channels: int | None = None,
) -> tuple[ModelSpec, str] | None:
    """The reverse of `encode`, or None where the file carries no metadata of ours.

    Args:
        props: the metadata_props of a file.
        num_classes: K of its output.
        source: the file's name, for messages.
        channels: of the images it takes, None where it leaves them open. One value of mean and std
            serves any number of channels.

    Raises:
        ClassifierError: a newer format, a missing key or a value that is not what it should be.
    """
    if "gag_fast.format" not in props:
        return None
    try:
        return _decoded(props, num_classes, channels)
    except KeyError as error:
        raise ClassifierError(f"{source}: the metadata lacks {error}") from None
    except (TypeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ClassifierError(f"{source}: the metadata cannot be read: {error}") from None
    except ValueError as error:  # worded by this package
        raise ClassifierError(f"{source}: {error}") from None


def _decoded(
    props: Mapping[str, str], num_classes: int, channels: int | None
) -> tuple[ModelSpec, str]:
    values: dict[str, Any] = {
        k: props[k] if k in _WORDS else json.loads(props[k], parse_constant=_no_number)
        for k in props
        if k in _KEYS
    }
    if values["gag_fast.format"] != FORMAT:
        raise GagFastError(
            f"metadata format {values['gag_fast.format']} is not {FORMAT}, the one this "
            "version of gag_fast reads; export the file again"
        )
    preprocessing = Preprocessing(
        size=int(values["input_size"]),
        resize=int(values["resize"]),
        crop=bool(values["crop"]),
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        interpolation=values["interpolation"],
    )
    colours = len(preprocessing.mean)
    if channels is not None and colours not in (1, channels):
        raise GagFastError(f"{colours} values of mean and std for {channels} channels")
    given = values["labels"]
    if given is not None and not (
        isinstance(given, list) and all(isinstance(label, str) for label in given)
    ):
        raise InputTypeError(f"labels must be a list of names, got {json.dumps(given)[:40]}")
    labels = None if given is None else tuple(given)
    if values["score"] not in SCORES:
        raise GagFastError(f"score must be one of {', '.join(SCORES)}, got {values['score']!r}")
    if labels is not None and len(labels) != num_classes:
        raise GagFastError(f"{len(labels)} labels for {num_classes} classes")
    spec = ModelSpec(
        values["name"],
        preprocessing,
        num_classes,
        labels,
        values["weights"],
        values["weights_sha256"],
    )
    return spec, values["score"]


def _no_number(text: str) -> float:
    raise GagFastError(f"{text} in the metadata is no number")


_WORDS = frozenset({"name", "interpolation", "score", "weights", "weights_sha256"})
_KEYS = frozenset(encode(ModelSpec("", Preprocessing(), 1), SCORES[0]))
