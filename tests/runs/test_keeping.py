"""Whose maps stay in a run: those that its report shows, whatever the order of the chunks."""

import itertools

import numpy as np
import pytest

from gag_fast.report.gallery import Pictures, choose
from gag_fast.report.live import exact_map
from gag_fast.report.page import focus_method
from gag_fast.report.reading import read_run
from gag_fast.report.shown import COUNT, DRAWN, Candidate, heads
from gag_fast.runs.folder import RunFolder


def shards(folder):
    """file name -> bytes of every shard."""
    return {path.name: path.read_bytes() for path in (folder / "maps").iterdir()}


def shown(run):
    """Names of the images that the report's gallery shows."""
    groups = choose(run, run.metrics[0], focus_method(run), COUNT)
    return [card.image for group in groups for card in group.cards]


def test_the_report_has_a_map_for_every_image_it_shows(photos, start, tmp_path):
    start(photos(40))
    run = read_run(tmp_path / "run")
    pictures = Pictures(run)
    names = shown(run)
    assert len(names) == 3 * COUNT
    for name in names:
        rows = np.flatnonzero(run.image == run.images.index(name))
        assert all(pictures.saliency(name, row) is not None for row in rows)
        absmean, variance = pictures.statistics(name)
        p85 = next(r for r in rows if run.methods[run.method[r]] == "guided_absgrad")
        ours = exact_map(absmean, variance, 85)
        # The stored map is float16.
        np.testing.assert_allclose(pictures.saliency(name, p85), ours, atol=2e-3)
    folder = RunFolder(tmp_path / "run")
    kept = {name for chunk in folder.shards() for name in folder.shard_images(chunk)}
    assert set(names) <= kept
    assert len(kept) <= 2 * COUNT + DRAWN


def test_a_stopped_run_keeps_the_same_maps(photos, start, tmp_path):
    data = photos(40)
    start(data, out="whole")
    start(data, out="stopped")
    folder = tmp_path / "stopped"
    for number in (2, 5, 8, 9):  # as if these had never been reached, or died between two files
        (folder / "results" / f"part-{number:06d}.parquet").unlink()
    (folder / "maps" / "part-000008.npz").unlink(missing_ok=True)
    assert start(data, out="stopped").computed == 16
    assert shards(folder) == shards(tmp_path / "whole")
    assert start(data, out="stopped").computed == 0
    assert shards(folder) == shards(tmp_path / "whole")


def test_what_a_kill_left_too_much_goes_at_the_next_start(photos, start, tmp_path):
    data = photos(40)
    start(data, out="all", keep_maps=True)
    start(data, out="run")
    before = shards(tmp_path / "run")
    left = next(p for p in sorted((tmp_path / "all" / "maps").iterdir()))
    (tmp_path / "run" / "maps" / left.name).write_bytes(left.read_bytes())
    start(data, out="run")
    after = shards(tmp_path / "run")
    assert set(after) == set(before)
    run = RunFolder(tmp_path / "run")
    whole = RunFolder(tmp_path / "all")
    assert len(whole.shard_images(0)) == 4
    assert run.shard_images(0) <= whole.shard_images(0)


def test_with_keep_maps_every_map_stays_and_few_statistics(photos, start, tmp_path):
    start(photos(40), keep_maps=True)
    folder = RunFolder(tmp_path / "run")
    shards = [folder.read_shard(chunk) for chunk in folder.shards()]
    assert sum(len(shard["images"]) for shard in shards) == 40
    live = [str(n) for shard in shards for n in shard.get("live_images", ())]
    assert set(shown(read_run(tmp_path / "run"))) <= set(live)
    assert len(live) <= 2 * COUNT + DRAWN


def test_failed_images_are_not_shown(photos, start, tmp_path):
    data = photos(12)
    broken = sorted(data.rglob("*.png"))[1]
    broken.write_bytes(b"no picture")
    assert start(data).failures
    run = read_run(tmp_path / "run")
    assert f"{broken.parent.name}/{broken.name}" not in shown(run)
    assert len(shown(run)) == 11


def test_methods_without_noise_have_no_statistics(photos, start, tmp_path):
    start(photos(4), methods=("vanilla",))
    shard = RunFolder(tmp_path / "run").read_shard(0)
    assert set(shard) == {"images", "vanilla"}


def test_seconds_are_those_of_the_gradients_a_method_needs(photos, start, tmp_path):
    start(photos(8), methods=("guided_absgrad", "guided_absgrad@50", "vanilla"), n=20)
    run = read_run(tmp_path / "run")
    seconds = run.columns["method_seconds"].reshape(8, 3)
    np.testing.assert_array_equal(seconds[:, 0], seconds[:, 1])  # they share one pass
    assert seconds[:, 0].sum() > 0
    assert seconds[:, 2].sum() > 0
    assert run.section("passes") == {"guided_absgrad": 20, "guided_absgrad@50": 20, "vanilla": 1}


# ---- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_heads_of_heads_are_the_heads(seed):
    """Whatever order the images come in, and however they are cut, the same ones stay."""
    rng = np.random.default_rng(seed)
    everything = [
        Candidate(f"{k}.png", k, float(v)) for k, v in enumerate(rng.integers(0, 30, 200) / 30)
    ]
    final = heads(everything)
    kept = []
    for part in np.array_split(rng.permutation(200), 23):
        kept += [everything[k] for k in part]
        names = heads(kept)
        kept = [c for c in kept if c.image in names]
    assert {c.image for c in kept} == final
    assert len(final) <= 2 * COUNT + DRAWN


def test_a_run_of_few_images_shows_all():
    few = [Candidate(f"{k}.png", k, 0.5) for k in range(3 * COUNT)]
    assert heads(few) == {c.image for c in few}


def test_images_differ_by_lot():
    names = [f"{k}.png" for k in range(50)]
    drawn = heads([Candidate(n, k, 0.0) for k, n in enumerate(names)], count=0, drawn=5)
    assert drawn != set(itertools.islice(names, 5))
