"""Tables whose rows hold the pictures: saved by `datasets`, or Parquet as the Hub has it."""

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gag_fast.data import DataError, PlaceReader, cells, open_dataset
from gag_fast.data.places import Cell, Fault, Span, place_from_json, place_to_json
from gag_fast.data.reading import NullError
from gag_fast.images import ImageError, read_bytes
from tests.tables_of_pictures import (
    STRUCT,
    described,
    picture,
    save,
    save_shards,
    save_splits,
    table_of,
)

CLASSES = ("cat", "dog", "owl")
FORMS = ("arrow", "parquet")


def contents(count=10, size=50):
    """What stands for pictures here: nothing is decoded."""
    rng = random.Random(count)
    return [rng.randbytes(size + i) for i in range(count)]


def rows(count=10, first=0):
    return [picture(data, f"{first + i}.png") for i, data in enumerate(contents(count))]


def stored(form, folder, *tables):
    """The tables in one of the two forms; what to give as the data."""
    if form == "arrow":
        return save(folder, *tables)
    save_shards(folder, "train", *tables)
    return folder


def targets(dataset):
    return [item.target for item in dataset.items]


def read(item, reader=None):
    found = (reader or PlaceReader()).read(item.path, item.place)
    return read_bytes(found) if isinstance(found, Path) else found


def why(item):
    with pytest.raises(ImageError) as caught:
        read(item)
    return str(caught.value)


# ---- what is in them -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_images(tmp_path, form):
    labels = [i % 3 for i in range(10)]
    data = stored(form, tmp_path / "d", table_of(rows(), labels, CLASSES))
    found = open_dataset(data, 3, CLASSES)
    assert [i.image for i in found.items] == [f"{i}.png" for i in range(10)]
    assert targets(found) == labels
    assert found.notes == ()
    with PlaceReader() as reader:
        assert [read(item, reader) for item in found.items] == contents()
    kind = Span if form == "arrow" else Cell
    assert all(isinstance(item.place, kind) for item in found.items)


@pytest.mark.parametrize("form", FORMS)
def test_files_of_several_are_one_data_set(tmp_path, form):
    data = stored(form, tmp_path / "d", table_of(rows(4)), table_of(rows(5, 4)))
    items = open_dataset(data).items
    assert [i.image for i in items] == [f"{i}.png" for i in range(9)]
    assert [read(i) for i in items] == contents(4) + contents(5)


def test_the_state_says_which_files_and_in_which_order(tmp_path):
    data = save(tmp_path / "d", table_of(rows(2)), table_of(rows(2, 2)), table_of(rows(2, 4)))
    files = [f"data-0000{i}-of-00003.arrow" for i in (2, 0)]
    (data / "state.json").write_text(json.dumps({"_data_files": [{"filename": f} for f in files]}))
    assert [i.image for i in open_dataset(data).items] == ["4.png", "5.png", "0.png", "1.png"]


@pytest.mark.parametrize("form", FORMS)
def test_one_file_alone(tmp_path, form):
    (file,) = stored(form, tmp_path / "d", table_of(rows(3))).glob(f"*.{form}")
    assert [read(i) for i in open_dataset(file).items] == contents(3)


@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("form", FORMS)
def test_rows_without_paths_are_called_by_file_and_number(tmp_path, form, kind):
    cells = [picture(c) if kind is STRUCT else c for c in contents(4)]
    data = stored(form, tmp_path / "d", table_of(cells, kind=kind))
    items = open_dataset(data).items
    name = "data-00000-of-00001.arrow" if form == "arrow" else "train-00000-of-00001.parquet"
    assert [i.image for i in items] == [f"{name}#{i}" for i in range(4)]
    assert [read(i) for i in items] == contents(4)


@pytest.mark.parametrize("form", FORMS)
def test_only_paths_that_are_unique_are_names(tmp_path, form):
    cells = [picture(b"x", path) for path in ("a", "b", "a", "", None)]
    found = open_dataset(stored(form, tmp_path / "d", table_of(cells)))
    assert [i.image.partition("#")[2] or i.image for i in found.items] == ["0", "b", "2", "3", "4"]


