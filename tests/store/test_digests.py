"""Digests, computed here by the words of docs/store.md from the bytes on disk; what they notice."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.builders import create_store, refusal, store_meta, tree, written_store
from wsi_norm import location
from wsi_norm.errors import StoreError
from wsi_norm.store import TileStore, finished

NUMBER, SLOTS = 10, 4
ONE_OBJECT = {
    "coords": "0/0",
    "tissue_fraction": "0",
    "tissue_mask": "0/0",
    "thumbnail": "0/0/0",
    "thumbnail_normalized": "0/0/0",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A finished store of three shards."""
    written_store(tmp_path / "case.zarr", NUMBER)
    return tmp_path / "case.zarr"


def shard_of(path: Path, shard: int) -> Path:
    return path / "tiles/c" / str(shard) / "0/0/0"


def attribute(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "zarr.json").read_bytes())["attributes"]["wsi_norm"])


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((path / "zarr.json").read_bytes())
    change(document["attributes"]["wsi_norm"])
    (path / "zarr.json").write_text(json.dumps(document))


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "little") + p for p in parts)).digest()


def canonical(said: dict[str, Any], without: set[str]) -> bytes:
    kept = {key: value for key, value in said.items() if key not in without}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def test_they_are_what_the_documentation_says(path: Path) -> None:
    said = attribute(path)
    for name, place in {"tiles": "", "flags": "", **ONE_OBJECT}.items():
        data = (path / name / "c" / place).read_bytes() if place else b""
        digest = sha256((path / name / "zarr.json").read_bytes(), data).hex()
        assert said["arrays_sha256"][name] == digest, name
    later = {"identity_sha256", "counts", "complete", "content_sha256"}
    identity = said["identity_sha256"]
    assert identity == sha256(canonical(said, later)).hex()
    shards = []
    for shard in range(3):
        data = shard_of(path, shard).read_bytes()
        index, data = data[-16 * SLOTS - 4 : -4], data[: -16 * SLOTS - 4]
        digest, checksums = data[-32:], data[-32 - 4 * SLOTS : -32]
        where = np.frombuffer(index, "<u8").reshape(SLOTS, 2)
        chunks = [data[start : start + length] for start, length in where.tolist()]
        assert checksums == b"".join(chunk[-4:] or b"\0" * 4 for chunk in chunks)
        flags = (path / "flags/c" / str(shard)).read_bytes()
        number = str(shard).encode()
        assert digest == sha256(identity.encode(), number, flags, checksums, index)
        shards.append(digest)
    content = sha256(canonical(said, {"content_sha256"}), *shards).hex()
    assert said["content_sha256"] == content


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def by_zarr(path: Path) -> None:
    """Zarr's own way, with right checksums."""
    group = zarr.open_group(path)
    group["tiles"][5] = group["tiles"][6]


SHARDS: dict[str, tuple[Callable[[Path], Any], set[int]]] = {
    "swapped": (lambda p: swap(shard_of(p, 0), shard_of(p, 1)), {0, 1}),
    "twice": (lambda p: shutil.copy(shard_of(p, 0), shard_of(p, 1)), {1}),
    "another slide's": (lambda p: shutil.copy(shard_of(another(p), 1), shard_of(p, 1)), {1}),
    "tile exchanged": (by_zarr, {1}),
    "flags": (lambda p: zarr.open_group(p)["flags"].__setitem__(slice(4, 8), 1), {1}),
}


def another(path: Path) -> Path:
    written_store(path.with_name("other.zarr"), NUMBER)
    return path.with_name("other.zarr")


@pytest.mark.parametrize("kind", SHARDS)
def test_a_shard_that_is_not_the_one_is_named_and_counts_as_missing(path: Path, kind: str) -> None:
    change, expected = SHARDS[kind]
    change(path)
    store = TileStore.open(path)
    assert {int(line.split()[1]) for line in store.damage()} == expected
    assert store.missing_shards() == sorted(expected)
    assert finished(path) is None


NUMBERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "mpp": lambda said: said["tiling"].update(mpp_um=4.0),
    "slide": lambda said: said["slide"].update(sha256_first_mib="9" * 64),
    "white": lambda said: said.update(white=[1, 1, 1]),
    "counts": lambda said: said["counts"].update(unreadable=3),
    "digest of an array": lambda said: said["arrays_sha256"].update(coords="9" * 64),
    "content": lambda said: said.update(content_sha256="9" * 64),
    "no content": lambda said: said.update(content_sha256=None),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_edited_numbers_are_damage(path: Path, kind: str) -> None:
    edit(path, NUMBERS[kind])
    assert any(line.startswith("wsi_norm: ") for line in TileStore.open(path).damage())
    assert finished(path) is None


