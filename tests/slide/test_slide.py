"""Slide against OpenSlide, against Pillow, and against what damaged and odd files hold."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from wsi_norm.errors import (
    ConfigError,
    ReadError,
    ResolutionError,
    UnreadableSlideError,
    WsiNormError,
)
from wsi_norm.geometry import Level, Region
from wsi_norm.slide import ReaderName, open_slide, opening, read_image, readers

CMU = "slides/real/CMU-1-Small-Region.svs"
TCGA = "slides/real/TCGA-CR-7395-01A-01-TS1.svs"
DICOM = "slides/dicom/cmu-1-small-region-dicom"
BOXES = "slides/synthetic/openslide_boxes.tiff"
READERS: tuple[ReaderName, ...] = ("openslide", "tiffslide")
OF_JPEG: tuple[ReaderName, ...] = (*READERS, "direct")
Name = Literal["synthetic", "cmu", "tcga"]


@pytest.fixture
def slides(slide_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """A slide by name; the real ones skip where there is no shared data."""

    def path(name: str) -> Path:
        if name == "synthetic":
            return slide_path
        return request.getfixturevalue("data_dir") / {"cmu": CMU, "tcga": TCGA}[name]

    return path


@cache
def whole_level(path: Path, level: int) -> np.ndarray:
    """A level by OpenSlide in one read from its corner, so on the level's own pixel grid."""
    with openslide.OpenSlide(path) as slide:
        image = slide.read_region((0, 0), level, slide.level_dimensions[level])
    return composed(image)


