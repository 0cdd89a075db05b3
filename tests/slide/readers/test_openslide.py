"""OpenSlide between the pixels of a level, and what it is known to raise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests.slide.oracle import at, composed, oracle
from wsi_norm.errors import ReadError
from wsi_norm.slide import open_slide
from wsi_norm.slide.readers.base import Refused
from wsi_norm.slide.readers.openslide import OpenSlideReader


def test_openslide_between_pixels(slides: Callable[[str], Path]) -> None:
    """At a downsample of 2.0005 its locations lie off the grid: it is asked the same as by hand."""
    path, rng = slides("tcga"), np.random.default_rng(1)
    with (
        openslide.OpenSlide(path) as other,
        open_slide(path, "openslide", default_mpp_um=0.25) as slide,
    ):
        level = slide.levels[1]
        assert level.downsample != round(level.downsample)
        for _ in range(8):
            left, top = int(rng.integers(0, 2000)), int(rng.integers(0, 1600))
            region = at(level, left, top, 90, 70)
            by_hand = composed(other.read_region(region[:2], 1, (90, 70)))
            pixels = slide.read(region)
            assert np.abs(pixels.astype(int) - by_hand).max() <= 1
            aligned = oracle(path, level, left, top, 90, 70).astype(int)
            shifted = oracle(path, level, left + 1, top + 1, 90, 70).astype(int)
            if np.ptp(aligned) > 60:
                assert np.abs(pixels - aligned).mean() < np.abs(pixels - shifted).mean()


def test_its_errors_are_ours(slide_path: Path, tmp_path: Path, data_dir: Path) -> None:
    (text := tmp_path / "a.svs").write_text("hello")
    for path in (text, tmp_path / "gone.svs"):
        with pytest.raises(Refused, match="Unsupported or missing image file"):
            OpenSlideReader(str(path))
    reader = OpenSlideReader(str(data_dir / "slides" / "broken" / "openslide_unreadable.svs"))
    with pytest.raises(ReadError, match="Bogus marker"):
        reader.read(reader.metadata.levels[0], 0, 0, 16, 16)
    reader.close()


def test_other_errors_around_it_stay_what_they_are(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSlide says everything with one class; a TypeError means that it was called wrongly."""
    reader = OpenSlideReader(str(slide_path))

    def mistaken(*arguments: object) -> None:
        raise TypeError("called wrongly")

    with monkeypatch.context() as patched:
        patched.setattr(openslide.OpenSlide, "read_region", mistaken)
        with pytest.raises(TypeError, match="called wrongly"):
            reader.read(reader.metadata.levels[0], 0, 0, 16, 16)
    reader.close()