@pytest.mark.parametrize("form", FORMS)
def test_names_that_are_no_utf8(tmp_path, form):
    cells = pa.StructArray.from_arrays(
        [pa.array([b"x", b"y"]), pa.array([b"caf\xe9.png", b"a"]).view(pa.string())],
        names=["bytes", "path"],
    )
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff"))
    folder.mkdir()
    made = stored(form, tmp_path / "d", described(pa.table({"image": cells}), {}))
    for file in made.iterdir():
        file.rename(folder / file.name)
    items = open_dataset(folder).items
    assert [i.image for i in items] == ["caf\\xe9.png", "a"]
    assert [read(i) for i in items] == [b"x", b"y"]


def test_places_travel_as_json():
    for place in (None, Span(3, 4), Cell("image", 5, "/d"), Fault("why")):
        assert place_from_json(json.loads(json.dumps(place_to_json(place)))) == place


def test_the_real_library_writes_the_same(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    labels = [i % 3 for i in range(10)]
    real = datasets.Dataset.from_dict({"image": rows(), "label": labels}, features=features)
    splits = datasets.DatasetDict({"train": real, "test": real})
    splits.save_to_disk(str(tmp_path / "real"))
    ours = save_splits(
        tmp_path / "ours", **dict.fromkeys(splits, table_of(rows(), labels, CLASSES))
    )

    def schema(path):
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_stream(file).schema

    def files(folder):
        return sorted(p.relative_to(folder) for p in folder.rglob("*"))

    assert files(tmp_path / "real") == files(ours)
    for path in (p for p in files(ours) if p.suffix == ".arrow"):
        theirs = schema(tmp_path / "real" / path)
        assert theirs.equals(schema(ours / path))
        assert json.loads(theirs.metadata[b"huggingface"]) == json.loads(
            schema(ours / path).metadata[b"huggingface"]
        )
    for path in (p for p in files(ours) if p.suffix == ".json"):
        said, made = (json.loads((f / path).read_text()) for f in (tmp_path / "real", ours))
        assert set(said) == set(made)
    real.to_parquet(str(tmp_path / "0.parquet"))
    for data in (tmp_path / "real" / "test", ours / "test", tmp_path / "0.parquet"):
        found = open_dataset(data, 3, CLASSES)
        assert [(i.image, i.target) for i in found.items] == [
            (f"{i}.png", k) for i, k in enumerate(labels)
        ]
        assert [read(i) for i in found.items] == contents()


# ---- splits --------------------------------------------------------------------------------------


def test_splits_of_a_saved_dict(tmp_path):
    data = save_splits(tmp_path / "d", train=table_of(rows(3)), validation=table_of(rows(2)))
    with pytest.raises(DataError, match=r"d: holds the splits train, validation: name one, as in"):
        open_dataset(data)
    assert len(open_dataset(data / "validation")) == 2
    alone = save_splits(tmp_path / "alone", test=table_of(rows(3)))
    assert len(open_dataset(alone)) == 3


@pytest.mark.parametrize("where", ["d", "d/data"])
def test_splits_of_shards(tmp_path, where):
    hub = tmp_path / "d" / "data"
    save_shards(hub, "train", table_of(rows(3)))
    save_shards(hub, "validation", table_of(rows(2)), table_of(rows(2, 2)))
    (tmp_path / "d" / "README.md").touch()
    data = tmp_path / where
    with pytest.raises(DataError, match=r"the splits train, validation: name one, as in .*/train"):
        open_dataset(data)
    assert [i.image for i in open_dataset(data / "validation").items] == [
        f"{i}.png" for i in range(4)
    ]
    with pytest.raises(DataError, match=r"test: no such file or folder"):
        open_dataset(data / "test")
    (hub / "train-00000-of-00001.parquet").unlink()
    assert len(open_dataset(data)) == 4


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["0000", "0001"], [""]),
        (["part-0", "part-1"], ["part"]),
        (["test-00000-of-00001-0123456789abcdef"], ["test"]),
        (["train", "validation"], ["train", "validation"]),
        (["fold-2-00000-of-00002", "fold-2-00001-of-00002"], ["fold-2"]),
    ],
)
def test_what_the_names_of_shards_say(names, splits):
    from gag_fast.data.shards import splits_of

    assert list(splits_of([Path(f"{name}.parquet") for name in names])) == splits


