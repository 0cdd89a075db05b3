"""What is promised of every run, in small: `sabotage` breaks our code and each of these fails.

Expected are tiles that OpenSlide reads, for the normaliser `none` stores them as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import zarr

from tests.faults.mutants import on_white
from tests.faults.truth import write_slide
from wsi_norm import RunConfig, run
from wsi_norm.report import SlideResult
from wsi_norm.runner import ShardWritten
from wsi_norm.runner.events import Event

TILE = 512
UNREADABLE, EDGE = 1, 4


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two slides of the same size and other tissue; they reach beyond whole tiles."""
    folder = tmp_path_factory.mktemp("slides")
    one, two = (write_slide(folder / f"{seed}.svs", seed, 1400, 1400) for seed in range(2))
    return one, two


def done(slide: Path, output: Path, on_event: Any = None, step: int = 192) -> SlideResult:
    """A run without normalising, over all tiles, in shards of 16."""
    settings = {"workers": 0, "device": "cpu", "normalizer": "none", "segmenter": "none"}
    tiles = {"tile_size": TILE, "step": step, "mpp": 0.5, "max_unreadable": 1.0}
    config = RunConfig.model_validate({**settings, **tiles, "output": output, "report": False})
    (result,) = run([slide], config, on_event).slides
    return result


def stored(output: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """coords, tiles and flags of the only store, by plain zarr."""
    (store,) = output.glob("*.zarr")
    group = zarr.open_group(store, mode="r")
    return group["coords"][:], group["tiles"][:], group["flags"][:]


def differing(slide: Path, coords: np.ndarray, tiles: np.ndarray) -> list[int]:
    """Rows whose pixels are not OpenSlide's."""
    with openslide.OpenSlide(slide) as witness:
        right = [on_white(witness, int(x), int(y), TILE) for x, y in coords]
    return [row for row, pixels in enumerate(right) if not np.array_equal(pixels, tiles[row])]


def test_every_tile_of_the_plan_is_written(slides: tuple[Path, Path], tmp_path: Path) -> None:
    assert done(slides[0], tmp_path).status == "done"
    coords, tiles, _ = stored(tmp_path)
    assert len(coords) > 2 * 16
    white = [row for row, tile in enumerate(tiles) if (tile == 255).all()]
    assert not white, "glass is grey: a white tile is one that nobody wrote"


def test_every_tile_is_of_its_own_place(slides: tuple[Path, Path], tmp_path: Path) -> None:
    result = done(slides[0], tmp_path)
    coords, tiles, _ = stored(tmp_path)
    assert result.tiles_written == result.tiles == len(np.unique(coords, axis=0))
    assert differing(slides[0], coords, tiles) == []


@pytest.fixture(scope="module")
def unreadable(slides: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slide with zeros in the place of one of its JPEG tiles."""
    from tests.faults.subjects import tiff_tiles

    path = tmp_path_factory.mktemp("unreadable") / "zeroed.svs"
    data = bytearray(slides[0].read_bytes())
    start, length = tiff_tiles(slides[0])[8]
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return path


def test_a_tile_that_cannot_be_read_is_said(unreadable: Path, tmp_path: Path) -> None:
    result = done(unreadable, tmp_path)
    assert result.status == "damaged"
    assert result.unreadable > 0
    _, tiles, _ = stored(tmp_path)
    assert sum((tile == 255).all() for tile in tiles) == result.unreadable
    assert result.error is not None
    assert unreadable.name in result.error


def test_flags_stand_in_the_store(unreadable: Path, tmp_path: Path) -> None:
    done(unreadable, tmp_path, step=TILE)
    coords, tiles, flags = stored(tmp_path)
    white = np.array([(tile == 255).all() for tile in tiles])
    np.testing.assert_array_equal(flags & UNREADABLE != 0, white)
    assert white.any()
    np.testing.assert_array_equal(flags & EDGE != 0, (coords + TILE > 1400).any(axis=1))


def test_a_slide_that_is_replaced_on_the_way_is_not_mixed(
    slides: tuple[Path, Path], tmp_path: Path
) -> None:
    slide, output = tmp_path / "slide.svs", tmp_path / "out"
    shutil.copy(slides[0], slide)

    def replace(event: Event) -> None:
        if isinstance(event, ShardWritten) and slide.read_bytes() == slides[0].read_bytes():
            shutil.copy(slides[1], tmp_path / "other")
            (tmp_path / "other").replace(slide)

    result = done(slide, output, replace)
    assert result.status == "failed", "its shards are of two slides"
    assert result.error is not None
    assert "changed" in result.error
