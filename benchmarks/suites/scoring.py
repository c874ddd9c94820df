"""Scoring: RCAP, deletion and insertion of saliency maps, per preset, beside others' ways.

benchmarks/scoring.py is the long form of the first group: more images, the share of the bare
session's rate, the forwards that sharing saves.
"""

from __future__ import annotations

from benchmarks import material
from benchmarks.competitors import FixedMaps, authors_way
from benchmarks.suites import Cases, Group
from gag_fast.metrics import evaluate, plan
from gag_fast.presets import preset

IMAGES, MAPS = 2, 4
QUANTUS_STEP = 1792  # values; Quantus wants a divisor of H W
PICTURES = 3 * 224 * 224 // QUANTUS_STEP


def three_metrics(device: str) -> Group:
    """RCAP, DAUC and IAUC of 2 images x 4 maps under the paper's definition."""

    def setup() -> Cases:
        import onnxruntime

        clf = material.classifier(device)
        module, spec = material.lite0()
        images, maps, targets = material.scored_images(IMAGES, MAPS)
        forwards = len(plan(clf, images, maps, targets))
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        session = onnxruntime.InferenceSession(str(material.lite0_onnx()), providers=[provider])
        name, size = session.get_inputs()[0].name, clf.batch_size
        batches = images[:1].expand(forwards, -1, -1, -1).numpy()

        def bare():
            for at in range(0, forwards, size):
                session.run(None, {name: batches[at : at + size]})

        return {
            "gag_fast.evaluate": lambda: evaluate(clf, images, maps, targets),
            "the session alone": bare,
            "the authors' way": lambda: authors_way(
                module, images, maps, targets, spec.preprocessing
            ),
        }

    return Group(
        f"paper preset, {IMAGES} images x {MAPS} maps",
        ("gag_fast.evaluate", "the session alone", "the authors' way"),
        setup,
        floor="the session alone",
        units=IMAGES * MAPS,
        unit="map",
    )


def deletion_insertion(device: str) -> Group:
    """Both curves as torch-cam's metric defines them."""

    def setup() -> Cases:
        clf = material.classifier(device)
        module, _ = material.lite0()
        images, maps, targets = material.scored_images(1, 1)
        curves = ("dauc", "iauc")
        cases: Cases = {
            "gag_fast.evaluate": lambda: evaluate(
                clf, images, maps, targets, metrics=curves, preset="torchcam"
            )
        }
        try:
            from torchcam.metrics import DeletionInsertionMetric
        except ImportError:
            return cases

        def torchcam():
            metric = DeletionInsertionMetric(FixedMaps(module, maps[:, 0]), lambda x: x.softmax(-1))
            metric.update(images, targets.tolist())
            return metric.summary()

        return {**cases, "torch-cam DeletionInsertionMetric": torchcam}

    names = ("gag_fast.evaluate", "torch-cam DeletionInsertionMetric")
    return Group("torchcam preset, 1 image", names, setup, units=1, unit="map")


def rise(device: str) -> Group:
    """RISE's deletion, in larger steps, beside Quantus' PixelFlipping over as many pictures.

    Quantus spreads a map of one channel over all three and ranks the C H W values, so a step of
    1792 of them makes 84 pictures; ours are 84 too, of as many pixels each, and the image itself.
    """

    def setup() -> Cases:
        clf = material.classifier(device)
        module, _ = material.lite0()
        images, maps, targets = material.scored_images(1, 1)
        coarse = preset("rise", step_unit="count", step=PICTURES)
        cases: Cases = {
            "gag_fast.evaluate, deletion": lambda: evaluate(
                clf, images, maps, targets, metrics=("dauc",), preset=coarse
            )
        }
        try:
            import quantus
        except ImportError:
            return cases
        # The curve, not its area: Quantus 0.6 calls np.trapz, which NumPy 2.4 no longer has.
        metric = quantus.PixelFlipping(features_in_step=QUANTUS_STEP, disable_warnings=True)
        return {
            **cases,
            "Quantus PixelFlipping": lambda: metric(
                model=module,
                x_batch=images.numpy(),
                y_batch=targets.numpy(),
                a_batch=maps.numpy(),
                device="cpu",
            ),
        }

    names = ("gag_fast.evaluate, deletion", "Quantus PixelFlipping")
    return Group(
        f"rise preset, deletion in {PICTURES} steps, 1 image", names, setup, units=1, unit="map"
    )


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [three_metrics(device), deletion_insertion(device), rise(device)]
