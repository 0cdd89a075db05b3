"""OpenSlide between the pixels of a level, and what it is known to raise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tests.slide.oracle import at, composed, oracle
from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Region
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


# --- levels whose sizes lie


APERIO = "Aperio Image Library v11\r\n{}x{}|AppMag = 20|MPP = 0.5"
WIDTH, HEIGHT = 1400, 900


def blobs(seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8)
    image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(image)


def half_of(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX))


def aperio(path: Path, *levels: np.ndarray, **how: Any) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for pixels in levels:
            size = pixels.shape[1], pixels.shape[0]
            text = APERIO.format(*size)
            plain = {"photometric": "rgb", "metadata": None, "software": False}
            tiff.write(pixels, tile=(256, 256), description=text, **plain, **how)
    return path


def on_whole_tiles(pixels: np.ndarray) -> np.ndarray:
    right, below = -pixels.shape[1] % 256, -pixels.shape[0] % 256
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), constant_values=255)


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_levels_padded_to_whole_tiles(tmp_path: Path, compression: str) -> None:
    """OpenSlide's 1.79 for 2: places are right all the same, to a fraction of a pixel."""
    full = blobs()
    path = aperio(tmp_path / "a.svs", full, on_whole_tiles(half_of(full)), compression=compression)
    with openslide.OpenSlide(path) as other:
        assert other.level_downsamples[1] < 1.9
    with open_slide(path) as slide:
        assert (slide.reader, slide.damage) == ("openslide", None)
        level = slide.levels[1]
        assert (level.width, level.height, level.downsample) == (700, 450, 2.0)
        pixels = slide.read(Region(400, 300, 1, 400, 250)).astype(int)
    expected = half_of(full)[150:400, 200:600].astype(int)
    shifted = half_of(full)[151:401, 202:602].astype(int)
    assert np.abs(pixels - expected).mean() < np.abs(pixels - shifted).mean() / 2
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_page_that_is_no_level_of_the_slide(tmp_path: Path) -> None:
    """Levels behind it keep their own pixels."""
    full = blobs()
    other = blobs(1)[:512, :768]
    quarter = half_of(half_of(full))
    path = aperio(tmp_path / "a.svs", full, other, quarter)
    with open_slide(path) as slide:
        assert [(level.width, level.height) for level in slide.levels] == [(1400, 900), (350, 225)]
        assert [level.index for level in slide.levels] == [0, 1]
        np.testing.assert_array_equal(slide.read(Region(0, 0, 1, 350, 225)), quarter)


def test_a_turned_aperio_slide_is_refused(tmp_path: Path) -> None:
    path = aperio(tmp_path / "a.svs", blobs(), extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(UnreadableSlideError, match="Orientation 6"):
        open_slide(path)


def test_closing_what_garbage_collection_closed_first(slide_path: Path) -> None:
    slide = open_slide(slide_path, "openslide")
    slide._reader._slide.close()  # as the handle's own finaliser does, in a cycle of garbage
    slide.close()
