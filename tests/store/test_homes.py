"""What every home of pixels answers of a shard: that it is there, damaged, misplaced or gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pyramids import CELLS, new_store, pixels
from wsi_norm.choices import HOMES
from wsi_norm.store.encoding import ZSTD
from wsi_norm.store.homes import Home, TilesHome
from wsi_norm.store.objects import Objects
from wsi_norm.store.pyramid import Pyramid

FLAGS, TILES = b"an object of flags", pixels(4)
RECORDS = {"tiles": "tiles/c/{}/0/0/0", "pyramid": "seals/c/{}/0"}
PIXELS = {"tiles": "tiles/c/0/0/0/0", "pyramid": "pyramid/0/c/0/0/1"}
"""Where the second tile is; neither lies at the end of its file."""


@pytest.fixture(params=[*RECORDS])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Of a store with both, in which nothing is written."""
    store = new_store(tmp_path / "case.zarr", "both")
    objects = Objects(store.path, store.meta, len(CELLS))
    homes: dict[str, Home] = {"tiles": TilesHome(objects, ZSTD), "pyramid": Pyramid(objects)}
    assert set(homes) == {name for layout in HOMES.values() for name in layout}
    return homes[request.param]


def written(home: Home) -> bytes:
    """The digest of the first shard, once it is there."""
    home.write(0, TILES, FLAGS, lambda: None)
    digest = home.digest(0, FLAGS)
    assert digest is not None
    assert len(digest) == 32
    assert home.problem(0, FLAGS) is None
    return digest


def place_of(home: Home, names: dict[str, str], shard: int = 0) -> Path:
    root = next(parent for parent in home.folder.parents if parent.suffix == ".zarr")
    return root / names[home.name].format(shard)


def test_what_is_not_written_is_missing(home: Home) -> None:
    assert home.digest(0, FLAGS) is None
    assert home.problem(0, FLAGS) == "missing or cut"
    assert not home.folder.exists()


def test_what_is_written_is_there_by_its_flags_and_number(home: Home) -> None:
    digest = written(home)
    assert home.folder.exists()
    assert home.digest(0, b"others") is None
    assert home.problem(0, b"others") == "of another place, other flags or another store"
    home.write(1, TILES, FLAGS, lambda: None)
    assert home.digest(1, FLAGS) not in {None, digest}
    assert home.digest(0, FLAGS) == digest


def test_the_record_of_another_shard_is_of_another_place(home: Home) -> None:
    written(home)
    home.write(1, TILES, FLAGS, lambda: None)
    place_of(home, RECORDS, 1).replace(place_of(home, RECORDS))
    assert home.digest(0, FLAGS) is None
    assert home.problem(0, FLAGS) == "of another place, other flags or another store"


def test_a_byte_that_changed_is_found_by_reading(home: Home) -> None:
    digest = written(home)
    file = place_of(home, PIXELS)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    assert home.digest(0, FLAGS) == digest
    assert "tiles [1]" in (home.problem(0, FLAGS) or "")


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"cut")])
def test_what_is_lost_or_cut_is_seen_without_reading(
    home: Home, harm: Callable[[Path], None]
) -> None:
    written(home)
    harm(place_of(home, PIXELS))
    assert home.digest(0, FLAGS) is None


def test_what_is_dropped_is_missing(home: Home) -> None:
    written(home)
    home.drop(0)
    home.drop(0)
    assert home.digest(0, FLAGS) is None


def test_the_record_appears_last_and_only_where_it_may(home: Home) -> None:
    """`check` is what finds out that another run has taken the store over."""
    seen: list[bool] = []

    def check() -> None:
        seen.append(place_of(home, RECORDS).exists())
        if len(seen) == written_objects:
            raise OSError("another run's")

    written_objects = {"tiles": 1, "pyramid": 5}[home.name]
    with pytest.raises(OSError, match="another run's"):
        home.write(0, TILES, FLAGS, check)
    assert seen == [False] * written_objects
    assert home.digest(0, FLAGS) is None
