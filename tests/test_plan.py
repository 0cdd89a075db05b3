"""Which tiles a plan keeps, against a plain computation per tile, and which slides it refuses."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile
from PIL import Image

from wsi_norm.choices import SEGMENTERS
from wsi_norm.config import RunConfig, run_config
from wsi_norm.errors import ColourError, ConfigError, ResolutionError, SlideError
from wsi_norm.geometry import Box, Tile, compact_order
from wsi_norm.plan import SlidePlan, plan_grid, plan_slide, regions_sha256
from wsi_norm.slide import open_slide
from wsi_norm.sources import SlideSource
from wsi_norm.tissue import tissue_mask

DICOM = "slides/dicom/cmu-1-small-region-dicom"
FLUORESCENCE = ["test3-DAPI-2-387.ndpi", "test3-TRITC-2-560.ndpi"]


def make_plan(path: Path, source: dict[str, Any] | None = None, **options: Any) -> SlidePlan:
    default = options.setdefault("default_mpp", None)
    with open_slide(path, default_mpp_um=default) as slide:
        return plan_slide(slide, SlideSource(path, "n", **(source or {})), run_config(**options))


def share_of(plan: SlidePlan, tile: Tile) -> float:
    """Tissue share of a tile: the mask's pixels, each weighted by how much of it lies under it."""
    step = plan.grid.tile_size - plan.grid.overlap
    weights = []
    for index, scale, length in (
        (tile.row, plan.mask_downsample[1], plan.tissue_mask.shape[0]),
        (tile.column, plan.mask_downsample[0], plan.tissue_mask.shape[1]),
    ):
        start = index * step * plan.grid.downsample / scale
        end = start + plan.grid.tile_size * plan.grid.downsample / scale
        weights.append(
            np.array([max(0.0, min(end, i + 1) - max(start, i)) for i in range(length)])
            / (end - start)
        )
    return float(weights[0] @ plan.tissue_mask @ weights[1])


def feature(
    left: float, top: float, right: float, bottom: float, **properties: Any
) -> dict[str, Any]:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def rectangle(path: Path, left: float, top: float, right: float, bottom: float) -> Path:
    path.write_text(json.dumps(feature(left, top, right, bottom)))
    return path


# --- kept tiles


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": 64},
        {"tile_size": 64, "min_tissue": 0.0},
        {"tile_size": 64, "min_tissue": 1.0},
        {"tile_size": 100, "overlap": 30, "min_tissue": 0.5},
        {"tile_size": 128, "mpp": 0.7},
        {"tile_size": 64, "mpp": 2.0, "segmenter": "hsv"},
        {"tile_size": 100, "mpp": 0.7, "segmenter": "none"},
        {"tile_size": 100, "mpp": 0.7, "segmenter": "none", "min_tissue": 0.0},
    ],
    ids=str,
)
def test_kept_tiles_are_those_with_enough_tissue(slide_path: Path, options: dict[str, Any]) -> None:
    plan = make_plan(slide_path, **options)
    least = options.get("min_tissue", 0.1)
    shares = {
        Tile(row, column): share_of(plan, Tile(row, column))
        for row in range(plan.grid.rows)
        for column in range(plan.grid.columns)
    }
    kept = set(plan.tiles)
    assert len(kept) == len(plan.tiles)
    assert kept <= shares.keys()
    for tile, share in shares.items():
        if abs(share - least) > 1e-6:
            assert (tile in kept) is (share > least), (tile, share)
    if options.get("segmenter") == "none":
        assert plan.tissue_mask.all()
    else:
        assert 0 < len(kept) < len(shares)
        assert min(shares[tile] for tile in kept) > 0
    expected = [shares[tile] for tile in plan.tiles]
    assert plan.tissue_fraction.dtype == np.float32
    np.testing.assert_allclose(plan.tissue_fraction, expected, atol=1e-6)


def test_tiles_without_tissue_are_not_kept_even_if_none_is_asked_for(slide_path: Path) -> None:
    plan = make_plan(slide_path, tile_size=64, min_tissue=0.0)
    assert len(plan.tiles) < plan.grid.rows * plan.grid.columns
    assert (plan.tissue_fraction > 0).all()


def test_order_and_coords(slide_path: Path) -> None:
    plan = make_plan(slide_path, tile_size=100, mpp=0.7)
    assert list(plan.tiles) == compact_order(plan.tiles)
    assert list(plan.tiles) != sorted(plan.tiles)
    scale = 100 * Fraction(0.7) / Fraction(0.5)
    assert plan.coords.dtype == np.int64
    assert plan.coords.shape == (len(plan.tiles), 2)
    for tile, (x, y) in zip(plan.tiles, plan.coords.tolist(), strict=True):
        assert abs(x - tile.column * scale) <= 0.5001
        assert abs(y - tile.row * scale) <= 0.5001


