"""Which noise an image meets: that of its id, not that of its last bit."""

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.attribution.inputs import id_of_name
from gag_fast.quantus_api import explain_func
from tests.attribution.attribution_models import ModuleReluNet, TinyNet, images, shaken

TARGETS = [1, 2, 3]


def by_explain(model, x, **how):
    return gag_fast.explain(model, x, TARGETS[: len(x)], n=8, **how)


def by_captum(model, x, **how):
    return gag_fast.GuidedAbsGrad(model).attribute(x, target=TARGETS[: len(x)], n_samples=8, **how)


def by_quantus(model, x, **how):
    return torch.from_numpy(explain_func(model, x.numpy(), TARGETS[: len(x)], n=8, **how))


DOORS = [by_explain, by_captum, by_quantus]


def moved(a, b):
    """How far maps moved, as a share of their size, for each image."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return (a - b).norm(dim=1) / a.norm(dim=1)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("pixel", [(0, 0, 0), (2, 7, 9), "largest"])
def test_one_ulp_on_one_pixel_moves_a_map_by_less_than_a_hundredth(model, door, pixel):
    x = images(3, 16)
    y = x.clone()
    for image in y:
        place = np.unravel_index(int(image.argmax()), image.shape) if pixel == "largest" else pixel
        image[place] = torch.nextafter(image[place], torch.tensor(torch.inf))
    assert not torch.equal(x, y)
    assert (moved(door(model, x), door(model, y)) < 0.01).all()


def test_a_hash_of_the_pixels_is_another_draw_for_the_last_bit(model):
    x = images(1, 16)
    y = x.clone()
    y[0, 2, 7, 9] = torch.nextafter(y[0, 2, 7, 9], torch.tensor(torch.inf))
    how = {"image_ids": "pixels"}
    assert (moved(by_explain(model, x, **how), by_explain(model, y, **how)) > 0.1).all()


@pytest.mark.parametrize("door", DOORS)
def test_not_on_neighbours_or_batch_size(model, door):
    x = images(3, 16).double()
    double = shaken(TinyNet).double()
    together = door(double, x)
    alone = door(double, x[:1])
    torch.testing.assert_close(alone, together[:1], rtol=1e-5, atol=1e-7)


def test_ids_give_images_noise_of_their_own(model):
    x = images(1, 16).expand(3, -1, -1, -1)
    found = gag_fast.explain(model, x, 1, n=4, image_ids=[5, 6, 5])
    assert torch.equal(found[0], found[2])
    assert (moved(found[:1], found[1:2]) > 0.1).all()


def test_an_id_of_a_name_stays_what_it_is():
    assert id_of_name("red/001.png") == -8473378010880719601
    assert len({id_of_name(f"{i}.png") for i in range(1000)}) == 1000
    assert -(1 << 63) <= min(id_of_name(str(i)) for i in range(50)) < 0


def test_robustness_is_that_of_the_map_and_not_of_the_draw():
    pytest.importorskip("captum.attr", reason="Captum is not installed")
    from captum.metrics import sensitivity_max

    net, x = shaken(ModuleReluNet), images(3, 16)
    tiny = {"perturb_radius": 1e-4, "n_perturb_samples": 3}
    method = gag_fast.GuidedAbsGrad(net)
    found = sensitivity_max(method.attribute, x, target=1, n_samples=4, percentile=0.0, **tiny)
    assert (found < 0.1).all()
