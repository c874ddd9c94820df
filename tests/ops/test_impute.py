"""impute: the sparse system of missing pixels, against a dense solver."""

import pytest
import torch

from gag_fast import ops


def dense(pixels, missing):
    """The same equations as one matrix, in float64."""
    channels, height, width = pixels.shape
    matrix = torch.eye(height * width, dtype=torch.float64)
    right = (pixels.double() * ~missing).flatten(1).T.clone()
    for y, x in missing.nonzero().tolist():
        row = y * width + x
        matrix[row, row] = 0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                if (dy or dx) and inside:
                    weight = 1 / 12 if dy and dx else 1 / 6
                    matrix[row, row] += weight
                    matrix[row, (y + dy) * width + x + dx] -= weight
    return torch.linalg.solve(matrix, right).T.reshape(channels, height, width)


def picture(height, width, channels=3):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(channels, height, width, generator=generator)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 4), (7, 16), (23, 22)])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.97])
def test_scattered_pixels(size, share):
    generator = torch.Generator().manual_seed(1)
    missing = torch.rand(size, generator=generator) < share
    missing[size[0] // 2, size[1] // 2] = False
    pixels = picture(*size)
    found = ops.impute(pixels, missing)
    torch.testing.assert_close(found.double(), dense(pixels, missing), atol=1e-4, rtol=1e-4)
    assert torch.equal(found[:, ~missing], pixels[:, ~missing])


def test_holes():
    pixels, missing = picture(30, 27), torch.zeros(30, 27, dtype=torch.bool)
    missing[3:20, 5:22] = True
    missing[:, 24:] = True
    found = ops.impute(pixels, missing)
    torch.testing.assert_close(found.double(), dense(pixels, missing), atol=1e-4, rtol=1e-4)


def test_one_known_pixel_colours_the_image():
    missing = torch.ones(40, 33, dtype=torch.bool)
    missing[7, 30] = False
    found = ops.impute(torch.full((2, 40, 33), 5.0), missing)
    torch.testing.assert_close(found, torch.full((2, 40, 33), 5.0), atol=1e-3, rtol=0)


def test_by_hand():
    # One missing pixel: (2 (1 + 2 + 3 + 4) + (5 + 6 + 7 + 8)) / 12.
    pixels = torch.tensor([[5.0, 1, 6], [2, 99, 3], [7, 4, 8]])
    missing = torch.zeros(3, 3, dtype=torch.bool)
    missing[1, 1] = True
    assert float(ops.impute(pixels[None], missing)[0, 1, 1]) == pytest.approx(46 / 12)
    # In the corner three are left: (2 (1 + 2) + 99) / 5.
    corner = torch.zeros(3, 3, dtype=torch.bool)
    corner[0, 0] = True
    assert float(ops.impute(pixels[None], corner)[0, 0, 0]) == pytest.approx(105 / 5)


def test_strides_and_what_stands_in_the_hole_do_not_count():
    pixels = picture(20, 18)
    missing = torch.rand(20, 18, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = ops.impute(pixels, missing)
    last = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(ops.impute(last, missing.T.contiguous().T), expected)
    assert torch.equal(ops.impute(torch.where(missing, torch.nan, pixels), missing), expected)


def test_nothing_and_everything_missing():
    pixels = picture(9, 8)
    assert torch.equal(ops.impute(pixels, torch.zeros(9, 8, dtype=torch.bool)), pixels)
    assert torch.equal(
        ops.impute(pixels, torch.ones(9, 8, dtype=torch.bool)), torch.zeros_like(pixels)
    )


@pytest.mark.parametrize(
    ("pixels", "missing", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool), "got 2 dimensions"),
        (torch.zeros(1, 3, 4).double(), torch.zeros(3, 4, dtype=torch.bool), "float32"),
        (torch.zeros(1, 3, 4), torch.zeros(3, 4), "missing must be bool"),
        (torch.zeros(1, 3, 4), torch.zeros(3, 5, dtype=torch.bool), "axis 1 of missing is 5"),
        (torch.zeros(1, 0, 4), torch.zeros(0, 4, dtype=torch.bool), "empty axis 1"),
    ],
)
def test_refused(pixels, missing, message):
    with pytest.raises(RuntimeError, match=message):
        ops.impute(pixels, missing)