def test_a_table_beside_images_makes_no_table_of_them(tmp_path):
    (tmp_path / "a.jpg").touch()
    pq.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "labels.parquet")
    (item,) = open_dataset(tmp_path).items
    assert (item.image, item.place) == ("a.jpg", None)
    assert open_dataset(tmp_path / "labels.parquet").items[0].path == tmp_path / "a.jpg"
    hashed = {"path": ["a.jpg"], "md5": [b"0123"], "mask": pa.array([picture(b"m")], STRUCT)}
    pq.write_table(pa.table(hashed).drop(["mask"]), tmp_path / "labels.parquet")
    assert open_dataset(tmp_path / "labels.parquet").items[0].path == tmp_path / "a.jpg"
    pq.write_table(pa.table({**hashed, "img": [b"x"]}).drop(["path"]), tmp_path / "labels.parquet")
    assert open_dataset(tmp_path).items[0].place == Cell("img", 0, str(tmp_path))


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_classes_are_found_by_their_names(tmp_path, form):
    data = stored(form, tmp_path / "d", table_of(rows(3), [0, 1, 2], ("owl", "Cat", "dog")))
    assert targets(open_dataset(data, 4, ["dog", "bird", "cat", "owl"])) == [3, 2, 0]
    assert targets(open_dataset(data, 3)) == [0, 1, 2]
    found = open_dataset(data, 4, ["a", "b", "c", "d"])
    assert targets(found) == [0, 1, 2]
    assert "classes of label 'owl', 'Cat', 'dog' are no labels of the model" in found.notes[0]
    with pytest.raises(DataError, match=r"3 classes of label \(.*\) do not fit a model of 2"):
        open_dataset(data, 2)


