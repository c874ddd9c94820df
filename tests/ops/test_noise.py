"""gaussian_noise and image_keys: exact integers, good normals, the same whatever surrounds them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch

from gag_fast import ops
from tests.ops import native_items, noise_oracle

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
CHANNELS_LAST = torch.channels_last


def normals(count, seed=0, key=1, sample=0):
    """float32 [count] straight from the operator."""
    image = torch.zeros(1, 1, 1, count)
    keys = torch.tensor([key])
    out = ops.gaussian_noise(image, keys, torch.ones(1), seed=seed, first_sample=sample, samples=1)
    return out.reshape(-1).numpy()


def batch(b=2, c=3, h=5, w=7, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(b, c, h, w, generator=generator).to(dtype)
    keys = torch.randint(-(2**63), 2**63 - 1, (b,), generator=generator)
    return images, keys, torch.rand(b, generator=generator) + 0.1


class TestPhilox:
    # Published with the generator (Random123, kat_vectors): counter, key, result.
    VECTORS = (
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    )

    @pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
    def test_published_vectors(self, counter, key, result):
        assert native_items.philox(counter, key) == result
        assert [int(x) for x in noise_oracle.philox(*counter, *key)] == result


class TestNormals:
    @pytest.mark.parametrize(
        ("seed", "key", "sample"),
        [(0, 0, 0), (1, -1, 7), (0x123456789ABCDEF0, 2**63 - 1, 2**32 - 1), (-5, -(2**63), 1000)],
    )
    def test_equal_the_definition_in_float64(self, seed, key, sample):
        expected = noise_oracle.normals(seed, key, sample, 100_003)
        np.testing.assert_allclose(normals(100_003, seed, key, sample), expected, rtol=0, atol=1e-6)

    def test_seeds_are_taken_modulo_2_64(self):
        assert (normals(64, seed=-1) == normals(64, seed=2**64 - 1)).all()
        assert (normals(64, seed=2**64 + 3) == normals(64, seed=3)).all()

    def test_radius_at_both_ends_and_where_its_two_formulas_meet(self):
        near = np.arange(-300, 300)
        middles = [0, 2**32 - 1, 2 * 0x5A82799A, 2**31, 2**30, 0xB504F333]
        x = np.concatenate([np.clip(m + near, 0, 2**32 - 1) for m in middles]).astype(np.uint32)
        x = np.concatenate([x, np.linspace(0, 2**32 - 1, 1_000_001).astype(np.uint32)])
        expected = noise_oracle.radius(x)
        np.testing.assert_allclose(native_items.radii(x), expected, rtol=2e-7, atol=0)
        assert native_items.radii(x).max() > 6.6

    def test_the_square_root_of_a_gpu(self):
        """exact_sqrt in math/normal.h: one correction of an inverse root that is off by 2 ulp."""
        v = 2.0 ** np.random.default_rng(0).uniform(-32, 6, 200_000).astype(np.float32)
        inverse = (1 / np.sqrt(v.astype(np.float64))).astype(np.float32)
        for off in range(-2, 3):
            near = (inverse.view(np.int32) + np.int32(off)).view(np.float32)
            root = v * near
            rest = (v - root.astype(np.longdouble) ** 2).astype(np.float32)
            half = (near * np.float32(0.5)).astype(np.longdouble)
            assert ((rest * half + root).astype(np.float32) == np.sqrt(v)).all()

    def test_sine_and_cosine_around_the_circle(self):
        eighths = np.arange(9)[:, None] * 2**29 + np.arange(-300, 300)
        x = np.concatenate([eighths.reshape(-1) % 2**32, np.linspace(0, 2**32 - 1, 1_000_001)])
        x = x.astype(np.uint32)
        cosine, sine = native_items.sincos(x)
        a = noise_oracle.angle(x)
        np.testing.assert_allclose(cosine, np.cos(a), rtol=0, atol=1.2e-7)
        np.testing.assert_allclose(sine, np.sin(a), rtol=0, atol=1.2e-7)

    def test_distribution(self):
        z = normals(2**22, seed=11).astype(np.float64)
        n = z.size
        # Five standard errors of each moment: their variances are 1, 2, 15 and 96 over n.
        assert abs(z.mean()) < 5 / n**0.5
        assert abs((z**2).mean() - 1) < 5 * (2 / n) ** 0.5
        assert abs((z**3).mean()) < 5 * (15 / n) ** 0.5
        assert abs((z**4).mean() - 3) < 5 * (96 / n) ** 0.5
        assert scipy.stats.kstest(z[: 2**20], "norm").pvalue > 1e-3
        for bound in (2, 3, 4, 4.5):
            expected = n * 2 * scipy.stats.norm.sf(bound)
            assert abs((np.abs(z) > bound).sum() - expected) < 5 * expected**0.5
        assert not np.array_equal(z[0::4], z[2::4])

    def test_streams_are_independent(self):
        n = 2**18
        streams = [
            normals(n, seed=1, key=1, sample=0),
            normals(n, seed=2, key=1, sample=0),
            normals(n, seed=1, key=2, sample=0),
            normals(n, seed=1, key=1, sample=1),
            normals(n, seed=1 << 32, key=1, sample=0),
            normals(n, seed=1, key=1 << 32, sample=0),
            np.roll(normals(n, seed=1, key=1, sample=0), 1),
            np.roll(normals(n, seed=1, key=1, sample=0), 2),
        ]
        correlation = np.corrcoef(np.stack(streams).astype(np.float64))
        assert np.abs(correlation - np.eye(len(streams))).max() < 5.5 / n**0.5


@pytest.mark.parametrize("device", DEVICES)
class TestGaussianNoise:
    def make(self, device, *shape, dtype=torch.float32):
        return [t.to(device) for t in batch(*shape, dtype=dtype)]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (2, 4, 9, 9), (2, 3, 4, 4)])
    def test_is_image_plus_std_times_normal(self, device, dtype, shape):
        images, keys, std = self.make(device, *shape, dtype=dtype)
        out = ops.gaussian_noise(images, keys, std, seed=9, first_sample=3, samples=2)
        assert out.dtype == dtype
        assert out.shape == (shape[0], 2, *shape[1:])
        count = images[0].numel()
        for b in range(shape[0]):
            for s in range(2):
                z = noise_oracle.normals(9, int(keys[b]), 3 + s, count).reshape(shape[1:])
                expected = images[b].cpu().double().numpy() + float(std[b]) * z
                np.testing.assert_allclose(out[b, s].cpu().numpy(), expected, rtol=0, atol=2e-6)

    def test_does_not_depend_on_batch_or_on_how_samples_are_split(self, device):
        images, keys, std = self.make(device, 4, 3, 40, 31)
        whole = ops.gaussian_noise(images, keys, std, seed=1, first_sample=0, samples=6)
        for b in range(4):
            one = slice(b, b + 1)
            parts = [
                ops.gaussian_noise(
                    images[one], keys[one], std[one], seed=1, first_sample=s, samples=n
                )
                for s, n in ((0, 1), (1, 3), (4, 2))
            ]
            assert torch.equal(torch.cat(parts, 1), whole[one])
        order = torch.tensor([2, 0, 3, 1], device=device)
        shuffled = ops.gaussian_noise(
            images[order], keys[order], std[order], seed=1, first_sample=0, samples=6
        )
        assert torch.equal(shuffled, whole[order])

    @pytest.mark.parametrize("c", [1, 2, 3, 5])
    @pytest.mark.parametrize("size", [(1, 1), (3, 3), (7, 9), (8, 8), (130, 131)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_memory_format_changes_layout_alone(self, device, c, size, dtype):
        images, keys, std = self.make(device, 2, c, *size, dtype=dtype)
        args = {"seed": 5, "first_sample": 0, "samples": 2}
        planar = ops.gaussian_noise(images, keys, std, **args)
        assert planar.is_contiguous()
        last = ops.gaussian_noise(images.to(memory_format=CHANNELS_LAST), keys, std, **args)
        assert torch.equal(last, planar)
        assert last.flatten(0, 1).is_contiguous(memory_format=CHANNELS_LAST)

    def test_any_strides(self, device):
        images, keys, std = self.make(device, 2, 3, 12, 10)
        args = {"seed": 5, "first_sample": 0, "samples": 2}
        views = [
            images.transpose(2, 3),
            images[:, :, ::2, 1:],
            images[:1].expand(2, -1, -1, -1),
            images.flip(1)[:, 1:],
            images.transpose(1, 2),
        ]
        for view in views:
            expected = ops.gaussian_noise(view.contiguous(), keys, std, **args)
            assert torch.equal(ops.gaussian_noise(view, keys, std, **args), expected)

    def test_memory_off_the_16_byte_boundary(self, device):
        images, keys, std = self.make(device, 2, 3, 8, 8)
        memory = torch.empty(images.numel() + 1, device=device)
        shifted = memory[1:].view(images.shape).copy_(images)
        args = {"seed": 5, "first_sample": 0, "samples": 2}
        expected = ops.gaussian_noise(images, keys, std, **args)
        assert torch.equal(ops.gaussian_noise(shifted, keys, std, **args), expected)

    def test_no_deviation_no_noise(self, device):
        images, keys, std = self.make(device)
        out = ops.gaussian_noise(images, keys, std * 0, seed=5, first_sample=0, samples=2)
        assert torch.equal(out, images.unsqueeze(1).expand_as(out))

    def test_empty_batch(self, device):
        images, keys, std = (t[:0] for t in self.make(device))
        out = ops.gaussian_noise(images, keys, std, seed=0, first_sample=0, samples=4)
        assert out.shape == (0, 4, 3, 5, 7)

    def test_bad_arguments_are_named(self, device):
        images, keys, std = self.make(device)
        good = {"seed": 0, "first_sample": 0, "samples": 1}
        with pytest.raises(RuntimeError, match=r"images must be \[B,C,H,W\], got 3 dim"):
            ops.gaussian_noise(images[0], keys, std, **good)
        with pytest.raises(RuntimeError, match="images must be float32 or float64"):
            ops.gaussian_noise(images.half(), keys, std, **good)
        with pytest.raises(RuntimeError, match=r"keys must be .* vector of 2 elements, got 1"):
            ops.gaussian_noise(images, keys[:1], std, **good)
        with pytest.raises(RuntimeError, match="std must be a contiguous float32 vector"):
            ops.gaussian_noise(images, keys, std.double(), **good)
        with pytest.raises(RuntimeError, match="samples must be at least 1, got 0"):
            ops.gaussian_noise(images, keys, std, **{**good, "samples": 0})
        with pytest.raises(RuntimeError, match=r"got 2 from 4294967295"):
            ops.gaussian_noise(images, keys, std, seed=0, first_sample=2**32 - 1, samples=2)
        with pytest.raises(RuntimeError, match="empty axis 2"):
            ops.gaussian_noise(images[:, :, :0], keys, std, **good)


@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (33, 35)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fmt", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("quads", [True, False])
def test_cuda_body_gives_the_bits_of_the_cpu_operator(c, size, dtype, fmt, quads):
    images, keys, std = batch(2, c, *size, dtype=dtype)
    images = images.to(memory_format=fmt)
    args = {"seed": -3, "first_sample": 2, "samples": 3 * c - 2}  # a thread takes four at a time
    expected = ops.gaussian_noise(images, keys, std, **args)
    got = native_items.gaussian_noise(images, keys, std, **args, quads=quads)
    assert torch.equal(got, expected)


DIGEST = """
import hashlib, torch
from gag_fast import ops
g = torch.Generator().manual_seed(3)
images = torch.randn(2, 3, 127, 131, generator=g)
maps = torch.randn(3, 127, 131, generator=g)
digest = hashlib.sha256()
for threads in (1, 2, 5):
    torch.set_num_threads(threads)
    part = hashlib.sha256()
    for x in (images, images.double(), images.to(memory_format=torch.channels_last)):
        keys = ops.image_keys(x)
        std = torch.tensor([0.5, 2.0])
        noisy = ops.gaussian_noise(x, keys, std, seed=7, first_sample=1, samples=3)
        ranks, order = ops.saliency_ranks(maps.to(x.dtype))
        slots = torch.tensor([[i, 5000 * i, 1, i - 1] for i in range(3)], dtype=torch.int32)
        copies = []
        for dtype in (torch.float32, torch.float16):
            out = torch.empty(3, 3, 127, 131, dtype=dtype).to(memory_format=torch.channels_last)
            ops.compose_(out, x.float(), torch.arange(3.0), ranks, slots)
            copies.append(out)
        for t in (keys, noisy, ranks, order, *copies):
            part.update(t.contiguous().numpy().tobytes())
    digest.update(part.digest())
    print(part.hexdigest())
