"""What docs/extending.md promises: a segmenter and a normaliser of one's own, through a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from wsi_norm import RunConfig, TileStore, run
from wsi_norm.choices import NORMALIZERS, SEGMENTERS
from wsi_norm.config import run_config
from wsi_norm.lstainnorm import Statistics
from wsi_norm.normalizers.classic import Unchanged


class Inverted(Unchanged):
    """A normaliser whose work is easily recognised."""

    name = "inverted"

    def normalize(self, tiles: Any, statistics: Any = None, white: Any = None) -> Any:
        return 255 - tiles, np.ones(len(tiles), np.bool_)


class Brighter(Inverted):
    """One that measures the slide: by how much its mean is short of 200."""

    name = "brighter"
    statistics = "slide"

    def measure(self, tiles: Any, tissue: Any = None, white: Any = None) -> Statistics:
        missing = 200 - float(tiles[tissue].mean())
        return Statistics({}, {}, white, int(tissue.sum()), {"missing": missing})

    def normalize(self, tiles: Any, statistics: Any = None, white: Any = None) -> Any:
        moved = tiles + statistics.own["missing"]
        return np.rint(moved).clip(0, 255).astype(np.uint8), np.ones(len(tiles), np.bool_)


def left_half(thumbnail: Any, mpp_um: float) -> Any:
    """A segmenter: everything in the left half is tissue."""
    found = np.zeros(thumbnail.shape[:2], np.bool_)
    found[:, : found.shape[1] // 2] = True
    return found


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    """The documented way: a line each."""
    NORMALIZERS.add("inverted", lambda model, device, batch_size: Inverted())
    NORMALIZERS.add("brighter", lambda model, device, batch_size: Brighter())
    SEGMENTERS.add("left", left_half)
    yield
    NORMALIZERS.remove("inverted")
    NORMALIZERS.remove("brighter")
    SEGMENTERS.remove("left")


def config(output: Path, **settings: Any) -> RunConfig:
    return run_config(output=output, workers=0, **settings)


@pytest.fixture
def plain(slide_path: Path, tmp_path: Path) -> TileStore:
    """The slide's tiles as they are."""
    summary = run(slide_path, config(tmp_path / "plain", normalizer="none", report=False))
    assert summary.exit_status == 0
    return TileStore.open(tmp_path / "plain" / "synthetic.zarr")


def test_a_normaliser_of_ones_own(slide_path: Path, tmp_path: Path, plain: TileStore) -> None:
    summary = run(slide_path, config(tmp_path, normalizer="inverted"))
    assert summary.exit_status == 0
    store = TileStore.open(tmp_path / "synthetic.zarr")
    assert (store.coords == plain.coords).all()
    assert (store[:] == 255 - plain[:]).all()
    assert store.meta.model.normalizer == "inverted"
    assert store.damage() == []
    assert "inverted" in (tmp_path / "report.html").read_text()
    assert run(slide_path, config(tmp_path, normalizer="inverted")).slides[0].status == "skipped"
    (other,) = run(slide_path, config(tmp_path, normalizer="none")).slides
    assert "model.normalizer: inverted != none" in str(other.error)


def test_one_that_measures_the_slide(slide_path: Path, tmp_path: Path, plain: TileStore) -> None:
    summary = run(slide_path, config(tmp_path, normalizer="brighter"))
    assert summary.exit_status == 0
    store = TileStore.open(tmp_path / "synthetic.zarr")
    assert store.meta.statistics is not None
    missing = store.meta.statistics["own"]["missing"]
    assert abs(missing) > 5
    expected = np.rint(plain[:] + missing).clip(0, 255)
    assert (store[:] == expected).all()


def test_a_segmenter_of_ones_own(slide_path: Path, tmp_path: Path) -> None:
    summary = run(slide_path, config(tmp_path, segmenter="left", normalizer="none"))
    assert summary.exit_status == 0
    store = TileStore.open(tmp_path / "synthetic.zarr")
    half = store.meta.slide.width_px / 2
    assert len(store) > 3
    assert (store.coords[:, 0] < half).all()
    assert store.meta.tissue.segmenter == "left"


def test_the_command_line_knows_them(slide_path: Path, tmp_path: Path) -> None:
    """Choices are read when an option is parsed, so what was added before counts."""
    from wsi_norm_cli.run import command

    arguments = [str(slide_path), "-o", str(tmp_path), "-n", "0", "--normalizer", "inverted"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.exception is None
    assert TileStore.open(tmp_path / "synthetic.zarr").meta.model.normalizer == "inverted"
