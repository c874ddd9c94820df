"""Data sets: which files, which classes, and what is refused."""

import os
import tarfile
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gag_fast.data import DataError, Dataset, Item, open_dataset
from gag_fast.data.imagenet import WNIDS
from gag_fast.images import read_bytes


@pytest.fixture
def touch(tmp_path):
    """Makes empty files: nothing here reads pixels."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def targets(dataset):
    return {item.image: item.target for item in dataset.items}


# ---- folders -----------------------------------------------------------------------------------


def test_a_folder_for_each_class(touch):
    root = touch("b/2.jpg", "a/x/1.PNG", "a/0.jpg", "a/readme.txt", ".hidden/3.jpg", "a/._0.jpg")
    found = open_dataset(root, num_classes=2)
    assert targets(found) == {"a/0.jpg": 0, "a/x/1.PNG": 0, "b/2.jpg": 1}
    assert [item.image for item in found.items] == sorted(targets(found))
    assert found.notes == ()


def test_a_flat_folder_has_no_labels(touch):
    found = open_dataset(touch("b.jpg", "a.jpg", "notes.txt"))
    assert targets(found) == {"a.jpg": None, "b.jpg": None}
    assert "predicts" in found.notes[0]


def test_wordnet_folders_of_a_part_of_imagenet(touch):
    root = touch("n02123045/cat.jpg", "n01440764/fish.jpg", "n15075141/paper.jpg")
    assert targets(open_dataset(root, num_classes=1000)) == {
        "n01440764/fish.jpg": 0,
        "n02123045/cat.jpg": 281,
        "n15075141/paper.jpg": 999,
    }


def test_wordnet_folders_for_a_model_of_its_own_classes(touch):
    root = touch("n02123045/cat.jpg", "n01440764/fish.jpg")
    assert targets(open_dataset(root, num_classes=2)) == {
        "n01440764/fish.jpg": 0,
        "n02123045/cat.jpg": 1,
    }


def test_folders_named_by_the_models_labels(touch):
    root = touch("tabby_cat/a.jpg", "Dog/b.jpg")
    labels = ["dog", "bird", "tabby cat"]
    assert targets(open_dataset(root, 3, labels)) == {"Dog/b.jpg": 0, "tabby_cat/a.jpg": 2}


def test_folders_named_by_numbers_when_some_are_missing(touch):
    root = touch("2/a.jpg", "10/b.jpg")
    assert targets(open_dataset(root, 11)) == {"2/a.jpg": 2, "10/b.jpg": 10}


def test_folders_of_unknown_names_are_numbered_and_that_is_said(touch):
    found = open_dataset(touch("x/a.jpg", "y/b.jpg"), num_classes=1000)
    assert targets(found) == {"x/a.jpg": 0, "y/b.jpg": 1}
    assert "'x', 'y' are no labels of the model" in found.notes[0]


def test_more_folders_than_classes(touch):
    with pytest.raises(
        DataError, match=r"3 class folders \('a', 'b', 'c'\) do not fit a model of 2"
    ):
        open_dataset(touch("a/1.jpg", "b/1.jpg", "c/1.jpg"), num_classes=2)


def test_images_beside_class_folders_are_said_to_be_left_out(touch):
    found = open_dataset(touch("a/1.jpg", "b/1.jpg", "stray.jpg"), num_classes=2)
    assert len(found) == 2
    assert found.notes == ("1 images beside the class folders are left out",)


def test_a_name_that_is_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    (item,) = open_dataset(tmp_path).items
    assert item.image == "caf\\xe9.jpg"
    assert item.path.exists()


def test_links_in_a_circle(touch):
    root = touch("a/1.jpg", "b/2.jpg")
    (root / "a" / "again").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "loop.jpg").symlink_to(root)
    assert targets(open_dataset(root, 2)) == {"a/1.jpg": 0, "b/2.jpg": 1}


def test_no_images(touch):
    with pytest.raises(DataError, match="no images"):
        open_dataset(touch("notes.txt"))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"gone: no such file or folder"):
        open_dataset(tmp_path / "gone")


def test_neither_folder_nor_table(touch):
    with pytest.raises(DataError, match=r"must be a folder of images, a table \(\.csv"):
        open_dataset(touch("x.docx") / "x.docx")


# ---- tables --------------------------------------------------------------------------------------


def table(tmp_path, text, name="data.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize("path", ["path", "image", "file", "FileName", " path "])
@pytest.mark.parametrize("label", ["label", "class_index", "target", "Class"])
def test_names_of_columns(tmp_path, path, label):
    found = open_dataset(table(tmp_path, f"{label},{path}\n3,a/b.jpg\n"), 5)
    assert found.items == (Item("a/b.jpg", tmp_path / "a/b.jpg", 3),)


def test_an_index_says_more_than_a_name(tmp_path):
    text = "file,name,wnid,class_index\na.jpg,crane,n02012849,134\n"
    assert targets(open_dataset(table(tmp_path, text), 1000, ["?"] * 1000)) == {"a.jpg": 134}


def test_labels_by_name_and_by_wordnet_id(tmp_path):
    text = "path,label\na.jpg,Tench\nb.jpg,n02123045\nc.jpg,\n"
    found = open_dataset(table(tmp_path, text), 1000, ["tench", *map(str, range(999))])
    assert targets(found) == {"a.jpg": 0, "b.jpg": 281, "c.jpg": None}


def test_masks_and_absolute_paths(tmp_path):
    text = f"path,label,mask\na.jpg,1,masks/a.png\n{tmp_path}/b.jpg,0,\n"
    a, b = open_dataset(table(tmp_path, text), 2).items
    assert a.mask == tmp_path / "masks/a.png"
    assert b.mask is None
    assert b.path == tmp_path / "b.jpg"
    assert open_dataset(tmp_path / "data.csv", 2).has_masks


def test_without_a_header(tmp_path):
    (tmp_path / "a.jpg").touch()
    found = open_dataset(table(tmp_path, "a.jpg,4,m.png\nb.jpg,5,\n"), 6)
    assert targets(found) == {"a.jpg": 4, "b.jpg": 5}
    assert found.items[0].mask == tmp_path / "m.png"


def test_tab_separated_with_a_byte_order_mark(tmp_path):
    (tmp_path / "d.tsv").write_bytes("\ufeffpath\tlabel\na, b.jpg\t1\n".encode())
    assert targets(open_dataset(tmp_path / "d.tsv", 2)) == {"a, b.jpg": 1}


def test_parquet(tmp_path):
    pq.write_table(
        pa.table({"image": ["a.jpg", "b.jpg"], "label": [1.0, None]}), tmp_path / "d.parquet"
    )
    assert targets(open_dataset(tmp_path / "d.parquet", 2)) == {"a.jpg": 1, "b.jpg": None}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("x,y\n1,2\n", r"no column of paths \(path, image, file, …\), found x, y"),
        ("path,label\na.jpg,zebra\n", r"row 1 \(a\.jpg\): label 'zebra' is neither"),
        ("path,label\na.jpg,crane\n", r"label 'crane' is that of the classes 1, 2: give the index"),
        ("path,label\na.jpg,1\na.jpg,1\n", r"a\.jpg is there twice"),
        ("path,label\n,1\n", "row 1 has no path"),
        ("path,label\n", "no images"),
        ("path,label\na.jpg,3\n", r"label 3 of a\.jpg is out of range for a model of 3 classes"),
        ("path,label\na.jpg,-1\nb.jpg,7\n", r"label -1 of a\.jpg .* \(0 to 2\) \(and 1 more\)"),
    ],
)
def test_refused_tables(tmp_path, text, reason):
    with pytest.raises(DataError, match=reason) as caught:
        open_dataset(table(tmp_path, text), 3, ["dog", "crane", "crane"])
    assert "\n" not in str(caught.value)


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "d.parquet").write_text("path,label")
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00path")
    for name in ("d.parquet", "d.csv"):
        with pytest.raises(DataError, match=rf"{name}: not a"):
            open_dataset(tmp_path / name)


# ---- the rest ---------------------------------------------------------------------------


def test_the_fingerprint_tells_names_labels_masks_and_order(tmp_path):
    def mark(*items):
        return Dataset(tmp_path, items).fingerprint()

    a, b = Item("a", tmp_path / "a", 1), Item("b", tmp_path / "b", 1)
    assert mark(a, b) == mark(Item("a", tmp_path / "elsewhere", 1), b)
    different = [
        mark(a, b),
        mark(b, a),
        mark(a),
        mark(Item("a", tmp_path / "a", 2), b),
        mark(Item("a", tmp_path / "a", 1, tmp_path / "m.png"), b),
    ]
    assert len(set(different)) == len(different)


def test_first(tmp_path):
    data = Dataset(tmp_path, tuple(Item(str(i), tmp_path) for i in range(5)))
    assert len(data.first(2)) == 2
    assert data.first(None) is data
    assert data.first(9) is data


def test_imagenets_ids():
    assert len(WNIDS) == 1000
    assert list(WNIDS) == sorted(set(WNIDS))


# ---- archives ----------------------------------------------------------------------------


def archive(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def test_an_archive(tmp_path):
    files = {
        "a/1.jpg": b"first",
        "a/1.cls": b"2\n",
        "2.seg.txt": b"",
        "2.png": b"second",
        "2.json": b'{"label": "dog"}',
        "3.jpg": b"third",
    }
    path = archive(tmp_path / "s.tar", files)
    items = open_dataset(path, 3, ["dog", "cat", "bird"]).items
    assert [(i.image, i.target) for i in items] == [("a/1.jpg", 2), ("2.png", 0), ("3.jpg", None)]
    assert [read_bytes(i.path, i.place) for i in items] == [b"first", b"second", b"third"]


def test_a_folder_of_archives(tmp_path):
    for name in ("s0.tar", "s1.tar"):
        archive(tmp_path / name, {"1.jpg": b"x", "1.cls": b"1"})
    assert targets(open_dataset(tmp_path, 2)) == {"s0.tar/1.jpg": 1, "s1.tar/1.jpg": 1}


def test_archives_that_are_none(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"this is no archive" * 100)
    with pytest.raises(DataError, match=r"bad\.tar: not a plain \.tar archive"):
        open_dataset(tmp_path / "bad.tar")
    with tarfile.open(tmp_path / "z.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"z\.tar: not a plain \.tar archive"):
        open_dataset(tmp_path / "z.tar")
    path = archive(tmp_path / "label.tar", {"1.jpg": b"x", "1.cls": b"zebra"})
    with pytest.raises(DataError, match=r"label\.tar: 1\.jpg: label 'zebra'"):
        open_dataset(path, 2, ["dog", "cat"])
