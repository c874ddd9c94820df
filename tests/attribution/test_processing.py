"""Processing variants of Section 6.2, aggregations over any modification, reversed maps."""

import pytest
import torch

import gag_fast
from gag_fast.attribution import registry
from gag_fast.attribution.processing import Processing, accumulate
from gag_fast.attribution.reverse import reverse_maps
from gag_fast.attribution.samples import Job
from tests.attribution.attribution_models import TinyNet, difference, images, shaken

PATHS = ("integrated_gradients", "guided_ig", "blur_ig")


@pytest.fixture(scope="module")
def model64():
    return shaken(TinyNet).double()


@pytest.fixture(scope="module")
def pair():
    return images(2, 16).double()


def samples(model64, pair, modification, n):
    """Gradients and path elements of one modification, [B,n,C,H,W] each."""
    from functools import partial

    from gag_fast.attribution.gradients import GradientEngine
    from gag_fast.attribution.noise import noise_std
    from gag_fast.attribution.source import at_points

    with GradientEngine(model64, fuse=False) as engine:
        job = Job(
            images=pair,
            rows=slice(0, len(pair)),
            keys=torch.zeros(len(pair), dtype=torch.int64),
            gradient=partial(at_points, engine, targets=torch.tensor([1, 2])),
            n=n,
            at_once=n,
            seed=0,
            std=noise_std(pair, 0.15),
        )
        found = list(registry.MODIFICATIONS[modification](job))
    gradients = torch.cat([sample.gradients for sample in found], 1)
    if found[0].weight is None:
        return gradients, torch.ones_like(gradients) / n
    return gradients, torch.cat([s.weight.expand_as(s.gradients) for s in found], 1)


def guide(contributions, p=85.0):
    variance = contributions.var(1)
    flat = variance.flatten(2)
    q = torch.quantile(flat, p / 100, dim=2)[..., None, None]
    return torch.where(variance >= q, 1.0, variance)


@pytest.mark.parametrize("method", ["smoothgrad", *PATHS])
@pytest.mark.parametrize("variant", ["", "+", "-", "A", "G", "GA"])
def test_variants_from_their_definition(model64, pair, method, variant):
    n = 6
    g, dx = samples(model64, pair, "noise" if method == "smoothgrad" else method, n)
    if variant in ("+", "-"):
        g = g.clamp(min=0) if variant == "+" else g.clamp(max=0)
    # The variance is that of what is summed up: gradients, or on a path gradient times element.
    read = g if method == "smoothgrad" else g * dx
    total = (g * dx).abs().sum(1) if "A" in variant else (g * dx).sum(1)
    expected = total * guide(read) if "G" in variant else total
    name = f"{method}/{variant}" if variant else method
    found = gag_fast.explain(model64, pair, [1, 2], name, n=n, channels="keep", fuse=False)
    assert difference(found, expected) < 1e-9
    if variant:
        by_keyword = gag_fast.explain(
            model64, pair, [1, 2], method, n=n, processing=variant, channels="keep", fuse=False
        )
        assert torch.equal(by_keyword, found)


@pytest.mark.parametrize("modification", ["noise", *PATHS])
def test_aggregations_over_any_modification(model64, pair, modification):
    n = 5
    g, _ = samples(model64, pair, modification, n)
    expected = {
        "guided_absgrad": (guide(g) * g.abs().mean(1)).sum(1),
        "absgrad": g.abs().mean(1).sum(1),
        "smoothgrad": g.mean(1).abs().sum(1),
        "vargrad": g.var(1).sum(1),
    }
    names = {f"{name}/{modification}": name for name in expected}
    found = gag_fast.explain_many(
        model64, pair, [1, 2], list(names), n=n, normalize=False, fuse=False
    )
    for text, name in names.items():
        assert difference(found[text], expected[name]) < 1e-9
        keyword = gag_fast.explain(
            model64, pair, [1, 2], name, n=n, modification=modification, normalize=False, fuse=False
        )
        assert torch.equal(keyword, found[text])


def test_positive_and_negative_add_up(model64, pair):
    both = gag_fast.explain_many(
        model64, pair, 1, ["smoothgrad", "smoothgrad/+", "smoothgrad/-"], n=4, channels="keep"
    )
    whole, positive, negative = both.values()
    assert (positive >= 0).all()
    assert (negative <= 0).all()
    torch.testing.assert_close(positive + negative, whole)


def test_one_pass_serves_all_processings():
    from gag_fast.attribution.samples import Sample

    stack = torch.randn(2, 6, 3, 4, 4)
    once = (Sample(part) for part in stack.split(4, 1))
    stats = accumulate(once, [Processing(), Processing(sign="+")])
    torch.testing.assert_close(stats[Processing()].mean(), stack.mean(1))
    torch.testing.assert_close(stats[Processing(sign="+")].mean(), stack.clamp(min=0).mean(1))


# ---- reversed maps ------------------------------------------------------------------------------


def test_reversing_exchanges_what_it_says():
    maps = torch.arange(100.0).view(1, 10, 10)
    found = reverse_maps(maps, 0.07, 0.1, torch.tensor([3])).flatten()
    assert torch.equal(found.sort().values, torch.arange(100.0))
    assert torch.equal(found[93:], torch.arange(93.0, 100))  # the top 7 stay
    assert torch.equal(found[10:83], torch.arange(10.0, 83))  # the middle too
    assert sorted(found[:10].tolist()) == list(range(83, 93))
    assert sorted(found[83:93].tolist()) == list(range(10))
    assert found[:10].tolist() != sorted(found[:10].tolist())  # randomly paired
    pairs = {int(found[i]): i for i in range(10)}
    assert all(found[high] == low for high, low in pairs.items())  # an exchange


def test_reversing_nothing_changes_nothing():
    maps = torch.rand(3, 8, 8)
    assert torch.equal(reverse_maps(maps, 0.1, 0.0, torch.arange(3)), maps)


def test_reversing_is_seeded_by_image():
    maps = torch.rand(1, 9, 9).expand(2, 9, 9)
    keys = torch.tensor([5, 6])
    first = reverse_maps(maps, 0.05, 0.3, keys, seed=1)
    assert torch.equal(reverse_maps(maps.flip(0), 0.05, 0.3, keys.flip(0), seed=1).flip(0), first)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(reverse_maps(maps, 0.05, 0.3, keys, seed=2), first)


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.3), (0.1, 1.1)])
def test_shares_that_do_not_fit(shares):
    with pytest.raises(ValueError, match="keep"):
        reverse_maps(torch.rand(1, 4, 4), *shares, torch.tensor([1]))


def test_reversed_methods(model64, pair):
    names = ["smoothgrad", "smoothgrad/R", "guided_backprop", "guided_backprop/R"]
    found = gag_fast.explain_many(model64, pair, 1, names, n=4, settings="official:isic")

    keys = torch.zeros(len(pair), dtype=torch.int64)
    assert torch.equal(found["smoothgrad/R"], reverse_maps(found["smoothgrad"], 0.02, 0.3, keys))
    assert torch.equal(
        found["guided_backprop/R"], reverse_maps(found["guided_backprop"], 0.005, 0.1, keys)
    )
    plain = gag_fast.explain(model64, pair, 1, "vanilla")
    own = gag_fast.explain(model64, pair, 1, "vanilla", reverse=(0.2, 0.25), seed=9)
    assert torch.equal(own, reverse_maps(plain, 0.2, 0.25, keys, 9))
    assert torch.equal(gag_fast.explain(model64, pair, 1, "vanilla", reverse=(0.2, 0.0)), plain)
