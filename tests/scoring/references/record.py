"""Records what libraries that cannot stand beside this project's torch and NumPy say.

xplique wants TensorFlow and SciPy < 1.16, openvino-xai NumPy 1 and OpenVINO 2024.4, pnpxai a dozen
packages that nothing else here needs. Each runs in an environment of its own, on photographs, maps
and a classifier that the project's environment writes first; what comes out are the .npz beside
this file, which test_recorded_references.py holds our measures to. From the root of the checkout:

    .venv/bin/python -m tests.scoring.references.record inputs /tmp/inputs
    python -m venv /tmp/xplique && /tmp/xplique/bin/pip install xplique onnxruntime
    /tmp/xplique/bin/python tests/scoring/references/record.py xplique /tmp/inputs
    python -m venv /tmp/ovxai && /tmp/ovxai/bin/pip install openvino-xai onnxruntime
    /tmp/ovxai/bin/python tests/scoring/references/record.py openvino_xai /tmp/inputs
    python -m venv /tmp/pnpxai && /tmp/pnpxai/bin/pip install pnpxai onnxruntime
    /tmp/pnpxai/bin/python tests/scoring/references/record.py pnpxai /tmp/inputs

The library is called as it is; only the classifier is an ONNX file behind ONNX Runtime (OpenVINO
for openvino-xai), and the explainer of ADCC is plain gradients from a file of them.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
IMAGES, MAPS = 2, 2
GRIDS = (7, 9)  # MuFidelity's; 224 pixels are 7 x 32
STEPS = 8  # AbPC's; 224 x 224 pixels are 8 x 6272


def inputs(folder: Path) -> None:
    """Writes the classifier, its gradients, the photographs, targets and maps."""
    from gag_fast.export import export_gradients, export_onnx
    from gag_fast.models import load_model
    from tests.scoring.scoring_models import scikit_photographs, two_maps

    module, spec = load_model("efficientnet_lite0")
    export_onnx(module, spec, folder / "lite0.onnx")
    export_gradients(module, folder / "lite0.grad.onnx", spec)
    images = scikit_photographs(spec)[:IMAGES]
    targets, maps = two_maps(module, images)
    np.savez(folder / "inputs.npz", images=images, targets=targets, maps=maps)


def xplique(folder: Path) -> dict[str, np.ndarray]:
    """MuFidelity of each image and map, with the sets of cells that were drawn and their falls."""
    import tensorflow as tf
    from xplique.metrics import MuFidelity

    images, targets, maps = _inputs(folder)
    predict = _session(folder / "lite0.onnx")

    def model(x: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(
            lambda x: _softmax(predict(x.transpose(0, 3, 1, 2))), [x], tf.float32
        )
        return tf.ensure_shape(found, (None, 1000))

    class Watched(MuFidelity):
        def _perturb_samples(self, *given):  # type: ignore[no-untyped-def]
            degraded, masks = super()._perturb_samples(*given)
            self.seen = np.asarray(masks)[0, ..., 0]  # [sets, H, W], 0 where a cell is gone
            return degraded, masks

    record: dict[str, np.ndarray] = {}
    tf.random.set_seed(0)
    for grid in GRIDS:
        scores, drawn = np.empty((IMAGES, MAPS)), []
        centres = (np.arange(grid) * 2 + 1) * 224 // (2 * grid)
        for i in range(IMAGES):
            for m in range(MAPS):
                metric = Watched(
                    model,
                    images[i : i + 1].transpose(0, 2, 3, 1),
                    np.eye(1000, dtype=np.float32)[targets[i : i + 1]],
                    grid_size=grid,
                    nb_samples=60,
                )
                scores[i, m] = metric(maps[i : i + 1, m])
                drawn.append(metric.seen[:, centres][:, :, centres] == 0)
        record[f"mufidelity {grid}"] = scores
        sets = np.array(drawn).reshape(IMAGES, MAPS, -1, grid * grid)
        record[f"sets {grid}"] = np.packbits(sets, axis=-1)
    return record


def openvino_xai(folder: Path) -> dict[str, np.ndarray]:
    """ADCC and its three terms of each image and map, the map made again by plain gradients."""
    from types import SimpleNamespace

    import openvino
    from openvino_xai.metrics.adcc import ADCC

    images, targets, maps = _inputs(folder)
    gradients = _session(folder / "lite0.grad.onnx")

    def explain(image: np.ndarray, targets: int, **_: object) -> SimpleNamespace:
        found = gradients(_batch(image), np.array([targets]))[0]
        return SimpleNamespace(saliency_map={targets: np.abs(found).sum(axis=0)})

    core = openvino.Core()
    model = core.read_model(folder / "lite0.onnx")
    metric = ADCC(model, _batch, lambda outputs: _softmax(np.asarray(outputs[0])), explain)
    # It would take bfloat16 on a processor that has it.
    full = {"INFERENCE_PRECISION_HINT": "f32"}
    metric.model_compiled = core.compile_model(model, "CPU", full)
    record = {name: np.empty((IMAGES, MAPS)) for name in ("adcc", "coherency", "average_drop")}
    for i in range(IMAGES):
        for m in range(MAPS):
            found = metric(maps[i, m], int(targets[i]), images[i].transpose(1, 2, 0))
            for name, values in record.items():
                values[i, m] = found[name]
    return record


def pnpxai(folder: Path) -> dict[str, np.ndarray]:
    """AbPC of each image and map, and the two curves it is the area between."""
    import torch
    from pnpxai.evaluator.metrics.pixel_flipping import AbPC

    images, targets, maps = _inputs(folder)
    predict = _session(folder / "lite0.onnx")

    class Session(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.device = torch.nn.Parameter(torch.empty(0))  # its metrics ask for one

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(predict(x.float().numpy()))

    record: dict[str, list[np.ndarray]] = {"abpc": [], "morf": [], "lerf": []}
    for m in range(MAPS):
        area, falling, rising = AbPC(Session(), n_steps=STEPS).evaluate(
            torch.from_numpy(images),
            torch.from_numpy(targets),
            torch.from_numpy(maps[:, m]),
            return_pf=True,
        )
        for name, found in (("abpc", area), ("morf", falling["probs"]), ("lerf", rising["probs"])):
            record[name].append(found.detach().numpy())
    return {name: np.stack(values, axis=1) for name, values in record.items()}


def _inputs(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images float32 [2, 3, 224, 224], targets int64 [2], maps float32 [2, 2, 224, 224]."""
    given = np.load(folder / "inputs.npz")
    return given["images"], given["targets"], given["maps"]


def _session(path: Path):
    """A graph as a function of arrays to its first output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]


def _batch(image: np.ndarray) -> np.ndarray:
    """[H, W, C] as float32 [1, C, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


LIBRARIES = {"xplique": xplique, "openvino_xai": openvino_xai, "pnpxai": pnpxai}


def main() -> None:
    """Write the inputs, or one library's record beside this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["inputs", *LIBRARIES])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.what == "inputs":
        inputs(args.folder)
        return
    found = LIBRARIES[args.what](args.folder)
    np.savez_compressed(HERE / f"{args.what}.npz", version=version(args.what), **found)


if __name__ == "__main__":
    main()
