"""The home `pyramid`: an OME-Zarr image that holds the tiles, and whose damage is found.

Pixels are read by plain zarr, levels computed anew by NumPy.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr

from tests.builders import create_store, refusal, store_meta, tree
from tests.pyramids import CELLS, EDGE, fill, new_store, pixels
from wsi_norm import TileStore, location
from wsi_norm.errors import StoreError
from wsi_norm.store import finished


@pytest.fixture(scope="module", params=["pyramid", "both"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store."""
    path = tmp_path_factory.mktemp(request.param) / "case.zarr"
    store = new_store(path, request.param)
    fill(store, pixels(len(CELLS)))
    store.finish()
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "case.zarr"))


def by_hand(cells: Any, tiles: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """All levels of the image: white but for the tiles, halved until a tile covers it."""
    edge = tiles.shape[1]
    image = np.full((rows * edge, columns * edge, 3), 255, np.uint8)
    for (row, column), tile in zip(cells, tiles, strict=True):
        image[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = tile
    levels = [image]
    while max(image.shape) > edge:
        odd = image.shape[0] % 2, image.shape[1] % 2
        image = np.pad(image, [(0, odd[0]), (0, odd[1]), (0, 0)], constant_values=255)
        blocks = image.reshape(image.shape[0] // 2, 2, -1, 2, 3)
        image = np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
        levels.append(image)
    return levels


# --- what it holds


def test_tiles_come_back_from_it(whole: Path) -> None:
    store, tiles = TileStore.open(whole), pixels(len(CELLS))
    np.testing.assert_array_equal(store[:], tiles)
    np.testing.assert_array_equal(store[2:9:3], tiles[2:9:3])
    np.testing.assert_array_equal(store[-1], tiles[-1])
    np.testing.assert_array_equal(np.stack(list(store)), tiles)
    assert store[3:3].shape == (0, EDGE, EDGE, 3)
    with pytest.raises(IndexError):
        store[len(CELLS)]


def test_every_level_is_the_one_above_it_halved(whole: Path) -> None:
    group = zarr.open_group(whole / "pyramid", mode="r")
    levels = by_hand(CELLS, pixels(len(CELLS)), 8, 10)
    names = sorted(name for name, _ in group.arrays())
    assert names == [str(level) for level in range(len(levels))] == ["0", "1", "2", "3", "4"]
    for name, level in zip(names, levels, strict=True):
        np.testing.assert_array_equal(np.moveaxis(group[name][:], 0, -1), level, name)


@pytest.mark.parametrize("edge", [17, 16])
@pytest.mark.parametrize("cells", [[(0, 0)], [(7, 9)], []])
def test_any_edge_and_number_of_tiles(tmp_path: Path, edge: int, cells: Any) -> None:
    """Levels of an odd height end in half a pixel of white."""
    store = new_store(tmp_path / "case.zarr", "pyramid", cells, edge)
    tiles = pixels(len(cells), edge)
    fill(store, tiles)
    store.finish()
    group = zarr.open_group(store.path / "pyramid", mode="r")
    for level, expected in enumerate(by_hand(cells, tiles, 8, 10)):
        np.testing.assert_array_equal(np.moveaxis(group[str(level)][:], 0, -1), expected)
    assert store.damage() == []
    assert finished(store.path) is not None


def test_a_grid_of_one_tile_has_one_level(tmp_path: Path) -> None:
    small = {"width_px": EDGE, "height_px": EDGE}
    store = new_store(tmp_path / "case.zarr", "pyramid", [(0, 0)], slide=small)
    fill(store, pixels(1))
    store.finish()
    group = zarr.open_group(store.path / "pyramid", mode="r")
    assert [name for name, _ in group.arrays()] == ["0"]
    assert store.damage() == []


def test_chunks_without_tissue_are_absent(whole: Path) -> None:
    expected, cells = set(), {(row, column) for row, column in CELLS}
    for level in range(5):
        expected |= {f"pyramid/{level}/c/0/{row}/{column}" for row, column in cells}
        cells = {(row // 2, column // 2) for row, column in cells}
    chunk = re.compile(r"pyramid/\d+/c/0/\d+/\d+")
    assert {name for name in tree(whole) if chunk.fullmatch(name)} == expected


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "little") + p for p in parts)).digest()


def test_seals_are_what_the_documentation_says(whole: Path) -> None:
    """Entries and digests computed from the bytes on disk; all chunks are in one seal or other."""
    said = json.loads((whole / "zarr.json").read_bytes())["attributes"]["wsi_norm"]
    identity, shards, named = said["identity_sha256"].encode(), [], set()
    rows = zarr.open_group(whole, mode="r")["seals"][:]
    for number, row in enumerate(rows):
        entries, digest = row[:-32].tobytes(), row[-32:].tobytes()
        bound = sha256(*shards)
        if number < 3:
            bound = (whole / f"flags/c/{number}").read_bytes()
            if (whole / "tiles").exists():
                end = (whole / f"tiles/c/{number}/0/0/0").read_bytes()
                shards.append(end[-4 - 16 * 4 - 32 : -4 - 16 * 4])
            shards.append(digest)
        assert digest == sha256(identity, b"%d" % number, bound, entries)
        for level, y, x, length, checksum in np.frombuffer(entries, "<u4").reshape(4, 5).tolist():
            if length:
                data = (whole / f"pyramid/{level}/c/0/{y}/{x}").read_bytes()
                assert (length, checksum) == (len(data), google_crc32c.value(data))
                named.add(f"pyramid/{level}/c/0/{y}/{x}")
    assert named == {name for name in tree(whole) if re.fullmatch(r"pyramid/\d+/c/0/\d+/\d+", name)}


# --- the same bytes, whatever happened on the way


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 1, 2, 0, 2)])
def test_the_order_of_shards_does_not_count(whole: Path, tmp_path: Path, order: Any) -> None:
    layout = TileStore.open(whole).meta.layout
    store = new_store(tmp_path / "case.zarr", layout)
    fill(store, pixels(len(CELLS)), order)
    store.finish()
    assert tree(store.path) == tree(whole)


