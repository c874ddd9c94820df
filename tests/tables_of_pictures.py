"""Tables whose rows hold pictures, in the forms of Hugging Face's `datasets`, by pyarrow alone."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(data, path=None):
    """A cell; of a file its bytes and its name."""
    return {"bytes": data, "path": path}


def table_of(images, labels=None, classes=None, kind=STRUCT, **columns):
    """A table with the metadata that `datasets` writes.

    Args:
        images: cells.
        labels: indices of `classes`, or whatever, or None for no column.
        classes: names; None: the column is no ClassLabel.
        kind: of the column of images.
        columns: further ones: name -> array.
    """
    features = {"image": {"_type": "Image"}}
    arrays = {"image": pa.array(images, kind)}
    if labels is not None:
        arrays["label"] = pa.array(labels)
        features["label"] = {"dtype": str(arrays["label"].type), "_type": "Value"}
        if classes is not None:
            features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    return described(pa.table({**arrays, **columns}), features)


def described(table, features):
    """The table with what `datasets` says of its columns."""
    said = {"info": {"features": features}}
    return table.replace_schema_metadata({"huggingface": json.dumps(said)})


def save(folder, *tables, batch=3, options=None):
    """What `Dataset.save_to_disk` writes: a stream of record batches for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables):
        with pa.ipc.new_stream(str(folder / name), table.schema, options=options) as stream:
            stream.write_table(table, max_chunksize=batch)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    return folder


def save_splits(folder, **splits):
    """What `DatasetDict.save_to_disk` writes: name -> table."""
    for name, table in splits.items():
        save(folder / name, table)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def save_shards(folder, split, *tables, rows=4):
    """Parquet files under the names that the Hub gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{split}-{i:05d}-of-{len(tables):05d}.parquet" for i in range(len(tables))]
    for path, table in zip(paths, tables):
        pq.write_table(table, path, row_group_size=rows)
    return paths