def composed(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of RGBA over white, computed with numpy."""
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def oracle(path: Path, level: Level, left: int, top: int, width: int, height: int) -> np.ndarray:
    """A rectangle of level px cut from the whole level, white beyond it."""
    margin = max(width, height)
    padded = np.pad(
        whole_level(path, level.index),
        ((margin, margin), (margin, margin), (0, 0)),
        constant_values=255,
    )
    top, left = (
        min(max(v, -margin), s) + margin for v, s in ((top, level.height), (left, level.width))
    )
    return padded[top : top + height, left : left + width]


def at(level: Level, left: int, top: int, width: int, height: int) -> Region:
    """The region whose corner is a pixel of the level."""
    x, y = round(left * level.downsample), round(top * level.downsample)
    return Region(x, y, level.index, width, height)


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
def test_pixels_are_openslides(
    slides: Callable[[str], Path], name: Name, reader: ReaderName
) -> None:
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


@pytest.mark.parametrize("reader", OF_JPEG)
def test_region_at_the_corner_and_of_the_whole(slide_path: Path, reader: ReaderName) -> None:
    with open_slide(slide_path, reader) as slide:
        for level in slide.levels:
            whole = slide.read(Region(0, 0, level.index, level.width, level.height))
            np.testing.assert_array_equal(whole, whole_level(slide_path, level.index))


def test_what_is_read_is_the_callers_own(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        one, other = (slide.read(Region(700, 600, 0, 50, 50)) for _ in range(2))
        assert not np.shares_memory(one, other)


# --- overview


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
    name: Name,
    mpp_um: float,
    reader: ReaderName,
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


# --- damaged rectangles


@pytest.fixture(scope="module")
def rectangles(faulty: Path) -> list[tuple[int, int, int, int]]:
    """left, top, right, bottom of what is zeroed in zeroed_tiles.svs, in level-0 px."""
    stated = json.loads((faulty / "faults.json").read_text())["zeroed_tiles.svs"]
    found = [(x, y, x + width, y + height) for x, y, width, height in stated["damaged_xywh"]]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("reader", OF_JPEG)
def test_one_failed_read_poisons_no_other(
    faulty: Path,
    data_dir: Path,
    rectangles: list[tuple[int, int, int, int]],
    reader: ReaderName,
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
def test_overview_marks_what_cannot_be_read(
    faulty: Path,
    data_dir: Path,
    rectangles: list[tuple[int, int, int, int]],
    reader: ReaderName,
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


@pytest.mark.parametrize("reader", OF_JPEG)
def test_a_slide_that_disappears(faulty: Path, tmp_path: Path, reader: ReaderName) -> None:
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
def test_metadata(data_dir: Path, reader: ReaderName) -> None:
    with open_slide(data_dir / CMU, reader) as slide:
        assert slide.dimensions == (2220, 2967)
        assert slide.levels == (Level(0, 2220, 2967, 1.0),)
        assert (slide.mpp_um, slide.mpp_source) == (pytest.approx(0.499), "slide")
        assert slide.damage is None
        assert slide.reader == reader
        assert slide.metadata.vendor == "aperio"
        assert slide.metadata.objective_power == 20
        assert set(slide.metadata.associated_images) == {"label", "macro", "thumbnail"}
        assert slide.metadata.icc_profile is False
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
        assert slide.metadata.icc_profile is True


def test_reader_versions(slide_path: Path) -> None:
    with open_slide(slide_path, "openslide") as slide:
        assert slide.reader_version == version("openslide-bin")
    with open_slide(slide_path, "tiffslide") as slide:
        assert slide.reader_version == version("tiffslide")
    with open_slide(slide_path, "direct") as slide:
        assert slide.reader_version == f"simplejpeg {version('simplejpeg')}"


def test_auto_takes_openslide_before_tiffslide(
    data_dir: Path, slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(data_dir / TCGA, default_mpp_um=0.25) as slide:
        assert (slide.reader, slide.damage) == ("openslide", None)

    class Refusing:
        def __init__(self, path: str) -> None:
            raise openslide.OpenSlideError("not today")

    monkeypatch.setattr(
        opening, "READERS", {**opening.READERS, "direct": Refusing, "openslide": Refusing}
    )
    with open_slide(slide_path) as slide:
        assert slide.reader == "tiffslide"
        assert slide.damage is not None
        assert "openslide: not today" in slide.damage
    with pytest.raises(UnreadableSlideError, match="not today"):
        open_slide(slide_path, "openslide")


def test_a_dicom_folder(data_dir: Path) -> None:
    folder = data_dir / DICOM
    with open_slide(folder) as slide:
        assert slide.reader == "openslide"
        assert slide.dimensions == (2220, 2967)
        assert slide.mpp_um == pytest.approx(0.499, abs=1e-3)
        assert slide.path.parent == folder
        assert len(slide.levels) > 1
        corner = slide.read(Region(0, 0, 0, 20, 20))
    with open_slide(sorted(folder.glob("*.dcm"))[-1]) as slide:
        np.testing.assert_array_equal(slide.read(Region(0, 0, 0, 20, 20)), corner)
    with pytest.raises(UnreadableSlideError, match=r"\.dcm"):
        open_slide(folder, "tiffslide")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "gone.svs", "no such file"),
        (tmp_path, "without DICOM"),
        (tmp_path / f"{'x' * 300}.svs", "."),
    ):
        with pytest.raises(UnreadableSlideError, match=words) as caught:
            open_slide(path)
        assert str(caught.value).startswith(f"{path}: ")


# --- mpp


@pytest.mark.parametrize("reader", READERS)
def test_mpp_stated_given_and_missing(data_dir: Path, reader: ReaderName) -> None:
    stated, silent = data_dir / CMU, data_dir / TCGA
    for path, table, default, expected in (
        (stated, None, None, (0.499, "slide")),
        (stated, None, 0.25, (0.499, "slide")),
        (stated, 0.3, 0.25, (0.3, "table")),
        (silent, None, 0.25, (0.25, "default")),
        (silent, 0.3, None, (0.3, "table")),
    ):
        with open_slide(path, reader, table_mpp_um=table, default_mpp_um=default) as slide:
            assert (slide.mpp_um, slide.mpp_source) == expected
    with pytest.raises(ResolutionError, match=r"--default-mpp.*--slides-csv") as caught:
        open_slide(silent, reader)
    assert str(caught.value).startswith(f"{silent}: ")


@pytest.mark.parametrize("mpp_um", [0.0, -0.5, 0.01, 17.0, float("nan"), float("inf")])
def test_absurd_mpp_is_refused(slide_path: Path, data_dir: Path, mpp_um: float) -> None:
    with pytest.raises(ResolutionError, match=r"outside 0\.05-16"):
        open_slide(slide_path, table_mpp_um=mpp_um)
    with pytest.raises(ResolutionError, match=r"outside 0\.05-16"):
        open_slide(data_dir / TCGA, default_mpp_um=mpp_um)


def test_a_print_resolution_is_no_mpp(data_dir: Path) -> None:
    with pytest.raises(ResolutionError, match=r"352\.\d+ \(slide\).*--slides-csv"):
        open_slide(data_dir / BOXES)
    with open_slide(data_dir / BOXES, table_mpp_um=0.5) as slide:
        assert slide.dimensions == (300, 250)


@pytest.mark.parametrize("reader", OF_JPEG)
@pytest.mark.parametrize("fault", ["mpp_removed", "mpp_garbage", "mpp_10x"])
def test_faulty_mpp(faulty: Path, fault: str, reader: ReaderName) -> None:
    path = faulty / f"{fault}.svs"
    with pytest.raises(ResolutionError) as caught:
        open_slide(path, reader)
    assert "--slides-csv" in str(caught.value)
    if fault == "mpp_10x":
        assert "4.99" in str(caught.value)
        assert "objective power 20" in str(caught.value)
        with pytest.raises(ResolutionError):
            open_slide(path, reader, default_mpp_um=0.5)
    else:
        with open_slide(path, reader, default_mpp_um=0.5) as slide:
            assert (slide.mpp_um, slide.mpp_source) == (0.5, "default")
    with open_slide(path, reader, table_mpp_um=0.499) as slide:
        assert (slide.mpp_um, slide.mpp_source) == (0.499, "table")


# --- plain images

RGB = np.random.default_rng(5).integers(0, 256, (90, 120, 3), np.uint8)
ALPHA = np.where(np.arange(120) < 60, 255, 0).astype(np.uint8) * np.ones((90, 1), np.uint8)
TILED: Any = {"tile": (64, 64)}


def on_white(rgb: np.ndarray) -> np.ndarray:
    return np.where(ALPHA[..., None] == 255, rgb, 255).astype(np.uint8)


def read_all(path: Path, reader: ReaderName = "auto") -> np.ndarray:
    with open_slide(path, reader, default_mpp_um=0.5) as slide:
        assert slide.damage is None
        return np.array(slide.read(Region(0, 0, 0, *slide.dimensions)))


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "PNG"])
def test_plain_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_all(path), RGB)
    np.testing.assert_array_equal(read_image(path), RGB)
    with open_slide(path, default_mpp_um=0.5) as slide:
        assert slide.reader == "image"
        assert slide.reader_version == version("pillow")
        padded = slide.read(Region(-10, 80, 0, 40, 20))
        np.testing.assert_array_equal(padded[:10, 10:], RGB[80:, :30])
        assert (padded[10:] == 255).all()
        assert (padded[:, :10] == 255).all()
    with pytest.raises(ResolutionError, match="--default-mpp"):
        open_slide(path)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_plain_jpeg(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, quality=80)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_all(path), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_plain_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    gray = np.repeat(RGB[..., :1], 3, axis=-1)
    if mode == "L":
        image, expected = Image.fromarray(RGB[..., 0]), gray
    elif mode == "LA":
        image = Image.merge("LA", [Image.fromarray(RGB[..., 0]), Image.fromarray(ALPHA)])
        expected = on_white(gray)
    elif mode == "P":
        image = Image.fromarray(RGB).quantize(32)
        expected = np.asarray(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    else:
        image, expected = Image.fromarray(np.dstack([RGB, ALPHA])), on_white(RGB)
    assert image.mode == mode
    image.save(path)
    np.testing.assert_array_equal(read_all(path), expected)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, TILED], ids=["one", "strips", "tiles"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("kind", ["rgb", "gray", "rgba"])
def test_plain_tiff(
    tmp_path: Path, layout: dict[str, Any], compression: str | None, kind: str
) -> None:
    path = tmp_path / "a.tif"
    if kind == "rgb":
        pixels, expected, how = RGB, RGB, {"photometric": "rgb"}
    elif kind == "gray":
        pixels, how = RGB[..., 0], {"photometric": "minisblack"}
        expected = np.repeat(RGB[..., :1], 3, axis=-1)
    else:
        pixels, expected = np.dstack([RGB, ALPHA]), on_white(RGB)
        how = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, pixels, compression=compression, **layout, **how)
    np.testing.assert_array_equal(read_all(path), expected)


@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
def test_palette_tiff_is_never_its_indices(
    tmp_path: Path, reader: Literal["auto", "tiffslide"]
) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(RGB).quantize(32)
    image.save(path)
    expected = np.asarray(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    right_or_refused(path, expected, reader)


@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize("kind", ["rgb", "gray"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_tiff_is_never_clipped(
    tmp_path: Path, kind: str, layout: dict[str, Any], dtype: Any, reader: Any
) -> None:
    path = tmp_path / "a.tif"
    pixels = RGB if kind == "rgb" else RGB[..., 0]
    photometric: Any = "rgb" if kind == "rgb" else "minisblack"
    deep = pixels.astype(dtype) * (257 if dtype is np.uint16 else 1)
    tifffile.imwrite(path, deep, photometric=photometric, **layout)
    expected = RGB if kind == "rgb" else np.repeat(RGB[..., :1], 3, axis=-1)
    right_or_refused(path, expected, reader)


def right_or_refused(path: Path, expected: np.ndarray, reader: Any) -> None:
    """A file we cannot read right is refused with our error, at once or when it is read."""
    refused: WsiNormError | None = None
    try:
        np.testing.assert_array_equal(read_all(path, reader), expected)
    except (UnreadableSlideError, ReadError) as error:
        refused = error
    assert refused is None or str(path) in str(refused)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 257).save(path)
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError, match="8-bit") as caught:
            refuse()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_plain_image_too_large_for_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_IMAGE_PIXELS", 90 * 120 - 1)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    if suffix == "png":
        with pytest.raises(UnreadableSlideError, match=r"120 x 90 px.*pyramidal TIFF"):
            open_slide(path, default_mpp_um=0.5)
    with pytest.raises(UnreadableSlideError, match=r"120 x 90 px.*pyramidal TIFF"):
        read_image(path)
    monkeypatch.setattr(readers, "MAX_IMAGE_PIXELS", 90 * 120)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError, match=r"a\.png"):
            refuse()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_a_cut_image_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError) as caught:
            refuse()
        assert str(path) in str(caught.value)


def test_a_png_with_a_broken_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    for at_byte in (data.index(b"IDAT"), data.index(b"IDAT") + 10, data.index(b"IHDR") + 9):
        broken = bytearray(data)
        broken[at_byte] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(UnreadableSlideError, match=r"a\.png"):
            open_slide(path, default_mpp_um=0.5)


def test_a_url_is_read_by_tiffslide(slide_path: Path) -> None:
    """Served from fsspec's memory file system: no byte comes from a path of this machine."""
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/remote.svs", slide_path.read_bytes())
    region = Region(700, 500, 0, 300, 200)
    with open_slide("memory://bucket/remote.svs") as remote, open_slide(slide_path) as local:
        assert remote.reader == "tiffslide"
        assert remote.damage is None
        assert remote.mpp_um == pytest.approx(local.mpp_um)
        assert remote.fingerprint() == local.fingerprint()
        np.testing.assert_array_equal(remote.read(region), local.read(region))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://bucket/none.svs", "nothing there"),
        ("nosuchprotocol://bucket/a.svs", "check the part before"),
    ],
)
def test_urls_that_lead_nowhere(url: str, words: str) -> None:
    with pytest.raises((UnreadableSlideError, ConfigError), match=words) as caught:
        open_slide(url)
    assert url in str(caught.value)
