"""Guided AbsoluteGrad saliency maps and their evaluation.

maps = gag_fast.guided_absgrad(grads, p=85)          # gradients you already have
maps = gag_fast.explain(model, images)               # a torch module
res = gag_fast.evaluate(gag_fast.Classifier("model.onnx"), images, maps, targets)

Names are imported when first used, so that a pipeline which only aggregates gradients never loads
ONNX Runtime.
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# In a checkout the sources come first, the built libraries may be those of an installed copy.
__path__ = extend_path(__path__, __name__)
__version__ = "0.2.0"

_PUBLIC = {
    "GagFastError": "_errors",
    "build_info": "_library",
    "guided_absgrad": "aggregate",
    "GradientStats": "aggregate",
    "explain": "explainer",
    "explain_many": "explainer",
    "methods": "explainer",
    "GuidedAbsGrad": "captum_api",
    "Classifier": "classifier",
    "OnnxExplanation": "onnx_explanation",
    "OnnxGradients": "classifier",
    "Preset": "presets",
    "preset": "presets",
    "evaluate": "evaluation",
    "rcap": "metrics",
    "log_cosh_dice": "metrics",
    "mae": "metrics",
    "load_images": "images",
    "load_model": "models",
    "run": "runs.api",
    "ModelSpec": "models",
    "Preprocessing": "models",
}
__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from gag_fast._errors import GagFastError
    from gag_fast._library import build_info
    from gag_fast.aggregate import GradientStats, guided_absgrad
    from gag_fast.captum_api import GuidedAbsGrad
    from gag_fast.classifier import Classifier, OnnxGradients
    from gag_fast.evaluation import evaluate
    from gag_fast.explainer import explain, explain_many, methods
    from gag_fast.images import load_images
    from gag_fast.metrics import log_cosh_dice, mae, rcap
    from gag_fast.models import ModelSpec, Preprocessing, load_model
    from gag_fast.onnx_explanation import OnnxExplanation
    from gag_fast.presets import Preset, preset
    from gag_fast.runs.api import run


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(f"gag_fast.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gag_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
