"""explain and explain_many: identities, invariances, shapes, and errors in one clear line."""

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast import ops
from tests.attribution.attribution_models import LinearNet, SmoothNet, TinyNet, images, shaken

SHARED = ["guided_absgrad", "guided_absgrad@30", "absgrad", "smoothgrad", "vargrad"]
EVERY = [
    *SHARED,
    "vanilla",
    "integrated_gradients",
    "guided_ig",
    "blur_ig",
    "guided_backprop",
    "grad_cam",
    "smoothgrad/GA",
    "integrated_gradients/+",
    "guided_absgrad/blur_ig",
    "guided_backprop/GA",
    "smoothgrad/R",
]


@pytest.fixture(scope="module")
def batch():
    return images(5, 20)


def gradients(model, points, targets):
    """Plain autograd, the slow way: [B,n,C,H,W] -> the same."""
    found = []
    for i in range(points.shape[1]):
        x = points[:, i].clone().requires_grad_()
        logits = model(x)
        found.append(torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), x)[0])
    return torch.stack(found, 1)


def noisy(x, n, noise, seed):
    std = (noise * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))).float()
    keys = torch.zeros(len(x), dtype=torch.int64)
    return ops.gaussian_noise(x, keys, std, seed=seed, first_sample=0, samples=n)


def minmax(maps):
    low, high = maps.amin((1, 2), True), maps.amax((1, 2), True)
    return (maps - low) / (high - low)


# ---- what the maps are --------------------------------------------------------------------------


def test_methods_are_those_of_the_contract():
    assert gag_fast.methods() == [
        "guided_absgrad", "absgrad", "smoothgrad", "vargrad", "vanilla", "integrated_gradients",
        "guided_ig", "blur_ig", "guided_backprop", "grad_cam", "grad_cam_pp", "xrai",
        "input_x_gradient", "legrad", "rise", "occlusion", "kernel_shap",
    ]  # fmt: skip


def test_shared_methods_from_the_definition(model, batch):
    n, noise, seed = 6, 0.2, 11
    targets = torch.tensor([0, 1, 2, 3, 4])
    g = gradients(model, noisy(batch, n, noise, seed), targets).double()
    variance, absgrad = g.var(1), g.abs().mean(1)

    def guided(p):
        q = np.percentile(variance.flatten(2).numpy(), p, axis=2)
        q = torch.from_numpy(q)[..., None, None]
        return (torch.where(variance >= q, 1.0, variance) * absgrad).sum(1)

    expected = {
        "guided_absgrad": guided(85),
        "guided_absgrad@30": guided(30),
        "absgrad": absgrad.sum(1),
        "smoothgrad": g.mean(1).abs().sum(1),
        "vargrad": variance.sum(1),
    }
    found = gag_fast.explain_many(model, batch, targets, SHARED, n=n, noise=noise, seed=seed)
    assert list(found) == SHARED
    for name, maps in found.items():
        assert maps.shape == (5, 20, 20)
        assert maps.dtype == torch.float32
        assert maps.min() >= 0
        assert maps.max() <= 1
        torch.testing.assert_close(maps.double(), minmax(expected[name]), rtol=0, atol=2e-5)


def test_one_call_is_each_alone(model, batch):
    together = gag_fast.explain_many(model, batch, methods=EVERY, n=4, fuse=False)
    for name in EVERY:
        alone = gag_fast.explain(model, batch, method=name, n=4, fuse=False)
        assert torch.equal(together[name], alone), name


def test_shared_methods_share_their_passes(model, batch):
    count = 0

    def counted(module, inputs, output):
        nonlocal count
        count += len(output)

    twin = shaken(TinyNet)
    twin.register_forward_hook(counted)
    gag_fast.explain_many(twin, batch, 0, SHARED, n=8, batch_size=10)
    assert count == 5 * 8 + 1  # and one look at the number of classes


def test_default_targets_are_the_predicted_classes(model, batch):
    predicted = model(batch).argmax(1)
    given = gag_fast.explain(model, batch, predicted, n=3)
    assert torch.equal(gag_fast.explain(model, batch, n=3), given)


def test_n_one_without_noise_is_vanilla(model, batch):
    vanilla = gag_fast.explain(model, batch, method="vanilla")
    for name in ("smoothgrad", "absgrad", "guided_absgrad@0"):
        assert torch.equal(gag_fast.explain(model, batch, method=name, n=1, noise=0.0), vanilla)


