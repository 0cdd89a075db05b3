"""The overview against means computed with numpy, and what it marks as unreadable."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import CMU
from tests.slide.oracle import OF_JPEG, READERS, whole_level
from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Region
from wsi_norm.slide import open_slide


def exact_means(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean colour under each px of a smaller image, partly covered pixels weighted."""
    for axis, length in ((0, size[1]), (1, size[0])):
        total = np.insert(np.cumsum(image.astype(float), axis=axis), 0, 0, axis=axis)
        edges = np.linspace(0, image.shape[axis], length + 1)
        low = np.minimum(edges.astype(int), image.shape[axis] - 1)
        part = np.expand_dims(edges - low, tuple({0, 1, 2} - {axis}))
        at_edges = np.take(total, low, axis) * (1 - part) + np.take(total, low + 1, axis) * part
        image = np.diff(at_edges, axis=axis) / (edges[1] - edges[0])
    return image


@pytest.mark.parametrize("reader", OF_JPEG)
@pytest.mark.parametrize(("name", "mpp_um"), [("synthetic", 8.0), ("cmu", 8.0), ("cmu", 30.0)])
def test_overview_is_the_mean(
    slides: Callable[[str], Path],
    name: str,
    mpp_um: float,
    reader: str,
) -> None:
    path = slides(name)
    with open_slide(path, reader) as slide:
        overview = slide.overview(mpp_um)
        (width, height), mpp = slide.dimensions, slide.mpp_um
    rows, columns = overview.image.shape[:2]
    assert overview.readable.all()
    assert overview.readable.shape == (rows, columns)
    assert overview.downsample == (width / columns, height / rows)
    assert overview.mpp_um == pytest.approx(mpp_um, rel=0.02)
    assert overview.mpp_um == pytest.approx(mpp * width / columns)
    expected = exact_means(whole_level(path, 0), (columns, rows))
    error = np.abs(overview.image - expected)
    assert error.mean() < 0.8
    assert error.max() < 12
    shifted = np.abs(overview.image[:, 1:] - expected[:, :-1])
    assert shifted.mean() > 2 * error.mean()


def test_overview_of_the_full_resolution(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", default_mpp_um=2.0) as slide:
        overview = slide.overview(0.5)
    np.testing.assert_array_equal(overview.image, pixels)
    assert (overview.downsample, overview.mpp_um) == ((1.0, 1.0), 2.0)


def test_overview_of_a_sliver(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2000), (10, 20, 30)).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", default_mpp_um=0.5) as slide:
        overview = slide.overview(8.0)
    assert overview.image.shape == (125, 1, 3)
    assert (overview.image == (10, 20, 30)).all()


@pytest.mark.parametrize("reader", OF_JPEG)
def test_overview_marks_what_cannot_be_read(
    faulty: Path,
    data_dir: Path,
    rectangles: list[tuple[int, int, int, int]],
    reader: str,
) -> None:
    with open_slide(data_dir / CMU, reader) as slide:
        intact = slide.overview(8.0)
    with open_slide(faulty / "zeroed_tiles.svs", reader) as slide:
        overview = slide.overview(8.0)
    scale_x, scale_y = overview.downsample
    height, width = overview.readable.shape
    left, right = np.arange(width) * scale_x, np.arange(1, width + 1) * scale_x
    top, bottom = np.arange(height) * scale_y, np.arange(1, height + 1) * scale_y

    def touching(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        return ((bottom > y0) & (top < y1))[:, None] & ((right > x0) & (left < x1))[None, :]

    lost, near = np.zeros((2, height, width), bool)
    for x0, y0, x1, y1 in rectangles:
        lost |= touching(x0 + 1, y0 + 1, x1 - 1, y1 - 1)
        near |= touching(x0 - 256, y0 - 256, x1 + 256, y1 + 256)
    assert lost.any()
    assert not overview.readable[lost].any()
    assert overview.readable[~near].all()  # given up in blocks of at most 256 px
    assert (overview.image[~overview.readable] == 255).all()
    same = overview.readable
    difference = np.abs(overview.image[same].astype(int) - intact.image[same])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert overview.downsample == intact.downsample


def test_a_slide_of_which_nothing_can_be_read(data_dir: Path) -> None:
    path = data_dir / "slides" / "broken" / "openslide_unreadable.svs"
    for reader in READERS:
        with open_slide(path, reader) as slide:
            with pytest.raises(ReadError, match="Bogus marker"):
                slide.read(Region(0, 0, 0, 16, 16))
            with pytest.raises(UnreadableSlideError, match="copy it again") as caught:
                slide.overview(8.0)
            assert str(path) in str(caught.value)
