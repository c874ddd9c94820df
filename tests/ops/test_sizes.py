"""Sizes near the limits of 32 bits, by the arithmetic of csrc/math/items.h; and what refuses."""

import ctypes

import pytest
import torch

from gag_fast import ops
from tests.ops import native_items


def item_numbers(channels, pixels, last=False, width=1):
    noise, compose = ctypes.c_uint32(), ctypes.c_uint32()
    u32 = native_items.u32
    native_items.library().item_numbers(
        u32(channels), u32(pixels), last, width, ctypes.byref(noise), ctypes.byref(compose)
    )
    return noise.value, compose.value


@pytest.mark.parametrize("elements", [1, 3, 4, 5, 2**31, 2**32 - 4, 2**32 - 2, 2**32 - 1])
def test_items_of_one_channel(elements):
    quads = -(-elements // 4)
    assert item_numbers(1, elements) == (quads, elements)
    assert item_numbers(1, elements, last=True)[0] == quads


def test_items_of_many_channels():
    pixels = 2**30 + 1  # 3 channels: 3 * 2^30 + 3 elements, beyond 2^31
    assert item_numbers(3, pixels) == (-(-3 * pixels // 4), 3 * pixels)
    assert item_numbers(3, pixels, last=True)[0] == -(-pixels // 4)
    assert item_numbers(4, 2**30 - 1, width=4)[1] == 2**30 - 1


def huge(*shape):
    """A tensor of that shape over one element."""
    return torch.zeros(1).expand(shape)


def test_images_of_too_many_elements_are_refused():
    for shape in ((1, 1, 2**16, 2**16), (1, 4, 2**15, 2**15)):
        with pytest.raises(RuntimeError, match=r"fewer than 2\^32 elements, got 4294967296"):
            ops.image_keys(huge(*shape))
    arguments = torch.zeros(1, dtype=torch.int64), torch.ones(1)
    with pytest.raises(RuntimeError, match=r"gaussian_noise: .* fewer than 2\^32 elements"):
        ops.gaussian_noise(huge(1, 1, 2**16, 2**16), *arguments, seed=0, first_sample=0, samples=1)
    with pytest.raises(RuntimeError, match=r"saliency_ranks: .* fewer than 2\^31 pixels"):
        ops.saliency_ranks(huge(1, 2**16, 2**15))
