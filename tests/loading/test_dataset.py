"""TileDataset against the stores that it reads."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders import TILE_SIZE, create_store, refusal, written_store
from wsi_norm import TileDataset, TileStore
from wsi_norm.errors import StoreError
from wsi_norm.store import TileFlag


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], np.ndarray]:
    """Stores of 7, 0, 1 and 4 tiles, and all their tiles in order."""
    folder = tmp_path_factory.mktemp("cohort")
    paths = [folder / f"s{index}.zarr" for index in range(4)]
    parts = [written_store(path, number) for path, number in zip(paths, (7, 0, 1, 4), strict=True)]
    return paths, np.concatenate(parts)


def test_one_store(cohort: tuple[list[Path], np.ndarray]) -> None:
    paths, tiles = cohort
    for path in (paths[0], str(paths[0]), [paths[0]]):
        dataset = TileDataset(path)
        assert len(dataset) == 7
        tile = dataset[3]
        assert (tile.dtype, tile.shape) == (torch.uint8, (3, TILE_SIZE, TILE_SIZE))
        assert tile.is_contiguous()
        np.testing.assert_array_equal(tile.permute(1, 2, 0).numpy(), tiles[3])


def test_several_stores_follow_each_other(cohort: tuple[list[Path], np.ndarray]) -> None:
    paths, tiles = cohort
    dataset = TileDataset(paths)
    assert len(dataset) == 12
    for index in range(-12, 12):
        np.testing.assert_array_equal(dataset[index].permute(1, 2, 0).numpy(), tiles[index])
    places = [(0, row) for row in range(7)] + [(2, 0)] + [(3, row) for row in range(4)]
    assert [dataset.locate(index) for index in range(12)] == places
    assert dataset.locate(-1) == (3, 3)
    turned = TileDataset(paths[::-1])
    np.testing.assert_array_equal(turned[0].permute(1, 2, 0).numpy(), tiles[8])


@pytest.mark.parametrize("index", [12, -13, 1000])
def test_an_index_out_of_range(cohort: tuple[list[Path], np.ndarray], index: int) -> None:
    dataset = TileDataset(cohort[0])
    with pytest.raises(IndexError, match=f"tile {index} of 12"):
        dataset[index]


@pytest.mark.parametrize("which", [[], [1]])
def test_a_dataset_without_tiles(cohort: tuple[list[Path], np.ndarray], which: list[int]) -> None:
    dataset = TileDataset([cohort[0][index] for index in which])
    assert len(dataset) == 0
    with pytest.raises(IndexError):
        dataset[0]


def test_a_tile_is_the_callers_own(cohort: tuple[list[Path], np.ndarray]) -> None:
    dataset = TileDataset(cohort[0])
    dataset[0].zero_()
    assert dataset[0].any()


def as_float(tile: torch.Tensor) -> torch.Tensor:
    return tile.float() / 255


def as_label(tile: torch.Tensor) -> int:
    return int(tile[0, 0, 0])


def test_transform(cohort: tuple[list[Path], np.ndarray]) -> None:
    paths, tiles = cohort
    assert TileDataset(paths, transform=as_float)[2].max() <= 1
    assert TileDataset(paths, transform=as_label)[9] == tiles[9, 0, 0, 0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
# Python 3.12 warns of any fork in a process that has threads, as zarr's does.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", [None, as_float])
def test_data_loader(
    cohort: tuple[list[Path], np.ndarray],
    workers: int,
    transform: Callable[[torch.Tensor], torch.Tensor] | None,
) -> None:
    paths, tiles = cohort
    dataset = TileDataset(paths, transform)
    dataset[0]  # zarr's threads run before the workers start
    loader = DataLoader(dataset, batch_size=5, num_workers=workers, timeout=60 if workers else 0)
    loaded = torch.cat(list(loader)).permute(0, 2, 3, 1).numpy()
    expected = tiles if transform is None else tiles.astype(np.float32) / 255
    np.testing.assert_array_equal(loaded, expected)


def test_it_travels_to_spawned_workers(cohort: tuple[list[Path], np.ndarray]) -> None:
    paths, tiles = cohort
    dataset = pickle.loads(pickle.dumps(TileDataset(paths, as_float)))
    assert len(dataset) == 12
    assert dataset[8].numpy() == pytest.approx(np.moveaxis(tiles[8], 2, 0) / 255)


@pytest.fixture
def flagged(tmp_path: Path) -> Path:
    """Ten tiles, in shards of four, with flags; tiles are of one level, their number."""
    store = create_store(tmp_path / "flagged.zarr", 10)
    flags = np.array([0, 1, 4, 5, 4, 4, 4, 4, 0, 2], np.uint8)
    for shard in range(store.shards):
        rows = range(10)[store.rows(shard)]
        tiles = np.stack([np.full((TILE_SIZE, TILE_SIZE, 3), row, np.uint8) for row in rows])
        store.write_shard(shard, tiles, flags[list(rows)])
    store.finish()
    return store.path


def test_what_a_sample_holds(flagged: Path) -> None:
    dataset = TileDataset(flagged, as_label, returns=("flags", "coords", "tile", "slide"))
    flags, coords, number, slide = dataset[3]
    assert (flags, number, slide) == (5, 3, "flagged")
    assert coords.dtype == torch.int64
    assert coords.tolist() == TileStore.open(flagged).coords[3].tolist()
    assert TileDataset(flagged, returns="slide")[0] == "flagged"
    assert TileDataset(flagged, returns=("flags",))[3] == 5
    batch = next(iter(DataLoader(dataset, 10)))
    assert batch[0].tolist() == TileStore.open(flagged).flags.tolist()
    assert "'label'" in refusal(TileDataset, flagged, returns=("tile", "label"))


@pytest.mark.parametrize(
    ("skip", "left", "shards"),
    [
        (0, range(10), [range(4), range(4, 8), range(8, 10)]),
        (TileFlag.EDGE, [0, 1, 8, 9], [range(2), range(2, 4)]),
        (TileFlag.UNREADABLE | TileFlag.PASSED_THROUGH, [0, 2, 4, 5, 6, 7, 8], None),
        (0xFF, [0, 8], [range(1), range(1, 2)]),
    ],
)
def test_tiles_that_are_left_out(
    flagged: Path, skip: int, left: list[int], shards: list[range] | None
) -> None:
    dataset = TileDataset([flagged, flagged], as_label, skip_flags=skip)
    assert list(dataset) == [*left, *left]
    number = len(left)
    assert [dataset.locate(index) for index in range(number)] == [(0, row) for row in left]
    if shards is not None:
        again = [range(number + shard.start, number + shard.stop) for shard in shards]
        assert dataset.shards() == shards + again


def test_stores_that_cannot_be_used(cohort: tuple[list[Path], np.ndarray], tmp_path: Path) -> None:
    written_store(tmp_path / "part.zarr", 4, finish=False)
    with pytest.raises(StoreError, match=r"part\.zarr: incomplete"):
        TileDataset([cohort[0][0], tmp_path / "part.zarr"])
    with pytest.raises(StoreError, match=r"gone\.zarr: no store there"):
        TileDataset(tmp_path / "gone.zarr")
