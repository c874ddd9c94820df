"""Measures: all of them on one plan of pictures, and each beside its reference on the same work.

The work is the same where both show the classifier the same pictures, or explain as often; a row's
`pictures` says how many there really were, counted as they went through.
"""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gag_fast
from benchmarks import material
from benchmarks.competitors import FixedMaps
from benchmarks.suites import Cases, Group
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.measures import MEASURES, Need
from gag_fast.metrics import evaluate, plan
from gag_fast.presets import preset

BUDGET = 15.0  # seconds of a group, of three rounds at least
COUNT, MAPS, PART = 16, 4, 2  # photographs, maps of each, photographs a round
FORWARD = tuple(m.name for m in MEASURES.values() if m.needs == {Need.FORWARDS})
THREE_SHARES = {"information_shares": (0.05, 0.2, 0.5)}  # the reference takes seconds a picture
FILES = ("aic", "sic")  # they ask for the size of a file of every picture, from an encoder
OTHERS = tuple(name for name in FORWARD if name not in FILES)
SESSION, ENCODER = "the session alone", "the encoder alone"


def pictures_by_measure() -> list[str]:
    """Lines: the pictures that the photographs take, measure by measure and in all."""
    clf = material.classifier()
    images, maps, targets = material.scored_images(COUNT, MAPS)
    found = plan(clf, images, maps, targets, FORWARD)
    alone = {name: found.distinct(MEASURES[name].curves) for name in FORWARD}
    each = ", ".join(f"{name} {pictures}" for name, pictures in alone.items())
    total = sum(alone.values())
    return [
        f"Pictures of {COUNT} photographs x {MAPS} maps: {each}.",
        f"{total} in sum, {total - len(found)} of them shared, {len(found)} in all; "
        f"{found.distinct([c for n in OTHERS for c in MEASURES[n].curves])} without aic and sic.",
    ]


def together(names: tuple[str, ...], title: str, photographs: range) -> Group:
    """Some measures of some of the 16 photographs beside as many pictures through the bare session.

    Each round takes the next `PART` of them, so that all have had their turn after the last.
    """
    group = Group(
        f"{title}, photographs {photographs[0] + 1} to {photographs[-1] + 1} of {COUNT} x {MAPS} "
        f"maps, {PART} a round",
        ("gag_fast.evaluate", SESSION) + (ENCODER,) * ("aic" in names),
        lambda: setup(),
        floor=SESSION,
        part=ENCODER,
        unit="picture",
        rounds=len(photographs) // PART,
    )

    def setup() -> Cases:
        import onnxruntime

        clf = material.classifier()
        x, maps, targets = material.scored_images(COUNT, MAPS)
        session = onnxruntime.InferenceSession(
            str(material.lite0_onnx()), providers=["CPUExecutionProvider"]
        )
        name, size = session.get_inputs()[0].name, clf.batch_size
        parts = [slice(at, at + PART) for at in photographs[::PART]]
        plans = [plan(clf, x[part], maps[part], targets[part], names) for part in parts]
        batches = x[:1].expand(max(map(len, plans)), -1, -1, -1).numpy()

        def ours(at: int) -> None:
            part = parts[at]
            evaluate(clf, x[part], maps[part], targets[part], names)

        def bare(at: int) -> None:
            for start in range(0, len(plans[at]), size):
                session.run(None, {name: batches[start : min(start + size, len(plans[at]))]})

        def files(at: int) -> None:
            encode([pixels[parts[at]][owner] for owner in plans[at].owner])

        pixels = eight_bits(x)
        group.pictures.update(dict.fromkeys(group.names, len(plans[0])))
        group.notes.append(f"Pictures of all rounds: {sum(map(len, plans))}.")
        if names == OTHERS:
            group.notes.extend(pictures_by_measure())
        cases = dict(zip(group.names, (ours, bare, files), strict=False))
        # The uncounted first call takes the part that the last round takes again.
        return {case: in_turn(call, len(parts)) for case, call in cases.items()}

    return group


def in_turn(call: Callable[[int], None], parts: int) -> Callable[[], None]:
    """A call of the last part, then of each one from the first on."""
    order = itertools.chain([parts - 1], itertools.cycle(range(parts)))
    return lambda: call(next(order))


