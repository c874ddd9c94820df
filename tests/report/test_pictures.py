import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from gag_fast.report import colormaps, pictures


def test_colormap_ends_and_midpoint():
    table = colormaps.table("viridis")
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert table[0].tolist() == [0x44, 0x01, 0x54]
    assert table[255].tolist() == [0xFD, 0xE7, 0x25]
    # matplotlib's viridis at 128 is (0x21, 0x90, 0x8d); anchors are allowed 7/255
    assert np.abs(table[128].astype(int) - [0x21, 0x90, 0x8D]).max() <= 7


@pytest.mark.parametrize("name", colormaps.names())
def test_colormaps_grow_lighter(name):
    luminance = colormaps.table(name) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > -0.6).all()
    assert luminance[-1] - luminance[0] > 150


def test_unknown_colormap_is_named():
    with pytest.raises(ValueError, match="got 'jet'"):
        colormaps.table("jet")


def test_colorize_clips_and_marks_nan():
    colors = colormaps.colorize(np.array([-1.0, 0.0, 1.0, 9.0, np.nan]))
    assert colors[0].tolist() == colors[1].tolist() == [0, 0, 4]
    assert colors[2].tolist() == colors[3].tolist()
    assert colors[4].tolist() == [128, 128, 128]


def test_image_kinds_give_the_same_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    floats = pixels / 255
    for given in (
        pixels,
        floats,
        floats.astype(np.float32),
        np.moveaxis(floats, 2, 0),
        torch.from_numpy(floats).permute(2, 0, 1),
        Image.fromarray(pixels),
    ):
        assert np.array_equal(np.asarray(pictures.as_image(given)), pixels)


@pytest.mark.parametrize(
    ("image", "words"),
    [(np.zeros((4, 4)), r"\(4, 4\)"), (np.zeros((4, 4, 3), np.int64), "int64")],
)
def test_what_is_no_image_is_named(image, words):
    with pytest.raises(ValueError, match=words):
        pictures.as_image(image)


def test_map_must_be_flat():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        pictures.as_map(np.zeros((1, 4, 4)))


def test_display_ceiling():
    values = np.arange(1000.0).reshape(20, 50)
    assert pictures.display_ceiling(values) == np.percentile(values, 99.5)
    assert pictures.display_ceiling(np.zeros((4, 4))) == 1.0
    assert pictures.display_ceiling(np.full((4, 4), np.nan)) == 1.0
    sparse = np.zeros((100, 100))
    sparse[3, 4] = 0.7
    assert pictures.display_ceiling(sparse) == 0.7


def test_overlay_colours_the_salient_and_keeps_the_rest_grey():
    image = np.full((20, 20, 3), 200, np.uint8)
    values = np.zeros((20, 20))
    values[5, 6] = 1.0
    picture = np.asarray(pictures.overlay(image, values))
    assert picture[5, 6].tolist() == colormaps.table("inferno")[255].tolist()
    rest = np.delete(picture.reshape(-1, 3), 5 * 20 + 6, axis=0)
    assert (rest == rest[0]).all()
    assert np.ptp(rest[0]) == 0


def test_overlay_resizes_the_map_to_the_image():
    assert pictures.overlay(np.zeros((30, 40, 3), np.uint8), np.ones((3, 4))).size == (40, 30)


def test_nan_map_is_drawn():
    picture = pictures.sheet(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), np.nan), ["nan"])
    assert picture.mode == "RGB"


def test_sheet_shows_three_panels_of_the_right_shape():
    image = np.zeros((40, 80, 3), np.uint8)
    image[..., 0] = 255
    plain = pictures.sheet(image, np.zeros((40, 80)), side=200)
    pixels = np.asarray(plain)
    red = (pixels == [255, 0, 0]).all(-1)
    columns, rows = np.flatnonzero(red.any(0)), np.flatnonzero(red.any(1))
    assert (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1) == (200, 100)
    assert red.sum() == 200 * 100  # only the first panel is the photograph
    headed = pictures.sheet(image, np.zeros((40, 80)), ["one", "two"], side=200)
    assert headed.height > plain.height


def test_long_lines_are_shortened():
    sheet = pictures.sheet(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), ["w" * 500], side=60)
    assert (np.asarray(sheet)[:, -3:] == 255).all()


def test_save_overlay_writes_whole_files(tmp_path):
    values = np.random.default_rng(0).random((16, 16))
    path = pictures.save_overlay(
        tmp_path / "new" / "cat.png", np.zeros((16, 16, 3)), values, ["cat 90 %"]
    )
    with Image.open(path) as written:
        assert written.format == "PNG"
        assert written.width > 3 * 360
    assert [p.name for p in path.parent.iterdir()] == ["cat.png"]


def test_save_overlay_refuses_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match=r"cat\.what"):
        pictures.save_overlay(tmp_path / "cat.what", np.zeros((4, 4, 3)), np.zeros((4, 4)))


def test_data_uri_is_a_small_jpeg():
    uri = pictures.data_uri(Image.new("RGB", (640, 320), "red"), side=100)
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (100, 50))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.0, "1"),
        (0.5, "0.5"),
        (0.68349, "0.68"),
        (0.0012345, "0.0012"),
        (1e-9, "1.0e-09"),
    ],
)
def test_tick_numbers(value, text):
    assert pictures._tick(value) == text
