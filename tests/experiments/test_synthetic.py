import csv

import numpy as np
import pytest
import torch
from PIL import Image

from gag_fast.experiments import synthetic
from gag_fast.models import load_model


def test_images_are_a_function_of_seed_and_place():
    images, masks, labels = synthetic.make_dataset(8, seed=3)
    again = synthetic.make_dataset(5, seed=3)
    for whole, part in zip((images, masks, labels), again, strict=True):
        np.testing.assert_array_equal(whole[:5], part)
    assert (synthetic.make_dataset(5, seed=4)[0] != again[0]).any()
    assert images.shape == (8, 64, 64, 3)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]


def test_masks_are_exact():
    """Two textures from one generator state: the pictures differ on the object and only there."""
    for seed in range(10):
        (one, mask), (other, same) = (
            synthetic.make_image(label, np.random.default_rng(seed)) for label in (0, 1)
        )
        np.testing.assert_array_equal(mask, same)
        differ = (one != other).any(axis=-1)
        assert not differ[~mask].any()
        assert differ[mask].mean() > 0.2
        assert 0.06 <= mask.mean() <= 0.35


def test_an_unknown_texture_is_named():
    with pytest.raises(ValueError, match="no texture 'plaid'"):
        synthetic._texture("plaid", np.zeros(1), np.zeros(1), 8)


def test_training_learns_and_repeats():
    images, _, labels = synthetic.make_dataset(60, seed=0)
    two = labels < 2  # from ln 6 to ln 2 within a few steps: the other classes never occur
    lines: list[str] = []
    synthetic.train(images[two], labels[two], epochs=6, seed=1, report=lines.append)
    losses = [float(line.split("loss ")[1]) for line in lines]
    assert len(losses) == 6
    assert losses[-1] < 1.5 < losses[0]
    before = torch.random.get_rng_state()
    modules = [synthetic.train(images[:16], labels[:16], epochs=1, seed=1) for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(*(m.state_dict().values() for m in modules), strict=True):
        torch.testing.assert_close(a, b)
    assert not modules[0].training


def test_make_writes_what_other_commands_read(tmp_path):
    made = synthetic.make(tmp_path, 24, 12, epochs=1, report=lambda line: None)
    rows = list(csv.DictReader(made.test_csv.open()))
    assert len(rows) == 12
    assert len(list(csv.DictReader(made.train_csv.open()))) == 24
    picture = Image.open(tmp_path / rows[1]["path"])
    mask = np.asarray(Image.open(tmp_path / rows[1]["mask"]))
    images, masks, labels = synthetic.make_dataset(2, seed=0)
    np.testing.assert_array_equal(np.asarray(picture), images[1])
    np.testing.assert_array_equal(mask > 0, masks[1])
    assert int(rows[1]["label"]) == labels[1]
    module, spec = load_model("gag_fast.experiments.synthetic:classifier", made.weights)
    assert spec.labels == synthetic.CLASSES
    assert spec.preprocessing.size == 64
    assert not spec.preprocessing.crop
    assert synthetic.accuracy(module, images, labels) in (0.0, 0.5, 1.0)
    assert 0 <= made.accuracy <= 1


def test_numbers_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="epochs must be 1 or more, got 0"):
        synthetic.make(tmp_path, epochs=0)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        synthetic.make(tmp_path, seed=-1)


@pytest.mark.slow
def test_the_whole_command_learns_the_textures_in_two_minutes(tmp_path):
    made = synthetic.make(tmp_path)
    assert made.accuracy > 0.9
    assert made.seconds < 120