def eight_bits(images: Tensor) -> list[np.ndarray]:
    """Normalised images as pixels uint8 [H, W, C]."""
    preprocessing = material.lite0()[1].preprocessing
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).contiguous().numpy())


def encode(pictures: list[np.ndarray]) -> None:
    """A file of each picture by the encoder that aic and sic are defined with, in two threads."""
    from PIL import Image

    def size(pixels: np.ndarray) -> int:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="webp", lossless=True, quality=100)
        return file.tell()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(size, pictures))


class Counted:
    """A module, and how many images have gone through it."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, tally = module, [0]

        def add(_: Any, inputs: tuple[Tensor, ...]) -> None:
            tally[0] += len(inputs[0])  # of copies of the module, too: a function is not copied

        self._tally = tally
        module.register_forward_pre_hook(add)

    def of(self, call: Callable[[], object]) -> int:
        """How many images a call shows the module."""
        before = self._tally[0]
        call()
        return self._tally[0] - before


def beside(
    measures: tuple[str, ...],
    reference: str,
    theirs: Callable[..., Callable[[], object] | None],
    *,
    results: int = 1,
    rounds: int | None = None,
    again: str | None = None,
    **fields: Any,
) -> Group:
    """Some measures beside a library's.

    Args:
        measures: ours.
        reference: the library's name for it.
        theirs: (counted module, images, maps, targets, masks, preset) -> the library's call, or
            raises ImportError where it is not installed.
        results: photographs, with one map each.
        rounds: how often it is timed; None: as often as the budget allows.
        again: the method that explains again, for measures that need it.
        fields: of the preset.
    """
    group = Group(
        f"{', '.join(measures)}, {results} map{'s' * (results > 1)}",
        ("gag_fast.evaluate", reference),
        lambda: setup(),
        units=results,
        unit="result",
        rounds=rounds,
    )

    def setup() -> Cases:
        clf, chosen = material.classifier(), preset("paper", **fields)
        counted = Counted(copy.deepcopy(material.lite0()[0]))
        images, maps, targets = material.scored_images(results, 1)
        masks = (maps[:, 0] > maps[:, 0].flatten(1).median(dim=1).values[:, None, None]).float()
        given: dict[str, Any] = {"masks": masks}
        if again is not None:
            weights = any(Need.WEIGHTS in MEASURES[name].needs for name in measures)
            maps = gag_fast.explain(counted.module, images, targets, method=again)[:, None]
            # At work for the rest of the process, as Captum's explainer is.
            engine = GradientEngine(copy.deepcopy(counted.module)).__enter__()
            given = {"model": counted.module if weights else engine, "explain": again}

        def ours() -> gag_fast.metrics.Scores:
            return gag_fast.evaluate(clf, images, maps, targets, measures, chosen, **given)

        cases: Cases = {"gag_fast.evaluate": ours}
        found: list[gag_fast.metrics.Scores] = []
        explained = counted.of(lambda: found.append(ours()))
        group.pictures["gag_fast.evaluate"] = found[0].forwards + explained
        try:
            call = theirs(counted.module, images, maps, targets, masks, chosen)
        except ImportError:
            return cases
        group.pictures[reference] = counted.of(call)
        return {**cases, reference: call}

    return group


# ---- the references ------------------------------------------------------------------------------


def grad_cam_road(module, images, maps, targets, masks, chosen):
    """grad-cam's ROADCombined at the same shares; it scores the whole image with each picture."""
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    metric = ROADCombined(percentiles=[round(100 * (1 - share)) for share in chosen.road_shares])
    wanted = [ClassifierOutputSoftmaxTarget(int(t)) for t in targets]
    return lambda: metric(images, maps[:, 0].numpy(), wanted, module)


def torch_cam(module, images, maps, targets, masks, chosen):
    """torch-cam's ClassificationMetric, given the maps at hand."""
    from torchcam.metrics import ClassificationMetric

    def call():
        metric = ClassificationMetric(FixedMaps(module, maps[:, 0]), lambda x: x.softmax(-1))
        metric.update(images, targets.tolist())
        return metric.summary()

    return call