class Killed(BaseException):
    """Nobody catches it."""


@pytest.mark.parametrize("objects", range(0, 24, 3))
def test_a_writer_killed_anywhere_is_continued(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: int
) -> None:
    """After any number of objects, with the next one half written."""
    write, left = location.write_whole, [objects]

    def dies(place: Path, *arguments: Any) -> Path:
        if left[0] == 0:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_name(f"{place.name}.0.partial").write_bytes(b"half")
            raise Killed
        left[0] -= 1
        return write(place, *arguments)

    store = new_store(tmp_path / "case.zarr", TileStore.open(whole).meta.layout)

    def whole_run() -> None:
        fill(store, pixels(len(CELLS)))
        store.finish()

    with monkeypatch.context() as patch:
        patch.setattr(location, "write_whole", dies)
        with pytest.raises(Killed):
            whole_run()
    store = TileStore.open(store.path, allow_partial=True)
    assert not store.meta.complete
    fill(store, pixels(len(CELLS)), store.missing_shards())
    store.finish()
    assert tree(store.path) == tree(whole)


def test_a_disk_that_is_full_at_the_levels(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = location.write_whole

    def full(place: Path, *arguments: Any) -> Path:
        if "pyramid/2" in str(place):
            raise OSError(errno.ENOSPC, "No space left on device", str(place))
        return write(place, *arguments)

    store = new_store(tmp_path / "case.zarr", TileStore.open(whole).meta.layout)
    fill(store, pixels(len(CELLS)))
    with monkeypatch.context() as patch:
        patch.setattr(location, "write_whole", full)
        line = refusal(store.finish, kind=StoreError)
    assert line.startswith(f"{store.path}: cannot write the pyramid: ")
    assert finished(store.path) is None
    store.finish()
    assert tree(store.path) == tree(whole)


def test_levels_follow_shards_that_are_written_anew(path: Path) -> None:
    """As when a slide's tiles could not be read at first."""
    store, tiles = TileStore.open(path), pixels(len(CELLS), seed=6)
    store.reopen()
    fill(store, tiles)
    store.finish()
    image = zarr.open_group(path / "pyramid", mode="r")
    for level, expected in enumerate(by_hand(CELLS, tiles, 8, 10)):
        np.testing.assert_array_equal(np.moveaxis(image[str(level)][:], 0, -1), expected)
    assert TileStore.open(path).damage() == []


# --- damage


def flip(file: Path, place: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


LEVEL_0, LEVEL_1, LEVEL_3 = "0/c/0/3/4", "1/c/0/1/2", "3/c/0/0/0"
"""Of the fourth tile, of three, and of all on the left."""

HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a tile flipped": (lambda image: flip(image / LEVEL_0), "tiles [3]"),
    "a tile deleted": (lambda image: (image / LEVEL_0).unlink(), "tiles [3]"),
    "a tile cut": (lambda image: (image / LEVEL_0).write_bytes(b"half"), "tiles [3]"),
    "tiles swapped": (lambda image: swap(image / LEVEL_0, image / "0/c/0/3/5"), "tiles [4]"),
    "a tile added": (lambda image: shutil.copy(image / LEVEL_0, image / "0/c/0/5/5"), "0/c/0/5/5"),
    "level 1 flipped": (lambda image: flip(image / LEVEL_1), LEVEL_1),
    "level 1 deleted": (lambda image: (image / LEVEL_1).unlink(), LEVEL_1),
    "level 1 swapped": (lambda image: swap(image / LEVEL_1, image / "1/c/0/0/0"), LEVEL_1),
    "level 3 flipped": (lambda image: flip(image / LEVEL_3), LEVEL_3),
    "level 3 deleted": (lambda image: (image / LEVEL_3).unlink(), LEVEL_3),
    "levels swapped": (lambda image: swap(image / LEVEL_3, image / LEVEL_1), LEVEL_3),
    "a seal flipped": (lambda image: flip(image.parent / "seals/c/1/0"), "another place"),
    "a seal deleted": (lambda image: (image.parent / "seals/c/2/0").unlink(), "missing or cut"),
    "seals swapped": (
        lambda image: swap(*(image.parent / f"seals/c/{shard}/0" for shard in (0, 1))),
        "another place",
    ),
    "a level's seal": (lambda image: flip(image.parent / "seals/c/3/0", 2), "another level 0"),
    "metadata": (lambda image: flip(image / "2/zarr.json", 40), "pyramid"),
    "a label flipped": (lambda image: flip(image / "labels/tissue/0/c/0/0"), "pyramid"),
    "a label deleted": (lambda image: shutil.rmtree(image / "labels/tiles/1"), "pyramid"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_named(path: Path, harm: str) -> None:
    do, words = HARMS[harm]
    do(path / "pyramid")
    try:
        lines = TileStore.open(path).damage()
    except StoreError as error:
        lines = [str(error)]
    assert words in "; ".join(lines)
    assert not any("\n" in line for line in lines)


def test_whatever_is_lost_it_is_not_finished(path: Path) -> None:
    assert finished(path) is not None
    for name, data in tree(path).items():
        (path / name).unlink()
        assert finished(path) is None, name
        (path / name).write_bytes(data)
    assert finished(path) is not None


def test_a_shard_with_a_chunk_that_is_cut_is_missing(path: Path) -> None:
    (path / "pyramid" / LEVEL_0).write_bytes(b"half")
    store = TileStore.open(path)
    assert store.missing_shards() == [0]
    assert not store.is_whole


def test_levels_are_not_made_of_damage(tmp_path: Path) -> None:
    store = new_store(tmp_path / "case.zarr", "pyramid")
    fill(store, pixels(len(CELLS)))
    image = store.path / "pyramid"
    flip(image / LEVEL_0)
    line = refusal(store.finish, kind=StoreError)
    assert line.startswith(f"{store.path}: pyramid/0/c/0/3/4")
    assert "--repair" in line
    assert not TileStore.open(store.path, allow_partial=True).meta.complete


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_a_damaged_tile_is_no_white_one(path: Path, harm: Callable[[Path], Any]) -> None:
    harm(path / "pyramid" / LEVEL_0)
    store = TileStore.open(path)
    if store.meta.layout == "both":
        assert store[3].shape == (EDGE, EDGE, 3)
    else:
        line = refusal(lambda: store[3], kind=StoreError)
        assert line.startswith(f"{path}: pyramid: shard 0 (tiles 0-")


def test_a_look_at_30_shards_takes_less_than_5_ms(tmp_path: Path) -> None:
    """Of 64 tiles each, with the chunks below them; the best of many: others use the machine."""
    side, edge, slots = 43, 16, 64
    size = {"width_px": side * edge, "height_px": side * edge}
    sizes = {"level_width_px": side * edge, "level_height_px": side * edge}
    meta = store_meta(layout="pyramid", slide=size, tiling={"tiles_per_shard": slots, **sizes})
    corners = np.stack(np.meshgrid(*[np.arange(side) * edge] * 2), axis=-1).reshape(-1, 2)
    store = create_store(tmp_path / "case.zarr", len(corners), meta, coords=corners)
    fill(store, pixels(len(corners)))
    store.finish()
    assert store.shards == 29

    def once() -> float:
        start = time.perf_counter()
        assert finished(store.path) is not None
        return time.perf_counter() - start

    assert min(once() for _ in range(200)) < 5e-3
