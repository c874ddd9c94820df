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
    "Scores": "metrics",
    "plot": "plotting",
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

if TYPE_CHECKING:  # what a type checker sees: these names, and no others
    from gag_fast._errors import GagFastError as GagFastError
    from gag_fast._library import build_info as build_info
    from gag_fast.aggregate import GradientStats as GradientStats
    from gag_fast.aggregate import guided_absgrad as guided_absgrad
    from gag_fast.captum_api import GuidedAbsGrad as GuidedAbsGrad
    from gag_fast.classifier import Classifier as Classifier
    from gag_fast.classifier import OnnxGradients as OnnxGradients
    from gag_fast.evaluation import evaluate as evaluate
    from gag_fast.explainer import explain as explain
    from gag_fast.explainer import explain_many as explain_many
    from gag_fast.explainer import methods as methods
    from gag_fast.images import load_images as load_images
    from gag_fast.metrics import Scores as Scores
    from gag_fast.metrics import log_cosh_dice as log_cosh_dice
    from gag_fast.metrics import mae as mae
    from gag_fast.metrics import rcap as rcap
    from gag_fast.models import ModelSpec as ModelSpec
    from gag_fast.models import Preprocessing as Preprocessing
    from gag_fast.models import load_model as load_model
    from gag_fast.onnx_explanation import OnnxExplanation as OnnxExplanation
    from gag_fast.plotting import plot as plot
    from gag_fast.presets import Preset as Preset
    from gag_fast.presets import preset as preset
    from gag_fast.runs.api import run as run
else:
    __all__ = sorted(_PUBLIC)

    def __getattr__(name: str) -> Any:
        if name in _PUBLIC:
            value = getattr(import_module(f"gag_fast.{_PUBLIC[name]}"), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module 'gag_fast' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