def saliency_pic(module, images, maps, targets, masks, chosen):
    """saliency's compute_pic_metric (SIC) at the same thresholds."""
    from saliency.metrics import pic

    np.trapz = getattr(np, "trapz", np.trapezoid)  # NumPy 2.4 no longer has it
    preprocessing = material.lite0()[1].preprocessing
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    first = np.random.default_rng(0).random(images.shape[2:]) < chosen.information_seeds

    def predict(pictures):
        x = (torch.from_numpy(pictures).float() / 255 - mean) / std
        with torch.no_grad():
            return module(x.permute(0, 3, 1, 2)).softmax(dim=1)[:, targets[0]].numpy()

    photo, saliency = eight_bits(images)[0], maps[0, 0].numpy()
    shares = list(chosen.information_shares)
    return lambda: pic.compute_pic_metric(photo, saliency, first, predict, shares, 0.0)


def captum_infidelity(module, images, maps, targets, masks, chosen):
    """Captum's infidelity with as much noise; it scores the whole image with each picture."""
    from captum.metrics import infidelity

    def changed(x):
        noise = chosen.infidelity_noise * torch.randn_like(x)
        return noise, x - noise

    def probability(x):
        with torch.no_grad():
            return module(x).softmax(dim=1)[:, targets[0]]

    attributions, samples = maps.expand_as(images), chosen.infidelity_samples
    return lambda: infidelity(
        probability, changed, images, attributions, n_perturb_samples=samples, normalize=True
    )


def captum_sensitivity(module, images, maps, targets, masks, chosen):
    """Captum's sensitivity_max of its own Saliency; it explains the image itself once more."""
    from captum.attr import Saliency
    from captum.metrics import sensitivity_max

    explainer = Saliency(module)
    return lambda: sensitivity_max(
        explainer.attribute,
        images,
        perturb_radius=chosen.sensitivity_radius,
        n_perturb_samples=chosen.sensitivity_samples,
        target=targets,
    )


def quantus(*names: str, again: str | None = None, **options: Any):
    """Metrics of Quantus with some options, one after the other, on the maps at hand."""

    def theirs(module, images, maps, targets, masks, chosen):
        import quantus

        plain = {"abs": False, "normalise": False, "disable_warnings": True}
        metrics = [getattr(quantus, name)(**plain, **options) for name in names]
        given = {"s_batch": masks[:, None].numpy(), "a_batch": maps.numpy(), "device": "cpu"}
        if again is not None:

            def explain(model, inputs, targets, **_):
                found = gag_fast.explain(
                    model, torch.as_tensor(inputs), torch.as_tensor(targets), method=again
                )
                return found[:, None].numpy()

            given["explain_func"] = explain

        def call():
            for metric in metrics:
                x = images.numpy().copy()
                metric(model=module, x_batch=x, y_batch=targets.numpy(), **given)

        return call

    return theirs


MAPS_ALONE = {
    "gini": "Sparseness",
    "entropy": "Complexity",
    "pointing_game": "PointingGame",
    "relevance_mass": "RelevanceMassAccuracy",
    "relevance_rank": "RelevanceRankAccuracy",
}


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite; Quantus' PixelFlipping stands in the suite `scoring`."""
    return [
        together(OTHERS, "all forward-pass measures but aic and sic", range(COUNT)),
        together(FILES, "aic, sic", range(COUNT // 2)),
        together(FILES, "aic, sic", range(COUNT // 2, COUNT)),
        beside(("road",), "grad-cam ROADCombined", grad_cam_road),
        beside(("aic", "sic"), "saliency compute_pic_metric", saliency_pic, **THREE_SHARES),
        beside(
            ("average_drop", "increase"), "torch-cam ClassificationMetric", torch_cam, results=8
        ),
        beside(("infidelity",), "Captum infidelity", captum_infidelity),
        beside(("max_sensitivity",), "Captum sensitivity_max", captum_sensitivity, again="vanilla"),
        beside(
            ("mprt",),
            "Quantus MPRT",
            quantus("MPRT", again="vanilla", layer_order="top_down"),
            rounds=1,  # a minute and a half
            again="vanilla",
            randomise_groups=0,
        ),
        beside(
            ("emprt",),
            "Quantus EfficientMPRT",
            quantus("EfficientMPRT", again="vanilla"),
            results=8,
            again="vanilla",
        ),
        *(
            beside((name,), f"Quantus {theirs}", quantus(theirs), results=8)
            for name, theirs in MAPS_ALONE.items()
        ),
    ]