def test_what_else_a_plan_holds(slide_path: Path) -> None:
    plan = make_plan(slide_path)
    with open_slide(slide_path) as slide:
        overview = slide.overview(8.0)
    np.testing.assert_array_equal(
        plan.tissue_mask, tissue_mask(overview.image, overview.mpp_um, "otsu")
    )
    assert plan.mask_downsample == (16.0, 16.0)
    assert plan.tissue_mask.shape == (96, 128)
    with openslide.OpenSlide(slide_path) as other:
        full = np.asarray(other.read_region((0, 0), 0, other.dimensions).convert("RGB"))
    halved = full.reshape(768, 2, 1024, 2, 3).mean(axis=(1, 3))
    assert plan.thumbnail.shape == (768, 1024, 3)
    assert np.abs(plan.thumbnail - halved).max() <= 1
    assert plan.white == pytest.approx([243 / 255] * 3, abs=0.02)
    assert plan.warnings == ()


def test_a_thumbnail_is_at_most_1024_px(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (3000, 300), (240, 240, 240)).save(path)
    plan = make_plan(path, default_mpp=8.0, mpp=8.0)
    assert plan.thumbnail.shape == (102, 1024, 3)
    assert plan.tissue_mask.shape == (300, 3000)


def test_the_same_slide_gives_the_same_plan(slide_path: Path) -> None:
    one, other = (make_plan(slide_path, tile_size=64) for _ in range(2))
    assert one.tiles == other.tiles
    np.testing.assert_array_equal(one.tissue_fraction, other.tissue_fraction)


def test_a_segmenter_of_ones_own_decides(slide_path: Path) -> None:
    def right_half(thumbnail: npt.NDArray[np.uint8], mpp_um: float) -> npt.NDArray[np.bool_]:
        assert thumbnail.shape == (96, 128, 3)
        assert mpp_um == 8.0
        mask = np.zeros((96, 128), np.bool_)
        mask[:, 64:] = True
        return mask

    SEGMENTERS.add("toy", right_half)
    try:
        config = run_config(tile_size=64).model_copy(update={"segmenter": "toy"})
        with open_slide(slide_path) as slide:
            plan = plan_slide(slide, SlideSource(slide_path, "n"), config)
    finally:
        SEGMENTERS.remove("toy")
    assert {tile.column for tile in plan.tiles} == set(range(16, 32))
    assert len(plan.tiles) == 16 * plan.grid.rows


# --- regions and masks


def test_a_region_restricts(slide_path: Path, tmp_path: Path) -> None:
    roi = rectangle(tmp_path / "r.geojson", 512, 256, 1536, 1280)
    everywhere = make_plan(slide_path, tile_size=64)
    plan = make_plan(slide_path, tile_size=64, roi=roi)
    inside = np.zeros((96, 128), bool)
    inside[16:80, 32:96] = True
    np.testing.assert_array_equal(plan.tissue_mask, everywhere.tissue_mask & inside)
    assert 0 < len(plan.tiles) < len(everywhere.tiles)
    assert set(plan.tiles) <= set(everywhere.tiles)
    for x, y in plan.coords.tolist():
        assert 512 - 64 < x < 1536
        assert 256 - 64 < y < 1280


def test_the_tables_region_rules_over_the_common_one(slide_path: Path, tmp_path: Path) -> None:
    common = rectangle(tmp_path / "all.geojson", 0, 0, 512, 512)
    own = rectangle(tmp_path / "own.geojson", 512, 256, 1536, 1280)
    plan = make_plan(slide_path, {"roi": own}, roi=common)
    assert plan.tiles == make_plan(slide_path, roi=own).tiles
    assert plan.tiles != make_plan(slide_path, roi=common).tiles


def test_a_mask_image_restricts(slide_path: Path, tmp_path: Path) -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[6:20, 8:24] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    everywhere = make_plan(slide_path, tile_size=64)
    plan = make_plan(slide_path, {"mask": tmp_path / "mask.png"}, tile_size=64)
    inside = np.zeros((96, 128), bool)
    inside[24:80, 32:96] = True
    np.testing.assert_array_equal(plan.tissue_mask, everywhere.tissue_mask & inside)
    assert 0 < len(plan.tiles) < len(everywhere.tiles)
    roi = rectangle(tmp_path / "r.geojson", 0, 0, 1024, 1536)
    both = make_plan(slide_path, {"mask": tmp_path / "mask.png", "roi": roi}, tile_size=64)
    inside[:, 64:] = False
    np.testing.assert_array_equal(both.tissue_mask, everywhere.tissue_mask & inside)