def test_absolute_of_one_sample_is_the_magnitude_of_vanilla(model, batch):
    signed = gag_fast.explain(model, batch, method="vanilla", channels="keep")
    magnitude = gag_fast.explain(model, batch, method="vanilla/A", channels="keep")
    assert (signed < 0).any()
    assert torch.equal(magnitude, signed.abs())


def test_p_zero_is_absgrad(model, batch):
    found = gag_fast.explain(model, batch, p=0, n=4)
    assert torch.equal(found, gag_fast.explain(model, batch, method="absgrad", n=4))


@pytest.mark.filterwarnings("ignore:guided_backprop met no rectifier")
def test_linear_model_in_closed_form():
    torch.manual_seed(0)
    model, x = LinearNet(), torch.randn(2, 3, 6, 6)
    targets = torch.tensor([1, 3])
    weight = model.weight.detach()[targets]
    raw = {"channels": "keep", "n": 5}
    for name in ("vanilla", "smoothgrad", "guided_backprop"):
        found = gag_fast.explain(model, x, targets, name, **raw)
        torch.testing.assert_close(found, weight)
    for name in ("integrated_gradients", "guided_ig"):
        found = gag_fast.explain(model, x, targets, name, baseline=0.5, **raw)
        torch.testing.assert_close(found, weight * (x - 0.5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gag_fast.explain(model, x, targets, "absgrad", **raw), weight.abs())
    # All samples have the same gradient: no variance, so all below the top is damped to nothing.
    variance = gag_fast.explain(model, x, targets, "vargrad", n=5)
    assert torch.equal(variance, torch.zeros(2, 6, 6))


@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_middle", "riemann_trapezoid"])
def test_integrated_gradients_are_complete(rule):
    model, x = shaken(SmoothNet), images(3, 16)
    targets = torch.tensor([0, 1, 2])
    found = gag_fast.explain(
        model, x, targets, "integrated_gradients", n=20, rule=rule, channels="keep"
    )
    ends = [model(z).gather(1, targets[:, None])[:, 0] for z in (x, torch.zeros_like(x))]
    whole = (ends[0] - ends[1]).detach()
    assert ((found.sum((1, 2, 3)) - whole).abs() <= 0.01 * whole.abs()).all()


def test_random_baselines_are_averaged_and_belong_to_their_image():
    model, x = shaken(TinyNet), images(3, 12)
    options = {"baseline": "uniform", "n": 3, "channels": "keep", "seed": 5}
    one = gag_fast.explain(model, x, 1, "integrated_gradients", baselines=1, **options)
    two = gag_fast.explain(model, x, 1, "integrated_gradients", baselines=2, **options)
    assert not torch.equal(one, two)
    alone = gag_fast.explain(model, x[2:], 1, "integrated_gradients", baselines=2, **options)
    torch.testing.assert_close(alone, two[2:], rtol=1e-4, atol=1e-6)


def test_baseline_tensor_goes_with_its_image(model, batch):
    baseline = torch.rand(5, 3, 20, 20)
    options = {"method": "integrated_gradients", "n": 3, "channels": "keep", "targets": 2}
    found = gag_fast.explain(model, batch, baseline=baseline, batch_size=2, **options)
    for i in range(5):
        alone = gag_fast.explain(model, batch[i : i + 1], baseline=baseline[i], **options)
        torch.testing.assert_close(found[i : i + 1], alone, rtol=1e-3, atol=1e-6)


# ---- what they do not depend on -----------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_not_on_batch_size(model, batch, batch_size):
    # Guided IG picks features by the rank of their gradients, so a rounding may change its path.
    names = [name for name in EVERY if name not in ("guided_ig", "smoothgrad/R")]
    double = shaken(TinyNet).double()
    expected = gag_fast.explain_many(double, batch.double(), methods=[*names, "guided_ig"], n=7)
    found = gag_fast.explain_many(
        double, batch.double(), methods=[*names, "guided_ig"], n=7, batch_size=batch_size
    )
    for name, maps in found.items():
        torch.testing.assert_close(maps, expected[name], rtol=0, atol=1e-7, msg=name)


def test_not_on_order_or_neighbours(model, batch):
    together = gag_fast.explain_many(model, batch, 1, EVERY, n=4, batch_size=4)
    turned = gag_fast.explain_many(model, batch.flip(0), 1, SHARED, n=4, batch_size=4)
    alone = gag_fast.explain_many(model, batch[3:4], 1, SHARED, n=4)
    for name in SHARED:
        torch.testing.assert_close(turned[name].flip(0), together[name], rtol=0, atol=2e-5)
        torch.testing.assert_close(alone[name], together[name][3:4], rtol=0, atol=2e-5)


def test_not_on_memory_format_grad_or_inference_mode(model, batch):
    expected = gag_fast.explain(model, batch, n=4)
    last = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(gag_fast.explain(model, last, n=4), expected)
    assert torch.equal(gag_fast.explain(model, batch.clone().requires_grad_(), n=4), expected)
    with torch.no_grad():
        assert torch.equal(gag_fast.explain(model, batch, n=4), expected)
    with torch.inference_mode():
        assert torch.equal(gag_fast.explain(model, batch.clone(), n=4), expected)


def test_seed_and_image_ids_decide_the_noise(model, batch):
    first = gag_fast.explain(model, batch, n=3, seed=0)
    assert not torch.equal(gag_fast.explain(model, batch, n=3, seed=1), first)
    assert torch.equal(gag_fast.explain(model, batch, n=3, image_ids=[0] * 5), first)
    ids, by_pixels = ops.image_keys(batch), {"n": 3, "image_ids": "pixels"}
    found = gag_fast.explain(model, batch, **by_pixels)
    assert torch.equal(gag_fast.explain(model, batch, n=3, image_ids=ids), found)
    assert not torch.equal(found, first)
    assert not torch.equal(gag_fast.explain(model, batch, n=3, image_ids=[1, 2, 3, 4, 5]), first)
    same = gag_fast.explain(model, batch[:1].expand(2, -1, -1, -1), n=3, image_ids=[1, 2])
    assert not torch.equal(same[0], same[1])


def test_numpy_in_numpy_out(model, batch):
    found = gag_fast.explain(model, batch.numpy(), n=3)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, gag_fast.explain(model, batch, n=3).numpy())