@pytest.mark.parametrize("name", ONE_OBJECT)
def test_another_slides_array_is_damage(path: Path, name: str) -> None:
    shape = {"coords": (NUMBER, 2), "tissue_fraction": (NUMBER,), "tissue_mask": (16, 20)}
    array = np.ones(shape.get(name, (24, 32, 3)), zarr.open_group(path)[name].dtype)
    other = create_store(path.with_name("other.zarr"), NUMBER, **{name: array}).path
    shutil.copy(other / name / "c" / ONE_OBJECT[name], path / name / "c" / ONE_OBJECT[name])
    (line,) = TileStore.open(path).damage()
    assert line.startswith(f"{name}: ")


def test_a_store_without_digests_is_judged_by_its_containers(path: Path) -> None:
    digests = ("arrays_sha256", "identity_sha256", "content_sha256")
    edit(path, lambda said: [said.pop(name) for name in digests])
    store = TileStore.open(path)
    assert not store.is_sealed
    assert store.damage() == store.missing_shards() == []
    assert finished(path) == store.meta
    swap(shard_of(path, 0), shard_of(path, 1))
    assert store.damage() == []


def test_a_writer_notices_that_the_store_is_another(tmp_path: Path) -> None:
    store = create_store(tmp_path / "case.zarr", NUMBER)
    tiles, flags = np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.uint8)
    store.write_shard(0, tiles, flags)
    create_store(store.path, NUMBER).write_shard(1, tiles, flags)  # the same one, made anew
    store.write_shard(0, tiles, flags)
    other = create_store(store.path, NUMBER, store_meta(model={"sha256": "9" * 64}))
    before = tree(other.path)
    assert "taken this store over" in refusal(store.write_shard, 0, tiles, flags, kind=StoreError)
    assert {name for name in tree(other.path) if "/c/" in name} == {
        name for name in before if "/c/" in name
    }
    shutil.rmtree(store.path)
    assert "the store is gone" in refusal(store.write_shard, 0, tiles, flags, kind=StoreError)
    assert not store.path.exists()


def test_a_writer_that_is_held_up_at_the_last_moment_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes are written under a hidden name when the other run takes over."""
    store = create_store(tmp_path / "case.zarr", NUMBER)
    tiles, flags = np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.uint8)
    write_whole = location.write_whole

    def held_up(place: Path, pieces: Any, before: Callable[[], None] = lambda: None) -> Path:
        def late() -> None:
            if place.is_relative_to(store.path / "tiles"):
                create_store(store.path, NUMBER, store_meta(codec="none"))
            before()

        return write_whole(place, pieces, late)

    with monkeypatch.context() as patch:
        patch.setattr(location, "write_whole", held_up)
        assert refusal(store.write_shard, 0, tiles, flags, kind=StoreError)
    assert TileStore.open(store.path, allow_partial=True).missing_shards() == [0, 1, 2]


def test_another_runs_sweep_does_not_stop_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create_store(tmp_path / "case.zarr", NUMBER)
    write_whole, swept = location.write_whole, []

    def disturbed(place: Path, pieces: Any, before: Callable[[], None]) -> Path:
        def sweep() -> None:
            if not swept:
                swept.append(place)
                store.sweep()
            before()

        return write_whole(place, pieces, sweep)

    monkeypatch.setattr(location, "write_whole", disturbed)
    store.write_shard(0, np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.uint8))
    assert swept
    assert store.missing_shards() == [1, 2]


def test_of_two_that_make_a_store_the_later_takes_the_earliers(tmp_path: Path) -> None:
    path = tmp_path / "case.zarr"
    store = create_store(path, NUMBER)
    store.write_shard(0, np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.uint8))
    before = tree(path)
    assert create_store(path, NUMBER, existing="keep").missing_shards() == [1, 2]
    assert tree(path) == before
    assert [place.name for place in tmp_path.iterdir()] == ["case.zarr"]


@pytest.mark.parametrize("lost", ["zarr.json", "coords/zarr.json", "thumbnail/c/0/0/0"])
@pytest.mark.parametrize("how", ["deleted", "flipped", "cut"])
def test_a_store_is_mended_but_for_its_shards(path: Path, lost: str, how: str) -> None:
    whole, file = tree(path), path / lost
    data = file.read_bytes()
    changed = {"deleted": b"", "flipped": data[:99] + b"\xff" + data[100:], "cut": data[:60]}[how]
    file.unlink() if how == "deleted" else file.write_bytes(changed)
    meta = store_meta(slide={"name": "case", "file_name": "case.svs"})
    mended = create_store(path, NUMBER, meta, existing="mend")
    assert mended.missing_shards() == []
    mended.finish()
    assert tree(path) == whole


def test_another_store_is_not_mended(path: Path, tmp_path: Path) -> None:
    before = tree(path)
    other = store_meta(codec="none")
    (path / "zarr.json").unlink()
    del before["zarr.json"]
    said = refusal(create_store, path, NUMBER, other, existing="mend", kind=StoreError)
    assert said.startswith(f"{path}: cannot be repaired")
    assert tree(path) == before
    foreign = tmp_path / "notes.zarr"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    assert refusal(create_store, foreign, NUMBER, existing="mend", kind=StoreError)
    assert tree(foreign) == {"letter.txt": b"mine"}
