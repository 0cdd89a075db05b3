"""The generated slide, read through OpenSlide and TiffSlide."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tiffslide
from numpy.typing import NDArray

from wsi_norm.synthetic import BLUE_PURPLE, PALE_BROWN, write_synthetic_slide

SIZE = (1536, 1024)
MPP_UM = 0.5


def read(path: Path, level: int = 0) -> NDArray[np.int16]:
    """Return a whole level through OpenSlide, int16 (height, width, 3)."""
    with openslide.OpenSlide(path) as slide:
        region = slide.read_region((0, 0), level, slide.level_dimensions[level])
    return np.asarray(region.convert("RGB")).astype(np.int16)


def write(path: Path, **settings: object) -> Path:
    given = {"width": SIZE[0], "height": SIZE[1], "mpp_um": MPP_UM} | settings
    return write_synthetic_slide(path, **given)


def is_glass(pixels: NDArray[np.int16]) -> NDArray[np.bool_]:
    return pixels.min(axis=-1) > 230


def is_ink(pixels: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Bluer than green and greener than red, which no mixture of both stains is."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return (green > red + 20) & (blue > green + 30)


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("synthetic") / "slide.svs")


@pytest.fixture(scope="module")
def clean_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("synthetic") / "clean.svs", pen=False)


def test_readers_agree_on_the_facts(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as one, tiffslide.TiffSlide(slide_path) as other:
        assert one.properties["openslide.vendor"] == "aperio"
        assert other.properties["tiffslide.vendor"] == "aperio"
        assert one.level_dimensions == other.level_dimensions == (SIZE, (384, 256), (96, 64))
        assert one.level_downsamples == pytest.approx(other.level_downsamples)
        assert one.associated_images.keys() == {"thumbnail"}
        for axis in "xy":
            assert float(one.properties[f"openslide.mpp-{axis}"]) == MPP_UM
            assert float(other.properties[f"tiffslide.mpp-{axis}"]) == MPP_UM
        assert float(one.properties["openslide.objective-power"]) == 20
        assert float(other.properties["tiffslide.objective-power"]) == 20


@pytest.mark.parametrize(
    ("location", "level", "size"),
    [
        ((0, 0), 0, (300, 300)),
        ((517, 333), 0, (256, 256)),
        ((1300, 900), 0, (236, 124)),
        ((0, 0), 1, (384, 256)),
        ((0, 0), 2, (96, 64)),
    ],
)
def test_readers_agree_on_pixels(
    slide_path: Path, location: tuple[int, int], level: int, size: tuple[int, int]
) -> None:
    with openslide.OpenSlide(slide_path) as one, tiffslide.TiffSlide(slide_path) as other:
        expected = np.asarray(one.read_region(location, level, size).convert("RGB"), np.int16)
        actual = np.asarray(other.read_region(location, level, size).convert("RGB"), np.int16)
    assert np.abs(expected - actual).max() <= 2


def test_levels_show_the_same_picture(slide_path: Path) -> None:
    means = read(slide_path).reshape(256, 4, 384, 4, 3).mean(axis=(1, 3))
    assert np.abs(means - read(slide_path, level=1)).mean() < 3


def test_bytes_depend_on_the_settings_alone(tmp_path: Path, slide_path: Path) -> None:
    assert write(tmp_path / "same.svs").read_bytes() == slide_path.read_bytes()
    assert write(tmp_path / "other.svs", seed=1).read_bytes() != slide_path.read_bytes()


def test_file_says_neither_when_nor_where_it_was_written(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        assert not {"tiff.Software", "tiff.DateTime"} & slide.properties.keys()
    assert str(slide_path.parent).encode() not in slide_path.read_bytes()


def test_blocks_meet_without_a_seam(clean_path: Path) -> None:
    pixels = read(clean_path).sum(axis=-1)
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=0)
    # 505..519 lie round the first border of blocks, at 512, which is a border of JPEG blocks too.
    jpeg_borders = steps[7::8]
    assert steps[511] < 1.5 * np.median(jpeg_borders[55:73])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("width", "height", "mpp_um"), [(1024, 768, 0.25), (900, 1100, 0.5)])
def test_slide_holds_glass_tissue_and_nuclei(
    tmp_path: Path, width: int, height: int, mpp_um: float, seed: int
) -> None:
    pixels = read(
        write(
            tmp_path / "slide.svs", width=width, height=height, mpp_um=mpp_um, seed=seed, pen=False
        )
    )
    glass = is_glass(pixels)
    assert pixels.shape == (height, width, 3)
    assert 0.15 < glass.mean() < 0.8
    assert np.median(pixels[glass], axis=0) == pytest.approx(243, abs=1)
    assert 0.005 < (pixels[..., 0] < 140).mean() < 0.2


def test_pen_is_drawn_on_request(slide_path: Path, clean_path: Path) -> None:
    inked, clean = read(slide_path), read(clean_path)
    assert is_ink(inked).mean() > 0.02
    assert is_ink(clean).mean() < 1e-4
    under_ink = is_ink(inked) | (np.abs(inked - clean).max(axis=-1) > 60)
    assert is_glass(clean)[under_ink].any()
    assert (~is_glass(clean))[under_ink].any()


def test_sections_differ_as_their_stains_do(tmp_path: Path, clean_path: Path) -> None:
    def colours(path: Path) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        left, right = np.hsplit(read(path), 2)
        return left[~is_glass(left)].mean(axis=0), right[~is_glass(right)].mean(axis=0)

    left, right = colours(clean_path)
    assert np.linalg.norm(left - right) > 15
    assert left[2] - left[0] > right[2] - right[0] + 10
    alike = colours(write(tmp_path / "alike.svs", pen=False, stains=(PALE_BROWN, PALE_BROWN)))
    assert np.linalg.norm(alike[0] - alike[1]) < np.linalg.norm(left - right) / 2


def test_stain_vectors_are_scaled_to_their_strength() -> None:
    densities = BLUE_PURPLE.densities()
    assert densities.shape == (2, 3)
    assert np.linalg.norm(densities, axis=1) == pytest.approx([1.0, 0.9])
    assert densities[0] / densities[0, 0] == pytest.approx([1, 0.704 / 0.650, 0.286 / 0.650])


@pytest.mark.parametrize(
    "settings", [{"levels": 0}, {"width": 255}, {"mpp_um": 0.0}, {"stains": ()}]
)
def test_impossible_slides_are_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"none\.svs: cannot draw"):
        write(tmp_path / "none.svs", **settings)
    assert not (tmp_path / "none.svs").exists()


def test_one_level_is_a_slide(tmp_path: Path) -> None:
    with openslide.OpenSlide(write(tmp_path / "flat.svs", levels=1)) as slide:
        assert slide.level_dimensions == (SIZE,)
