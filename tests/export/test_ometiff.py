"""OME-TIFF: the store's pixels in their places, read back by tifffile and OpenSlide."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile

from tests.builders import tree
from tests.export.conftest import Made, image_of
from wsi_norm.export import export, ometiff
from wsi_norm.store import TileStore

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def exported(store: TileStore, output: Path | None = None, **options: object) -> Path:
    (outcome,) = export([store.path], "ome-tiff", output, **options)
    assert outcome.status == "written", outcome.error
    return outcome.place


def levels_of(path: Path) -> list[np.ndarray]:
    """By tifffile, from its OME series."""
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert (series.kind, series.axes) == ("ome", "YXS")
        return [level.asarray() for level in series.levels]


def below(image: np.ndarray) -> np.ndarray:
    """The mean of 2 x 2 px, rounded half up."""
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(float)
    corners = itertools.product((0, 1), (0, 1))
    mean = sum(even[y::2, x::2] for y, x in corners) / 4
    return np.floor(mean + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "tile", "downsample"),
    [
        ((320, 240), 16, 1.0),
        ((333, 245), 16, 1.0),  # cut at the slide's edges
        ((700, 391), 32, 1.7),
        ((1500, 901), 100, 1.0),  # a size that TIFF does not know, below its own
        ((1500, 901), 299, 1.0),  # and above
        ((50, 40), 64, 1.0),  # a slide smaller than a tile
    ],
)
def test_pixels_are_the_stores(
    make: Made, size: tuple[int, int], tile: int, downsample: float
) -> None:
    store = make(size=size, tile=tile, downsample=downsample)
    width, height = (int(length / downsample + 0.5) for length in size)
    expected = image_of(store, width, height)
    path = exported(store)
    levels = levels_of(path)
    assert max(levels[-1].shape) <= max(tile, 256)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == tuple(level.shape[1::-1] for level in levels)
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(level, expected)
            region = slide.read_region((0, 0), number, slide.level_dimensions[number])
            assert np.asarray(region)[..., 3].min() == 255  # nothing is missing
            np.testing.assert_array_equal(np.asarray(region)[..., :3], expected)
            expected = below(expected)


def test_what_the_file_says(make: Made) -> None:
    path = exported(make("a <b> {c} é", downsample=1.25))
    with tifffile.TiffFile(path) as file:
        assert not file.is_bigtiff
        page = file.pages.first
        assert [tag in page.tags for tag in ("DateTime", "SubIFDs")] == [False, True]
        root = ElementTree.fromstring(file.ome_metadata)
    (image,) = root.findall(f"{OME}Image")
    (pixels,) = image.findall(f"{OME}Pixels")
    assert image.get("Name") == "a <b> {c} é"
    said = {name: pixels.get(name) for name in ("PhysicalSizeX", "PhysicalSizeYUnit", "SizeX")}
    assert said == {"PhysicalSizeX": "0.625", "PhysicalSizeYUnit": "µm", "SizeX": "256"}
    with openslide.OpenSlide(path) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.625)


def test_jpeg_is_near_by_and_white_stays_white(make: Made, tmp_path: Path) -> None:
    flat = make(tile=64, size=(640, 512), share=0.3)
    expected = image_of(flat, 640, 512)
    sizes = {}
    for quality in (40, 95):
        path = exported(flat, tmp_path / str(quality), compression="jpeg", quality=quality)
        first, *_ = levels_of(path)
        with openslide.OpenSlide(path) as slide:
            region = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
        np.testing.assert_array_equal(region, first)
        glass = (expected == 255).reshape(8, 64, 10, 64, 3).all(axis=(1, 3, 4))
        assert glass.any()
        blocks = first.reshape(8, 64, 10, 64, 3).swapaxes(1, 2)
        assert (blocks[glass] == 255).all()
        sizes[quality] = path.stat().st_size
    assert sizes[40] < sizes[95] < exported(flat).stat().st_size


def test_bigtiff_where_offsets_of_32_bits_may_not_do(
    make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    plain = levels_of(exported(store, tmp_path / "plain"))
    monkeypatch.setattr(ometiff, "CLASSIC_BYTES", 1000)
    path = exported(store, tmp_path / "big")
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
    for one, other in zip(levels_of(path), plain, strict=True):
        np.testing.assert_array_equal(one, other)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == len(plain)


def test_memory_holds_rows_of_tiles(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """However high the image is: the strips of all levels are as much as two rows of tiles."""
    held: list[int] = []
    real = ometiff._ended

    def watched(levels: list[ometiff._Level], *rest: object) -> object:
        held.append(sum(level.strip.nbytes for level in levels))
        return real(levels, *rest)

    monkeypatch.setattr(ometiff, "_ended", watched)
    exported(make(size=(256, 2048)))
    assert max(held) <= 2 * 3 * 256 * 16


def test_tiles_that_overlap_are_refused(make: Made, tmp_path: Path) -> None:
    store = make(overlap=4)
    before = set(tree(tmp_path))
    (outcome,) = export([store.path], "ome-tiff")
    assert outcome.status == "failed"
    assert "run with --overlap 0" in outcome.error
    assert set(tree(tmp_path)) == before


def test_quality_without_jpeg_is_refused() -> None:
    with pytest.raises(ValueError, match="compression jpeg alone"):
        ometiff.Options(quality=80)
    assert ometiff.Options("jpeg") == ometiff.Options("jpeg", 90)
