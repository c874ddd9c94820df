"""torch.vmap over the operators: a batching rule for maps, one clear line for the rest."""

import warnings

import pytest
import torch

import gag_fast
from gag_fast import ops


def quietly(function, *args, **options):
    """vmap, where a warning (that it is slow) is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return torch.vmap(function, **options)(*args)


@pytest.mark.parametrize("axis", [0, 2, 5])
@pytest.mark.parametrize("channels", ["sum", "keep"])
def test_maps_under_vmap_are_those_of_a_loop(axis, channels):
    stacks = torch.randn(4, 2, 3, 3, 6, 5)

    def maps(grads):
        return gag_fast.guided_absgrad(grads, p=[0, 60], channels=channels)

    found = quietly(maps, stacks.movedim(0, axis), in_dims=axis)
    assert torch.equal(found, torch.stack([maps(grads) for grads in stacks]))


def test_vmap_in_vmap():
    stacks = torch.randn(2, 3, 4, 3, 6, 5)
    found = quietly(torch.vmap(gag_fast.guided_absgrad), stacks)
    wanted = [torch.stack([gag_fast.guided_absgrad(g) for g in outer]) for outer in stacks]
    assert torch.equal(found, torch.stack(wanted))


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 0)])
def test_maps_from_statistics(in_dims):
    m2, abssum = torch.rand(3, 2, 3, 4, 5), torch.rand(3, 2, 3, 4, 5)
    given = [
        value[0] if dim is None else value.movedim(0, dim)
        for value, dim in zip((m2, abssum), in_dims)
    ]

    def maps(squares, sums):
        return ops.guided_absgrad_from_stats(squares, sums, 5, [70.0])

    found = quietly(maps, *given, in_dims=in_dims)
    pairs = [
        [value[0 if dim is None else i] for value, dim in zip((m2, abssum), in_dims)]
        for i in range(3)
    ]
    assert torch.equal(found, torch.stack([maps(*pair) for pair in pairs]))


@pytest.mark.parametrize(
    "call",
    [
        lambda images: ops.image_keys(images),
        lambda images: ops.saliency_ranks(images[:, 0]),
        lambda images: gag_fast.GradientStats().update(images),
    ],
)
def test_other_operators_refuse_in_one_line(call):
    with pytest.raises(RuntimeError, match=r"has no rule for torch\.vmap: it takes a batch itself"):
        quietly(call, torch.rand(3, 2, 3, 4, 5))
