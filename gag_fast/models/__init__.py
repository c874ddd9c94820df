"""Classifiers by name: the torch module, its preprocessing and its labels.

spec.py      Preprocessing, ModelSpec, and small tools for modules
weights.py   weights from files
adapter.py   modules made to give one tensor of scores
sources.py   where classifiers come from
names.py     load_model()

Imports only torch until a name is loaded.
"""

from gag_fast.models.adapter import Logits, Scores, adapted
from gag_fast.models.names import given_model, load_model, model_names
from gag_fast.models.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    ModelError,
    ModelSpec,
    Preprocessing,
    device_of,
    imagenet_labels,
    seeded,
    state_hash,
)
from gag_fast.models.weights import fill_state, read_state

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INTERPOLATIONS",
    "Logits",
    "ModelError",
    "ModelSpec",
    "Preprocessing",
    "Scores",
    "adapted",
    "device_of",
    "fill_state",
    "given_model",
    "imagenet_labels",
    "load_model",
    "model_names",
    "read_state",
    "seeded",
    "state_hash",
]