def test_wordnet_ids_and_the_two_cranes(tmp_path):
    data = save(tmp_path / "d", table_of(rows(2), [0, 1], ("n02123045", "n01440764")))
    assert targets(open_dataset(data, 1000)) == [281, 0]
    data = save(tmp_path / "e", table_of(rows(2), [1, 2], ("dog", "crane", "Crane")))
    assert targets(open_dataset(data, 3, ["dog", "crane", "crane"])) == [1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_a_null_label_and_minus_one_stand_for_the_class_that_is_predicted(tmp_path, form):
    data = stored(form, tmp_path / "d", table_of(rows(3), [None, -1, 2], CLASSES))
    assert targets(open_dataset(data, 3)) == [None, None, 2]
    data = stored(form, tmp_path / "e", table_of(rows(2), [-1, -1], CLASSES))
    assert "no labels" in open_dataset(data, 3).notes[0]
    assert "no labels" in open_dataset(stored(form, tmp_path / "f", table_of(rows(2)))).notes[0]


@pytest.mark.parametrize("form", FORMS)
def test_a_label_that_is_none_of_its_classes_costs_its_row(tmp_path, form):
    data = stored(form, tmp_path / "d", table_of(rows(4), [0, 3, -2, 1], CLASSES))
    good, three, minus_two, _ = open_dataset(data, 3).items
    assert read(good)
    assert "row 1: label 3 is none of its 3 classes" in why(three)
    assert "row 2: label -2 is none of its 3 classes" in why(minus_two)


def test_labels_without_names(tmp_path):
    data = save(tmp_path / "d", table_of(rows(2), [0, 7]))
    assert targets(open_dataset(data, 8)) == [0, 7]
    with pytest.raises(DataError, match=r"label 7 of 1\.png is out of range for a model of 7"):
        open_dataset(data, 7)
    data = save(tmp_path / "e", table_of(rows(2), ["owl", "cat"]))
    assert targets(open_dataset(data, 3, CLASSES)) == [2, 0]
    data = save(tmp_path / "f", table_of(rows(2), ["owl", "ox"]))
    with pytest.raises(DataError, match=r"arrow: row 1: label 'ox' is neither"):
        open_dataset(data, 3, CLASSES)


def test_the_only_column_of_classes_needs_no_name(tmp_path):
    table = pa.table({"image": pa.array(rows(2), STRUCT), "species": [2, 0]})
    table = described(table, {"species": {"names": list(CLASSES), "_type": "ClassLabel"}})
    assert targets(open_dataset(save(tmp_path / "d", table), 3)) == [2, 0]


# ---- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_masks(tmp_path, form):
    masks = pa.array([picture(b"m0"), None, picture(b"m2", "m")], STRUCT)
    data = stored(form, tmp_path / "d", table_of(rows(3), mask=masks))
    found = open_dataset(data)
    assert found.has_masks
    with PlaceReader() as reader:
        for item, mask in zip(found.items, (b"m0", None, b"m2")):
            assert (item.mask is None) == (mask is None)
            assert mask is None or reader.read(item.mask, item.mask_place) == mask
    files = pa.array(["m/a.png", None, "../b.png"])
    a, none, outside = open_dataset(
        stored(form, tmp_path / "e", table_of(rows(3), mask=files))
    ).items
    assert (a.mask, a.mask_place) == (tmp_path / "e" / "m/a.png", None)
    assert none.mask is None
    assert "lies outside" in outside.mask_place.reason


def test_which_column_holds_the_pictures(tmp_path):
    pictures = pa.array(rows(2), STRUCT)
    for names in (["img", "other"], ["other", "Image"], ["x", "mask"]):
        table = pa.table(dict.fromkeys(names, pictures))
        pq.write_table(table, tmp_path / "a.parquet")
        assert len(open_dataset(tmp_path / "a.parquet")) == 2
    pq.write_table(pa.table({"a": pictures, "b": pictures}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"several columns of pictures \(a, b\): call one image"):
        open_dataset(tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": pictures, "b": [b"1", b"2"]}), tmp_path / "a.parquet")
    assert open_dataset(tmp_path / "a.parquet").items[0].place.column == "a"
    sound = described(pa.table({"sound": pictures}), {"sound": {"_type": "Audio"}})
    data = save(tmp_path / "d", sound)
    with pytest.raises(DataError, match=r"no column of pictures \(struct<.*, found sound"):
        open_dataset(data)


# ---- rows and files that are bad -----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_pictures_that_are_files_of_their_own(tmp_path, form):
    (tmp_path / "d" / "p").mkdir(parents=True)
    (tmp_path / "d" / "p" / "a.png").write_bytes(b"a")
    (tmp_path / "secret.png").write_bytes(b"s")
    paths = ("p/a.png", "gone.png", "../secret.png", str(tmp_path / "secret.png"), "p/../p/a.png")
    data = stored(form, tmp_path / "d", table_of([picture(None, path) for path in paths]))
    a, gone, up, absolute, around = open_dataset(data).items
    assert read(a) == read(around) == b"a"
    assert "gone.png: no such file" in why(gone)
    for item in (up, absolute):
        assert f"secret.png: lies outside of the data set's folder {tmp_path / 'd'}" in why(item)


@pytest.mark.parametrize("form", FORMS)
def test_nulls_and_rows_without_bytes(tmp_path, form):
    cells = [picture(b"x", "x"), None, picture(None, ""), picture(b"", "e")]
    data = stored(form, tmp_path / "d", table_of(cells))
    good, null, nothing, empty = open_dataset(data).items
    assert read(good) == b"x"
    assert "row 1 has no picture" in why(null)
    assert "row 2 has no picture" in why(nothing)
    assert "is empty (0 bytes)" in why(empty)
    data = stored(form, tmp_path / "b", table_of([b"x", None], kind=pa.binary()))
    good, null = open_dataset(data).items
    assert read(good) == b"x"
    assert "row 1 has no picture" in why(null)


def test_a_file_that_changes_is_read_anew(tmp_path):
    (path,) = save_shards(tmp_path, "train", table_of(rows(4)))
    items = open_dataset(path).items
    with PlaceReader() as reader:
        assert read(items[3], reader) == contents(4)[3]
        save_shards(tmp_path, "train", table_of(rows(3)))
        with pytest.raises(ImageError, match="row 3 is not there, it has 3"):
            read(items[3], reader)
        pq.write_table(pa.table({"image": ["a.png"]}), path)
        with pytest.raises(ImageError, match=r"cannot be read: its column image holds string"):
            read(items[0], reader)
        path.write_bytes(b"PAR1")
        with pytest.raises(ImageError, match=r"parquet: cannot be read: "):
            read(items[0], reader)
        path.unlink()
        with pytest.raises(ImageError, match=r"no such file"):
            read(items[0], reader)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", ["empty", "short", "text", "folder"])
def test_files_that_are_none(tmp_path, form, damage):
    data = stored(form, tmp_path / "d", table_of(rows(4)))
    (file,) = data.glob(f"*.{form}")
    content = {"empty": b"", "short": file.read_bytes()[:400], "text": b"path,label\n"}
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(content[damage])
    with pytest.raises(DataError) as caught:
        open_dataset(data)
    assert "\n" not in str(caught.value)
    if damage != "folder":
        kind = "a stream of Arrow's" if form == "arrow" else "a Parquet file"
        assert f"{file.name}: not {kind}: " in str(caught.value)


def test_compressed_arrow_files_are_refused(tmp_path):
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    data = save(tmp_path / "d", table_of([picture(bytes(5000), "0")] * 9), options=options)
    with pytest.raises(DataError, match=r"its columns are compressed.*save it again"):
        open_dataset(data)


@pytest.mark.parametrize(
    "state", ["", "[]", '{"_data_files": [{"filename": "../x.arrow"}]}', '{"_data_files": 3}']
)
def test_states_that_are_none(tmp_path, state):
    data = save(tmp_path / "d", table_of(rows(2)))
    (data / "state.json").write_text(state)
    with pytest.raises(DataError, match=r"state\.json: (cannot be read|must list names)"):
        open_dataset(data)


# ---- reading cells -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forward", "backward", "random", "of two readers"])
@pytest.mark.parametrize("group", [1, 7, 1000])
def test_cells_in_any_order_within_a_bound(tmp_path, monkeypatch, order, group):
    monkeypatch.setattr(cells, "BATCH", 3 * 1000)
    monkeypatch.setattr(cells, "KEPT", 10 * 1000)
    wanted = contents(100, 1000)
    (path,) = save_shards(tmp_path, "train", table_of([picture(c) for c in wanted]), rows=group)
    numbers = list(range(100))
    if order == "backward":
        numbers.reverse()
    elif order == "random":
        random.Random(1).shuffle(numbers)
    elif order == "of two readers":
        numbers = numbers[::2]
    column = cells.Column(path, "image")
    for number in numbers:
        assert column.at(number) == (wanted[number], None)
        assert sum(kept.nbytes for _, kept in column._kept) < 10 * 1000 + 5 * 1100
    column.close()


def test_a_row_group_is_decoded_once(tmp_path, monkeypatch):
    (path,) = save_shards(tmp_path, "train", table_of(rows(100)), rows=25)
    entered = []
    enter = cells.Column._enter

    def count(self, group):
        entered.append(group)
        enter(self, group)

    monkeypatch.setattr(cells.Column, "_enter", count)
    items = open_dataset(path).items
    order = [
        i for g in (2, 0, 3, 1) for i in random.Random(g).sample(range(25 * g, 25 * g + 25), 25)
    ]
    with PlaceReader() as reader:
        for number in order:
            assert read(items[number], reader) == contents(100)[number]
    assert entered == [2, 0, 3, 1]


def test_a_null_is_told_from_what_cannot_be_read(tmp_path):
    (path,) = save_shards(tmp_path, "train", table_of([b"x", None], kind=pa.binary()))
    with PlaceReader() as reader, pytest.raises(NullError):
        reader.read(path, Cell("image", 1, str(tmp_path)))


def test_pipes_are_not_opened(tmp_path):
    data = save(tmp_path / "d", table_of(rows(2)))
    (file,) = data.glob("*.arrow")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="is not a regular file"):
        open_dataset(data)
    shutil.rmtree(data)
    data.mkdir()
    os.mkfifo(data / "a.parquet")
    with pytest.raises(DataError, match="no images"):
        open_dataset(data)
