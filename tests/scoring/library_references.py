"""What Captum, Quantus, saliency and ADCC's equation say of maps.

`given` is a module, its classifier, images [B, C, H, W], targets [B] and their maps [B, H, W].
"""

from unittest import mock

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

import gag_fast
from gag_fast.metrics import evaluate, information, robustness
from gag_fast.metrics.case import Case
from gag_fast.presets import preset


def vanilla(module, images, targets):
    return gag_fast.explain(module, images, targets, method="vanilla")


def judge(given, *names, **fields):
    """Our scores of the given vanilla maps."""
    module, clf, images, targets, maps = given
    chosen = preset("paper", **fields)
    return evaluate(clf, images, maps, targets, names, chosen, model=module, explain=vanilla)


def captum_sensitivity(given, samples, **fields):
    """Captum's sensitivity_max under the same changes of the images: [B]."""
    captum = pytest.importorskip("captum.metrics")
    module, clf, images, targets, maps = given
    case = Case(images, maps[:, None], targets, None, *clf.colours(3), preset("paper", **fields))
    keys = gag_fast.ops.image_keys(images).tolist()
    # Captum repeats every image so often in a row.
    shifts = torch.stack([robustness._shift(case, key, n) for key in keys for n in range(samples)])

    def one(x):
        return x[0] if isinstance(x, tuple) else x

    def explain(x):
        times = len(one(x)) // len(images)
        return (vanilla(module, one(x), targets.repeat_interleave(times)),)

    return captum.sensitivity_max(
        explain, images, perturb_func=lambda x: one(x) + shifts, n_perturb_samples=samples
    ).float()


def quantus_randomisation(given, order):
    """Quantus' MPRT after each layer [layers, B] and its EfficientMPRT [B], seeded like our 43."""
    quantus = pytest.importorskip("quantus")
    module, _, images, targets, maps = given

    def explain(model, inputs, targets, **_):
        return vanilla(model, torch.as_tensor(inputs), torch.as_tensor(targets))[:, None].numpy()

    call = {
        "model": module,
        "x_batch": images.numpy(),
        "y_batch": targets.numpy(),
        "a_batch": None,
        "explain_func": explain,
        "device": "cpu",
    }
    plain = {"layer_order": order, "seed": 42, "disable_warnings": True, "normalise": False}
    layers = quantus.MPRT(**plain, abs=False)(**call)
    layers.pop("original", None)
    rises = quantus.EfficientMPRT(**plain, abs=False)(**{**call, "a_batch": maps[:, None].numpy()})
    return np.array(list(layers.values())), np.array(rises)


def adcc_by_equation(given):
    """3 / (1/coherency + 1/(1 - complexity) + 1/(1 - average drop)) of each map, in plain torch."""
    stats = pytest.importorskip("scipy.stats")
    module, _, images, targets, maps = given
    dimmed = images * maps[:, None]
    again = vanilla(module, dimmed, targets)
    with torch.no_grad():
        before, after = (module(x).softmax(dim=1) for x in (images, dimmed))
    found = []
    for i, target in enumerate(targets.tolist()):
        drop = max(0.0, float(before[i, target] - after[i, target])) / float(before[i, target])
        correlation = stats.pearsonr(maps[i].flatten(), again[i].flatten())[0]
        terms = ((1 + correlation) / 2, 1 - float(maps[i].mean()), 1 - drop)
        found.append(3 / sum(1 / term for term in terms))
    return found


def saliency_information(given, chosen):
    """saliency's compute_pic_metric of the first image: {"aic": area, "sic": area}."""
    pic = pytest.importorskip("saliency.metrics.pic")
    module, clf, images, targets, maps = given
    case = Case(images[:1], maps[:1, None], targets[:1], None, *clf.colours(3), chosen)
    target, (mean, std) = int(targets[0]), (v.float() for v in clf.colours(3))

    def predict(pictures, accuracy):
        x = (torch.from_numpy(pictures).float() / 255 - mean) / std
        with torch.no_grad():
            p = module(x.permute(0, 3, 1, 2)).softmax(dim=1)
        return (p.argmax(dim=1) == target).double().numpy() if accuracy else p[:, target].numpy()

    # NumPy 2 lacks what saliency calls.
    with mock.patch.object(np, "trapz", trapezoid, create=True):
        return {
            name: pic.compute_pic_metric(
                information._as_pixels(case)[0],
                maps[0].numpy(),
                information.seed_mask(case, 0),
                lambda pictures, accuracy=name == "aic": predict(pictures, accuracy),
                list(chosen.information_shares),
                min_pred_value=0,
            ).auc
            for name in ("aic", "sic")
        }
