"""Maps that were made elsewhere, one for each image, found by the image's name.

    FOLDER      cat/1.npy or cat/1.jpg.npy for the image cat/1.jpg
    FILE.npz    an array called cat/1.jpg or cat/1; or `images`, names `[N]`, and `maps` `[N,H,W]`
    X.zarr      a group that is laid out like the .npz

A map is a float array of the size of the model's input. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gag_fast._errors import GagFastError, first_line


class MapError(GagFastError):
    """A map that cannot be used: it costs its row."""


class GivenMaps:
    """The maps of one folder or file.

    Args:
        path: folder, .npz file or .zarr group.

    Raises:
        GagFastError: there is none, or it is of another kind.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise GagFastError(f"{self.path}: no such folder or file of maps")
        self._find: Callable[[str], Any]
        if self.path.suffix == ".zarr":
            self._find = self._in_arrays(_zarr_group(self.path))
        elif self.path.is_dir():
            self._find = self._in_folder
        elif self.path.suffix == ".npz":
            try:
                archive = np.load(self.path, allow_pickle=False)
                self._find = self._in_arrays(archive)
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                if isinstance(error, GagFastError):
                    raise
                raise GagFastError(f"{self.path}: cannot be read: {first_line(error)}") from None
        else:
            raise GagFastError(f"{self.path}: maps must be a folder, an .npz or a .zarr")

    def map_of(self, image: str, shape: tuple[int, int]) -> np.ndarray:
        """The image's map, float32 `[H,W]`.

        Raises:
            MapError: there is none, it cannot be read, or is no map of that shape.
        """
        try:
            array = self._find(image)
            if array is None:
                raise MapError(f"{self.path}: no map of {image}")
            if tuple(array.shape) not in (shape, (1, *shape)):
                raise MapError(
                    f"{self.path}: the map of {image} is {list(array.shape)}, the model's images "
                    f"are {list(shape)}"
                )
            if np.dtype(array.dtype).kind not in "fiu":
                raise MapError(f"{self.path}: the map of {image} is {array.dtype}, not numbers")
            return np.array(array, dtype=np.float32).reshape(shape)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            if isinstance(error, MapError):
                raise
            reason = first_line(error)
            raise MapError(f"{self.path}: the map of {image} cannot be read: {reason}") from None

    def fingerprint(self) -> str:
        """SHA-256 of all that is in it, names and bytes."""
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(os.fsencode(path.relative_to(self.path.parent).as_posix()))
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _files(self) -> Iterator[Path]:
        if self.path.is_file():
            yield self.path
        else:
            wanted = "*" if self.path.suffix == ".zarr" else "*.npy"
            yield from sorted(p for p in self.path.rglob(wanted) if p.is_file())

    def _in_folder(self, image: str) -> Any:
        for name in _names(image):
            path = self.path / f"{name}.npy"
            if path.is_file() and path.resolve().is_relative_to(self.path.resolve()):
                return np.load(path, mmap_mode="r", allow_pickle=False)
        return None

    def _in_arrays(self, arrays: Any) -> Callable[[str], Any]:
        if "images" in arrays and "maps" in arrays:
            names = [str(name) for name in np.asarray(arrays["images"][:]).tolist()]
            maps = arrays["maps"]  # of an .npz read at once, of a .zarr row by row
            if len(names) != maps.shape[0]:
                raise GagFastError(
                    f"{self.path}: {len(names)} names in `images` for {maps.shape[0]} `maps`"
                )
            places = {name: number for number, name in enumerate(names)}

            def row(image: str) -> Any:
                found = (places[name] for name in _names(image) if name in places)
                number = next(found, None)
                return None if number is None else maps[number]

            return row

        def array(image: str) -> Any:
            return next((arrays[name] for name in _names(image) if name in arrays), None)

        return array


def open_maps(paths: Mapping[str, str | os.PathLike[str]]) -> dict[str, GivenMaps]:
    """Each method's maps."""
    return {name: GivenMaps(path) for name, path in paths.items()}


def _names(image: str) -> tuple[str, str]:
    """What a map of the image may be called: with the picture's suffix and without."""
    return image, PurePosixPath(image).with_suffix("").as_posix() if image else image


def _zarr_group(path: Path) -> Any:
    try:
        import zarr
    except ImportError:
        raise GagFastError(f"{path}: reading it needs the package zarr: pip install zarr") from None
    try:
        return zarr.open_group(str(path), mode="r")
    except Exception as error:
        raise GagFastError(f"{path}: is no Zarr group: {first_line(error)}") from None
