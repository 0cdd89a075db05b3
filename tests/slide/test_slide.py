"""Slide against OpenSlide: pixels, damaged regions, closing, what it says of itself."""

import hashlib
import pickle
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import CMU, TCGA
from tests.slide.oracle import OF_JPEG, READERS, at, oracle, whole_level
from wsi_norm.errors import ReadError, UnreadableSlideError, WsiNormError
from wsi_norm.geometry import Level, Region
from wsi_norm.slide import open_slide
from wsi_norm.slide.readers.openslide import OpenSlideReader

# --- pixels


def corners(level: Level, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Corners of rectangles inside a level, across each border, and outside."""
    width, height = level.width, level.height
    inside = [
        (int(rng.integers(0, width - 90)), int(rng.integers(0, height - 70))) for _ in range(8)
    ]
    across = [
        (-40, 20),
        (20, -40),
        (width - 50, 30),
        (30, height - 50),
        (-89, -69),
        (width - 1, height - 1),
    ]
    outside = [(-90, 0), (0, -70), (width, 5), (5, height), (-5000, -5000), (width + 5000, 0)]
    return inside + across + outside


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["synthetic", "cmu", "tcga"])
def test_pixels_are_openslides(slides: Callable[[str], Path], name: str, reader: str) -> None:
    path, rng = slides(name), np.random.default_rng(0)
    with open_slide(path, reader, default_mpp_um=0.25) as slide:
        for level in slide.levels:
            if reader == "openslide" and level.downsample != round(level.downsample):
                continue  # OpenSlide resamples there; see below
            for left, top in corners(level, rng):
                pixels = slide.read(at(level, left, top, 90, 70))
                assert (pixels.dtype, pixels.shape) == (np.uint8, (70, 90, 3))
                expected = oracle(path, level, left, top, 90, 70)
                np.testing.assert_array_equal(pixels, expected, f"{level} {left} {top}")


@pytest.mark.parametrize("reader", OF_JPEG)
def test_region_at_the_corner_and_of_the_whole(slide_path: Path, reader: str) -> None:
    with open_slide(slide_path, reader) as slide:
        for level in slide.levels:
            whole = slide.read(Region(0, 0, level.index, level.width, level.height))
            np.testing.assert_array_equal(whole, whole_level(slide_path, level.index))


def test_what_is_read_is_the_callers_own(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        one, other = (slide.read(Region(700, 600, 0, 50, 50)) for _ in range(2))
        assert not np.shares_memory(one, other)


# --- damaged rectangles


@pytest.mark.parametrize("reader", OF_JPEG)
def test_one_failed_read_poisons_no_other(
    faulty: Path,
    data_dir: Path,
    rectangles: list[tuple[int, int, int, int]],
    reader: str,
) -> None:
    path = faulty / "zeroed_tiles.svs"
    intact = whole_level(data_dir / CMU, 0)
    with open_slide(path, reader) as slide:
        for left, top, right, bottom in rectangles:
            damaged = [
                Region(left, top, 0, 10, 10),
                Region(right - 1, bottom - 1, 0, 1, 1),
                Region(left - 20, top - 20, 0, 21, 21),
            ]
            beside = [
                (min(x0 for x0, *_ in rectangles) - 64, top, 64, 64),
                (max(x1 for *_, x1, _ in rectangles), bottom - 32, 64, 64),
                (left, top - 50, right - left, 50),
                (left, bottom, 100, 10),
            ]
            for region in damaged:
                with pytest.raises(ReadError) as caught:
                    slide.read(region)
                assert f"{path}: cannot read {region.width} x" in str(caught.value)
                assert "\n" not in str(caught.value)
                for x, y, width, height in beside:
                    np.testing.assert_array_equal(
                        slide.read(Region(x, y, 0, width, height)),
                        intact[y : y + height, x : x + width],
                    )


@pytest.mark.parametrize("reader", OF_JPEG)
def test_a_slide_that_disappears(faulty: Path, tmp_path: Path, reader: str) -> None:
    path = tmp_path / "slide.svs"
    shutil.copy(faulty / "zeroed_tiles.svs", path)
    with open_slide(path, reader) as slide:
        path.unlink()
        for region in (Region(1000, 1500, 0, 9, 9), Region(1000, 1500, 0, 9, 9)):
            with pytest.raises(
                UnreadableSlideError, match=r"slide\.svs: cannot be opened any more"
            ):
                slide.read(region)
        shutil.copy(faulty / "zeroed_tiles.svs", path)
        assert slide.read(Region(0, 0, 0, 9, 9)).shape == (9, 9, 3)


@pytest.mark.parametrize("mistake", [TypeError, KeyError, ValueError, RuntimeError, OSError])
def test_a_mistake_in_a_reader_is_not_a_damaged_region(
    slide_path: Path, mistake: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends what is done, with its traceback; no pixel turns white for it."""

    class Mistaken(OpenSlideReader):
        def read(self, level: Level, left: int, top: int, width: int, height: int) -> np.ndarray:
            raise mistake("ours")

    monkeypatch.setattr("wsi_norm.slide.readers.openslide.OpenSlideReader", Mistaken)
    with open_slide(slide_path, "openslide") as slide:
        with pytest.raises(mistake, match="ours"):
            slide.read(Region(0, 0, 0, 9, 9))
        with pytest.raises(mistake, match="ours"):
            slide.overview(8.0)


# --- closing and pickling


@pytest.mark.parametrize("reader", [*OF_JPEG, "image"])
def test_a_closed_slide(slide_path: Path, tmp_path: Path, reader: str) -> None:
    if reader == "image":
        slide_path = tmp_path / "a.png"
        Image.new("RGB", (64, 64)).save(slide_path)
    with open_slide(
        slide_path, "auto" if reader == "image" else reader, default_mpp_um=0.5
    ) as slide:
        assert slide.reader == reader
    with pytest.raises(ReadError, match="closed"):
        slide.read(Region(0, 0, 0, 10, 10))
    with pytest.raises(WsiNormError, match="closed"):
        slide.overview(8.0)
    slide.close()
    assert slide.dimensions
    assert slide.levels[0].downsample == 1
    assert slide.reader_version


def test_a_slide_does_not_pickle(slide_path: Path) -> None:
    with open_slide(slide_path) as slide, pytest.raises(TypeError, match="send its path"):
        pickle.dumps(slide)


# --- metadata and readers


@pytest.mark.parametrize("reader", READERS)
def test_metadata(data_dir: Path, reader: str) -> None:
    with open_slide(data_dir / CMU, reader) as slide:
        assert slide.dimensions == (2220, 2967)
        assert slide.levels == (Level(0, 2220, 2967, 1.0),)
        assert (slide.mpp_um, slide.mpp_source) == (pytest.approx(0.499), "slide")
        assert slide.damage is None
        assert slide.reader == reader
        assert slide.metadata.vendor == "aperio"
        assert slide.metadata.objective_power == 20
        assert set(slide.metadata.associated_images) == {"label", "macro", "thumbnail"}
        assert slide.metadata.icc_profile is None
        assert (
            slide.fingerprint()
            == hashlib.sha256((data_dir / CMU).read_bytes()[: 2**20]).hexdigest()
        )
    with open_slide(data_dir / TCGA, reader, default_mpp_um=0.25) as slide:
        assert [(level.width, level.height) for level in slide.levels] == [
            (4443, 3567),
            (2221, 1783),
        ]
        assert slide.levels[1].downsample == pytest.approx(2.0005, abs=1e-4)
        assert slide.metadata.icc_profile


def test_reader_versions(slide_path: Path) -> None:
    with open_slide(slide_path, "openslide") as slide:
        assert slide.reader_version == version("openslide-bin")
    with open_slide(slide_path, "tiffslide") as slide:
        assert slide.reader_version == version("tiffslide")
    with open_slide(slide_path, "direct") as slide:
        assert slide.reader_version == f"simplejpeg {version('simplejpeg')}"


@pytest.mark.parametrize("reader", READERS)
def test_what_a_fork_copied_is_not_closed_with_the_copy(slide_path: Path, reader: str) -> None:
    slide = open_slide(slide_path, reader)
    level, opened = slide.levels[0], slide._reader
    slide._process += 1  # opened by the process that this one were a fork of
    del slide
    assert opened.read(level, 0, 0, 8, 8).shape == (8, 8, 3)
    opened.close()