def test_classes_to_be_ignored_are_cut_out(slide_path: Path, tmp_path: Path) -> None:
    everywhere = make_plan(slide_path, tile_size=64)
    roi = tmp_path / "r.geojson"
    ignored = feature(512, 256, 1536, 1280, classification={"name": "Ignore*"})
    roi.write_text(json.dumps([feature(0, 0, 2048, 1536), ignored]))
    plan = make_plan(slide_path, tile_size=64, roi=roi)
    outside = np.ones((96, 128), bool)
    outside[16:80, 32:96] = False
    np.testing.assert_array_equal(plan.tissue_mask, everywhere.tissue_mask & outside)


def test_regions_of_qupath_on_a_slide_with_bounds(slide_path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.geojson"
    own.write_text(json.dumps(feature(512, 256, 1024, 768)))
    expected = make_plan(slide_path, roi=own, tile_size=64)
    assert expected.tiles
    assert expected.warnings == ()
    roi = tmp_path / "qupath.geojson"
    roi.write_text(json.dumps(feature(112, 56, 624, 568, objectType="annotation")))
    config = run_config(roi=roi, tile_size=64)
    with open_slide(slide_path) as slide:
        bounds = Box(400, 200, 1800, 1400)
        slide._reader.metadata = replace(slide.metadata, bounds=bounds)
        plan = plan_slide(slide, SlideSource(slide_path, "n"), config)
    assert plan.tiles == expected.tiles
    (warning,) = plan.warnings
    assert warning.startswith("regions: counted from (400, 200)")


def test_a_region_outside_the_slide_is_refused(slide_path: Path, tmp_path: Path) -> None:
    roi = rectangle(tmp_path / "r.geojson", 60000, 100, 60500, 600)
    with pytest.raises(ConfigError, match="no region meets the slide") as caught:
        make_plan(slide_path, roi=roi)
    message = str(caught.value)
    assert message.startswith(f"{roi}: ")
    assert "x 60000 to 60500 and y 100 to 600, it x 0 to 2048 and y 0 to 1536" in message


def test_a_mask_of_another_shape_is_refused(slide_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (128, 128), 1).save(path)
    with pytest.raises(ConfigError, match=r"128 x 128 px has another shape .* 2048 x 1536 px"):
        make_plan(slide_path, {"mask": path})


def test_regions_that_cannot_be_read(slide_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.geojson").write_text("{")
    for source in (
        {"roi": tmp_path / "bad.geojson"},
        {"roi": tmp_path / "gone.geojson"},
        {"mask": tmp_path / "gone.png"},
        {"mask": tmp_path / "bad.geojson"},
    ):
        (path,) = source.values()
        with pytest.raises(ConfigError) as caught:
            make_plan(slide_path, source)
        assert str(caught.value).startswith(f"{path}: ")


def test_digest_of_regions(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    source = SlideSource(Path("s.svs"), "s")

    def digest(
        roi: Path | None = None, mask: Path | None = None, common: Path | None = None
    ) -> Any:
        named = SlideSource(source.path, "s", roi=roi, mask=mask)
        return regions_sha256(named, RunConfig(roi=common))

    assert digest() is None
    assert digest(one) == hashlib.sha256(hashlib.sha256(b"1").digest()).hexdigest()
    assert digest(one) == digest(common=one) == digest(one, common=other)
    assert len({digest(one), digest(other), digest(one, other), digest(other, one)}) == 4
    moved = tmp_path / "moved"
    one.rename(moved)
    assert digest(moved) == hashlib.sha256(hashlib.sha256(b"1").digest()).hexdigest()
    with pytest.raises(ConfigError, match="one: cannot read the region"):
        digest(one)


# --- slides with nothing to do, and slides that are refused


@pytest.mark.parametrize("white", [255, 243])
def test_an_empty_slide(tmp_path: Path, white: int) -> None:
    path = tmp_path / "empty.tif"
    pixels = np.full((768, 1024, 3), white, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    plan = make_plan(path, default_mpp=0.5)
    assert plan.tiles == ()
    assert plan.coords.shape == (0, 2)
    assert plan.tissue_fraction.shape == (0,)
    assert plan.warnings == ("no tissue found: the store is empty",)
    assert not plan.tissue_mask.any()
    assert len(make_plan(path, default_mpp=0.5, segmenter="none").tiles) == 12


@pytest.mark.parametrize("name", FLUORESCENCE)
def test_fluorescence_is_refused_or_warned_of(data_dir: Path, name: str) -> None:
    path = data_dir / "slides" / "fluorescence" / name
    with pytest.raises(ColourError, match=r"fluorescence.*leave it out.*--colour-check warn") as e:
        make_plan(path)
    assert str(e.value).startswith(f"{path}: ")
    plan = make_plan(path, colour_check="warn")
    assert plan.warnings[0] == "colours: a fluorescence image (light on dark), not brightfield"


def test_colours_decoded_wrongly_are_refused_or_warned_of(data_dir: Path) -> None:
    with pytest.raises(ColourError, match=r"glass is not neutral.*--colour-check warn") as caught:
        make_plan(data_dir / DICOM)
    assert DICOM in str(caught.value)
    assert "\n" not in str(caught.value)
    plan = make_plan(data_dir / DICOM, colour_check="warn")
    assert any(line.startswith("colours: the glass is not neutral") for line in plan.warnings)
    assert plan.tiles


def test_real_slides_are_planned(real_slides: list[Path]) -> None:
    for path in real_slides:
        plan = make_plan(path, default_mpp=0.5)
        assert plan.tiles
        assert plan.warnings == ()


def test_a_target_finer_than_the_slide(slide_path: Path) -> None:
    with pytest.raises(ResolutionError, match=r"0\.25 um/px.*only 0\.5.*--mpp 0\.5") as caught:
        make_plan(slide_path, mpp=0.25)
    assert str(caught.value).startswith(f"{slide_path}: ")
    with pytest.raises(ResolutionError):
        make_plan(slide_path, mpp=0.4499)
    assert make_plan(slide_path, mpp=0.4501).grid.level.index == 0


@pytest.mark.parametrize("options", [{"tile_size": 4096}, {"mpp": 8.0}, {"tile_size": 2100}])
def test_a_tile_larger_than_the_slide(slide_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(SlideError, match=r"smaller than one tile.*--tile-size") as caught:
        make_plan(slide_path, **options)
    assert caught.type is SlideError
    assert str(caught.value).startswith(f"{slide_path}: ")


def test_a_slide_of_16_px(data_dir: Path) -> None:
    path = data_dir / "slides" / "synthetic" / "openslide_small.svs"
    with pytest.raises(SlideError, match=r"16 x 16 px, smaller than one tile of 256"):
        make_plan(path)
    # One tile as large as the slide is served, and need not hold tissue.
    assert make_plan(path, tile_size=16, mpp=0.499, segmenter="none").tiles == (Tile(0, 0),)


@pytest.mark.parametrize(
    ("mpp", "level"), [(0.5, 0), (0.7, 0), (1.0, 0), (1.98, 0), (1.995, 1), (2.0, 1), (2.5, 1)]
)
def test_the_level_that_is_read(slide_path: Path, mpp: float, level: int) -> None:
    with open_slide(slide_path) as slide:
        grid = plan_grid(slide, run_config(mpp=mpp, tile_size=64))
    assert grid.level.index == level
    assert grid.downsample == mpp / 0.5


# --- damage


def test_tiles_over_an_unreadable_area_are_kept(faulty: Path, data_dir: Path) -> None:
    plan = make_plan(faulty / "zeroed_tiles.svs", tile_size=240, mpp=0.499)
    assert {Tile(6, 4), Tile(6, 5)} <= set(plan.tiles)
    (warning,) = plan.warnings
    assert warning.startswith("damaged: ")
    assert warning.endswith("% of the slide's area cannot be read")
    share = float(warning.split()[1].rstrip("%")) / 100
    least = 2 * 240 * 240 / (2220 * 2967)
    assert least * 0.95 <= share <= least + 8 * 256 * 256 / (2220 * 2967)
    intact = make_plan(data_dir / "slides/real/CMU-1-Small-Region.svs", tile_size=240, mpp=0.499)
    assert intact.warnings == ()
    lost = {
        tile
        for tile in set(intact.tiles) - set(plan.tiles)
        if not (5 <= tile.row <= 7 and 3 <= tile.column <= 6)
    }
    assert len(lost) <= 0.02 * len(intact.tiles)


def test_an_unreadable_area_outside_the_region_does_not_count(faulty: Path, tmp_path: Path) -> None:
    roi = rectangle(tmp_path / "r.geojson", 0, 0, 600, 600)
    plan = make_plan(faulty / "zeroed_tiles.svs", roi=roi)
    assert all(x < 600 and y < 600 for x, y in plan.coords.tolist())


def test_a_file_known_to_be_damaged_is_warned_of(faulty: Path) -> None:
    plan = make_plan(faulty / "truncated_95.svs")
    assert any(line.startswith("damaged: truncated") for line in plan.warnings)
    assert plan.tiles
