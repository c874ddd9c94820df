"""Chunks: always the same ones for the same data."""

import pytest

from gag_fast.data import Dataset, Item
from gag_fast.runs.chunks import MAX_PARTS, chunk_size, cut


def test_chunks_cover_the_data_once_and_in_order(tmp_path):
    items = tuple(Item(str(i), tmp_path / str(i)) for i in range(10))
    chunks = cut(Dataset(tmp_path, items), 4)
    assert [len(c.items) for c in chunks] == [4, 4, 2]
    assert [c.index for c in chunks] == [0, 1, 2]
    assert tuple(i for c in chunks for i in c.items) == items


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("images", [1, 244, 50_000, 1_300_000, 100_000_000])
def test_there_are_never_too_many_parts(images, device):
    size = chunk_size(images, device)
    assert -(-images // size) <= MAX_PARTS
    assert size % 8 == 0


def test_small_data_has_small_chunks():
    assert chunk_size(1) == chunk_size(244) == 8
    assert chunk_size(244, "cuda") == 64
    assert chunk_size(50_000) == 16


def test_the_size_may_be_said():
    assert chunk_size(10**6, asked=5) == 5
    with pytest.raises(ValueError, match="1 image or more, got 0"):
        chunk_size(10, asked=0)