"""


def test_same_bits_for_every_simd_level_and_thread_count():
    digests = set()
    for level in ("baseline", "avx2", "avx512"):
        env = {**os.environ, "GAG_FAST_SIMD": level}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True
        )
        if "this CPU has no more than" in run.stderr:
            continue
        assert run.returncode == 0, run.stderr
        digests.update(run.stdout.split())
    assert len(digests) == 1


def test_unknown_simd_level_is_named():
    code = "import torch; from gag_fast import ops; ops.image_keys(torch.zeros(1, 1, 1, 1))"
    env = {**os.environ, "GAG_FAST_SIMD": "mmx"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode != 0
    assert "GAG_FAST_SIMD must be baseline, avx2 or avx512, got 'mmx'" in run.stderr


def mix64(x: int) -> int:
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


@pytest.mark.parametrize("device", DEVICES)
class TestImageKeys:
    def test_is_the_sum_of_mixed_words(self, device):
        images = batch()[0]
        for b, key in enumerate(ops.image_keys(images.to(device)).tolist()):
            words = images[b].reshape(-1).numpy().view(np.uint32).tolist()
            total = sum(mix64((i << 32) | bits) for i, bits in enumerate(words))
            assert key % 2**64 == total % 2**64

    def test_same_for_any_strides_dtype_and_batch(self, device):
        images = batch(5, 3, 33, 29)[0].to(device)
        keys = ops.image_keys(images)
        assert keys.dtype == torch.int64
        same = [
            images.to(memory_format=CHANNELS_LAST),
            images.double(),
            images.double().to(memory_format=CHANNELS_LAST),
            images.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
            torch.nn.functional.pad(images, (2, 3, 1, 0))[:, :, 1:, 2:-3],
        ]
        for view in same:
            assert torch.equal(ops.image_keys(view), keys)
        assert torch.equal(ops.image_keys(images[2:3]), keys[2:3])
        assert torch.equal(ops.image_keys(images.flip(0)), keys.flip(0))

    def test_sees_every_pixel_and_its_place(self, device):
        images = batch(1, 3, 6, 7)[0].to(device)
        changed = images.repeat(126, 1, 1, 1)
        changed.view(126, 126).diagonal().add_(1e-3)
        swapped = images.clone()
        swapped[0, 0, 0, 0], swapped[0, 0, 0, 1] = images[0, 0, 0, 1], images[0, 0, 0, 0]
        transposed = images.transpose(2, 3).reshape(images.shape)
        keys = ops.image_keys(torch.cat([images, changed, swapped, transposed]))
        assert keys.unique().numel() == keys.numel()

    def test_no_collisions_among_like_images(self, device):
        images = torch.zeros(20_000, 1, 2, 2, device=device)
        images[:, 0, 1, 1] = torch.arange(20_000, device=device) / 255
        assert ops.image_keys(images).unique().numel() == 20_000

    def test_bad_arguments_are_named(self, device):
        with pytest.raises(
            RuntimeError, match=r"image_keys: images must be \[B,C,H,W\], got 2 dim"
        ):
            ops.image_keys(torch.zeros(3, 3, device=device))
        assert ops.image_keys(torch.zeros(0, 3, 2, 2, device=device)).shape == (0,)


def test_cuda_hash_body_gives_the_keys_of_the_cpu_operator():
    images = batch(2, 3, 9, 11)[0]
    for view in (images, images.to(memory_format=CHANNELS_LAST), images.transpose(2, 3)):
        assert torch.equal(native_items.image_keys(view), ops.image_keys(view))
