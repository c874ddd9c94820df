"""Files that may be anything: what is read and how, what is refused and in which words."""

import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from gag_fast import images
from gag_fast.images import ImageError, denormalise, fit, load_image, normalise, preprocess
from gag_fast.models import Preprocessing

RNG = np.random.default_rng(0)


def colours(height=40, width=60):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


def pixels(path):
    picture = load_image(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


# ---- the unusual -----------------------------------------------------------------------------


def test_rgb_comes_as_it_is(tmp_path):
    picture = colours()
    picture.save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(picture))


def test_greyscale_becomes_three_equal_channels(tmp_path):
    grey = RNG.integers(0, 256, (5, 7), np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.repeat(grey[..., None], 3, axis=2))


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, 0].tolist() == [255, 0, 0]


def test_alpha_lies_over_white(tmp_path):
    rgba = Image.new("RGBA", (2, 1))
    rgba.putpixel((0, 0), (200, 0, 0, 0))  # fully transparent
    rgba.putpixel((1, 0), (200, 0, 0, 255))
    rgba.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_palette_with_a_transparent_colour(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "a.png", transparency=0)
    assert pixels(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_from_0_to_1(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]


def test_floats_of_no_known_range_are_refused(tmp_path):
    Image.fromarray(np.array([[-3, 700]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: pixels of mode F from -3 to 700"):
        load_image(tmp_path / "a.tif")


def test_exif_orientation_is_applied(tmp_path):
    picture = colours(height=10, width=20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.rot90(np.asarray(picture), k=-1))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (3, 3), c) for c in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_a_wrong_extension_does_not_matter(tmp_path):
    picture = colours()
    picture.save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(pixels(tmp_path / "a.jpg"), np.asarray(picture))


# ---- the refused -----------------------------------------------------------------------------


def jpeg() -> bytes:
    buffer = BytesIO()
    colours(64, 64).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 60000×60000 pixels by its header, in a few dozen bytes."""

    def block(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", b"") + block(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (
            b"<html>not found</html>",
            r"is not an image that can be read \(first bytes b'<html>no'\)",
        ),
        (bomb(), r"too many pixels .* more than 89,478,485: refused as a decompression bomb"),
        (jpeg()[: len(jpeg()) // 2], "cannot be decoded: .*truncated"),
        (jpeg()[:30], "bad|cannot be|not an image"),
    ],
    ids=["empty", "no image", "bomb", "truncated", "header only"],
)
def test_refused(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.jpg: .*(?:" + reason + ")") as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def test_a_corrupt_png(tmp_path):
    colours().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[60:90] = bytes(30)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.png: "):
        load_image(tmp_path / "a.png")


def test_no_such_file(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg: no such file"):
        load_image(tmp_path / "gone.jpg")


def test_a_folder(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(ImageError, match=r"a\.jpg: is a folder"):
        load_image(tmp_path / "a.jpg")


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"a\.jpg: is not a regular file"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    colours().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: Permission denied"):
        load_image(tmp_path / "a.png")


def test_unreadable_for_root_too(tmp_path, monkeypatch):
    colours().save(tmp_path / "a.png")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: Permission denied"):
        load_image(tmp_path / "a.png")


def test_the_limit_is_on_pixels_not_on_bytes(tmp_path, monkeypatch):
    colours(10, 10).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match=r"10×10.*more than 99"):
        load_image(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    load_image(tmp_path / "a.png")


# ---- a model's input ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (257, 256), (256, 256), (33, 500)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_fit_equals_torchvision(size, interpolation):
    picture = colours(*size)
    p = Preprocessing(size=96, resize=110, interpolation=interpolation)
    theirs = transforms.Compose(
        [
            transforms.Resize(110, InterpolationMode(interpolation)),
            transforms.CenterCrop(96),
            transforms.ToTensor(),
            transforms.Normalize(p.mean, p.std),
        ]
    )
    assert torch.equal(preprocess(picture, p), theirs(picture))


def test_without_crop_the_picture_is_stretched():
    picture = colours(30, 50)
    p = Preprocessing(size=16, resize=16, crop=False)
    assert fit(picture, p).size == (16, 16)
    theirs = transforms.Resize((16, 16))(picture)
    assert np.array_equal(np.asarray(fit(picture, p)), np.asarray(theirs))


def test_long_and_thin_is_refused_before_it_fills_the_memory():
    with pytest.raises(ImageError, match="1×400000 is too long and thin"):
        fit(Image.new("RGB", (1, 400_000)), Preprocessing())


def test_a_model_of_one_channel():
    p = Preprocessing(size=8, resize=8, mean=(0.5,), std=(0.25,))
    x = preprocess(Image.new("RGB", (8, 8), (255, 255, 255)), p)
    assert x.shape == (1, 8, 8)
    assert torch.equal(x, torch.full((1, 8, 8), 2.0))
    assert denormalise(x, p).getpixel((0, 0)) == (255, 255, 255)


def test_normalise_and_back():
    p = Preprocessing(size=12, resize=12)
    picture = colours(12, 12)
    x = normalise(np.asarray(picture)[None], p)
    assert x.shape == (1, 3, 12, 12)
    assert x.dtype == torch.float32
    assert np.array_equal(np.asarray(denormalise(x[0], p)), np.asarray(picture))


def test_a_mask_is_binary_whatever_its_values():
    for low, high in ((0, 1), (0, 255), (3, 200)):
        values = np.full((4, 4), low, np.uint8)
        values[:2] = high
        buffer = BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        mask = np.asarray(images.decode_mask(buffer.getvalue(), "m.png"))
        assert mask[:2].min() == 255
        assert mask[2:].max() == 0