def test_noise_in_absolute_units(model, batch):
    x = batch / (batch.amax((1, 2, 3), True) - batch.amin((1, 2, 3), True))
    found = gag_fast.explain(model, x, 0, n=3, stdevs=0.15)
    torch.testing.assert_close(found, gag_fast.explain(model, x, 0, n=3), rtol=0, atol=1e-5)


def test_range_of_the_batch(model, batch):
    x = torch.cat([batch[:1], batch[1:2] * 3])
    image = gag_fast.explain(model, x, 0, n=3)
    whole = gag_fast.explain(model, x, 0, n=3, noise_range="batch")
    assert not torch.allclose(image[0], whole[0], atol=1e-3)
    torch.testing.assert_close(image[1], whole[1], rtol=0, atol=1e-5)


def test_score_nll_differentiates_the_negative_log_softmax(model, batch):
    x = batch.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), torch.full((5,), 2), reduction="sum")
    (expected,) = torch.autograd.grad(loss, x)
    found = gag_fast.explain(model, batch, 2, "vanilla", channels="keep", score="nll")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imagenet", "isic", "places365"])
def test_official_settings(model, name):
    x = images(2, 64)
    n = {"imagenet": 20, "isic": 10, "places365": 10}[name]
    found = gag_fast.explain_many(
        model, x, 1, ["guided_absgrad", "integrated_gradients", "guided_ig", "blur_ig"],
        settings=f"official:{name}",
    )  # fmt: skip
    by_hand = {
        "guided_absgrad": {"n": n, "noise_range": "batch"},
        "integrated_gradients": {
            "baseline": "uniform", "baselines": 2, "rule": "endpoints", "n": 5, "score": "nll",
        },
        "guided_ig": {"fraction": 0.25, "max_dist": 0.1, "n": 20},
        "blur_ig": {
            "max_sigma": 50.0, "grad_step": 0.01, "kernel_size": 41, "padding": "reflect", "n": 20,
        },
    }  # fmt: skip
    for method, options in by_hand.items():
        expected = gag_fast.explain(model, x, 1, method, **options)
        torch.testing.assert_close(found[method], expected, rtol=0, atol=1e-5, msg=method)
    own = gag_fast.explain(model, x, 1, settings=f"official:{name}", n=3)
    expected = gag_fast.explain(model, x, 1, n=3, noise_range="batch")
    assert torch.equal(own, expected)


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "gradcam"}, ValueError, "unknown method 'gradcam'; methods are guided_absgrad"),
        ({"method": "smoothgrad/Z"}, ValueError, "unknown suffix 'Z'"),
        ({"method": "smoothgrad@50"}, ValueError, "takes no percent"),
        ({"method": "guided_absgrad@x"}, ValueError, "'x' is not a percent"),
        ({"method": "guided_absgrad@101"}, ValueError, r"\[0, 100\], got 101"),
        ({"method": "vargrad/GA"}, ValueError, "vargrad takes no processing variant"),
        ({"method": "vanilla/noise"}, ValueError, "vanilla takes no other modification"),
        ({"method": 3}, TypeError, "method must be a string"),
        ({"n": 0}, ValueError, "n must be a positive integer, got 0"),
        ({"n": 1}, ValueError, "at least 2 gradients, got n = 1"),
        ({"n": 1, "method": "vargrad"}, ValueError, "at least 2 gradients, got n = 1"),
        ({"p": 101}, ValueError, "101"),
        ({"p": [15, 85]}, TypeError, "must be one percent"),
        ({"noise": -0.1}, ValueError, "noise must be finite and not negative, got -0.1"),
        ({"noise": "a"}, TypeError, "noise must be a number"),
        (
            {"targets": [1, 2]},
            ValueError,
            "targets must be one class, or .5. for 5 images",
        ),
        ({"targets": 7}, ValueError, "target 7 is not one of the model's 7 classes"),
        ({"targets": -1}, ValueError, "target -1 is not one of the model's 7 classes"),
        ({"targets": 1.0}, TypeError, "targets must be integers"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"layer": "last"}, TypeError, "unknown option 'layer'"),
        ({"method": "grad_cam", "layer": "layer9"}, ValueError, "'layer9' is not a module"),
        ({"method": "integrated_gradients", "rule": "x"}, ValueError, "rule must be one of"),
        ({"method": "guided_ig", "fraction": 0.0}, ValueError, r"fraction must lie in \(0, 1\]"),
        ({"method": "blur_ig", "kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"settings": "official:mnist"}, ValueError, "settings must be one of official:imagenet"),
        ({"channels": "mean"}, ValueError, "channels"),
        ({"score": "prob"}, ValueError, "score must be one of logit, nll"),
        ({"image_ids": [1]}, ValueError, "image_ids must be 5 integers"),
        ({"image_ids": "names"}, ValueError, "integers, None or \"pixels\", got 'names'"),
    ],
)
def test_errors_name_what_was_received(model, batch, options, error, words):
    with pytest.raises(error, match=words) as caught:
        gag_fast.explain(model, batch, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (torch.zeros(3, 8, 8), ValueError, r"images must be \[B,C,H,W\]"),
        (torch.zeros(0, 3, 8, 8), ValueError, "no empty axis"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating point"),
        ([1, 2], TypeError, "images must be a torch tensor or a NumPy array, got a list"),
        (torch.full((2, 3, 8, 8), torch.nan), ValueError, r"images\[0\] has values that are not"),
    ],
)
def test_bad_images(model, bad, error, words):
    with pytest.raises(error, match=words):
        gag_fast.explain(model, bad)


def test_bad_models(batch):
    with pytest.raises(TypeError, match="model must be a torch"):
        gag_fast.explain(lambda x: x, batch)
    with pytest.raises(ValueError, match=r"must give \[B, K\], got \[.*\] for a batch of 1"):
        gag_fast.explain(torch.nn.Conv2d(3, 2, 3), batch)

    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 3)

    with pytest.raises(ValueError, match="do not depend on the images"):
        gag_fast.explain(Constant(), batch)


def test_model_with_nan_gradients_gives_nan_maps(batch):
    class Broken(SmoothNet):
        def forward(self, x):
            return super().forward(x) * (x.sum((1, 2, 3), keepdim=True)[:, :, 0, 0] * torch.nan)

    assert gag_fast.explain(Broken().eval(), batch, 0, n=3).isnan().all()
