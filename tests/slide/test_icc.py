"""ICC profiles: pixels are to the bit what ImageCms makes of them, whoever reads the slide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset

from tests import dicoms
from tests.builders import TCGA, refusal
from tests.profiles import P3, SRGB, by_imagecms, matrix_profile, relabelled, srgb_profile
from wsi_norm import open_slide
from wsi_norm.errors import UnreadableSlideError
from wsi_norm.geometry import Region
from wsi_norm.slide import apart, icc, read_image
from wsi_norm.slide.icc import KEPT, NO_PROFILE, examined, icc_of

PROFILE = matrix_profile()
NOISE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
PROBLEMS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is damaged"),
    "no profile": (b"no profile at all", "is damaged"),
    "cut": (PROFILE[:200], "is damaged"),
    "no tags": (PROFILE[:128] + bytes(len(PROFILE) - 128), "cannot be followed"),
    "of CMYK": (relabelled(PROFILE, b"CMYK"), "is of CMYK pixels"),
    "of grey": (relabelled(PROFILE, b"GRAY"), "is of GRAY pixels"),
    "of Lab": (relabelled(PROFILE, b"Lab "), "is of Lab pixels"),
    "huge": (PROFILE + bytes(icc.MAX_BYTES), "has 17 MB"),
    "channels that change places": (matrix_profile((P3[2], P3[0], P3[1])), "is absurd"),
    "black alone": (matrix_profile(gamma=200.0), "is absurd"),
}


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No process is left to the next test."""
    yield
    apart.end_idle()


@pytest.fixture
def forgotten() -> None:
    """No profile is known; else tests share the table of the one."""
    icc._kept.clear()


def picture() -> np.ndarray:
    """Pink and violet on glass, that fades into noise."""
    blobs = dicoms.picture(512)
    blobs[-128:] = np.random.default_rng(1).integers(0, 256, (128, 512, 3), np.uint8)
    return blobs


def write_tiff(path: Path, profile: bytes | None = PROFILE, **how: Any) -> Path:
    how = {"compression": "jpeg", "compressionargs": {"level": 95}, **how}
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 2):
            tiff.write(
                np.asarray(Image.fromarray(picture()).reduce(factor)),
                tile=(128, 128),
                photometric="rgb",
                metadata=None,
                subfiletype=int(factor > 1),
                resolution=(20000 / factor, 20000 / factor),
                resolutionunit="CENTIMETER",
                iccprofile=profile,
                **how,
            )
    return path


# --- profiles


@pytest.mark.parametrize(("primaries", "gamma"), [(P3, 2.2), (SRGB, 1.8)])
def test_pixels_are_what_imagecms_makes_of_them(primaries: Any, gamma: float) -> None:
    profile = matrix_profile(primaries, gamma)
    used = examined(profile, "apply")
    assert (used.status, used.problem) == ("applied", None)
    assert used.sha256 == hashlib.sha256(profile).hexdigest()
    for pixels in (NOISE, picture(), NOISE[::2, ::-1]):
        expected = by_imagecms(pixels, profile)
        assert (expected != pixels).mean() > 0.1
        np.testing.assert_array_equal(used.to_srgb(pixels), expected)


def test_what_is_srgb_already_changes_nothing() -> None:
    used = examined(srgb_profile(), "apply")
    assert (used.status, used.description, used.table) == ("srgb", "sRGB built-in", None)
    assert used.to_srgb(NOISE) is NOISE
    moved = by_imagecms(NOISE, srgb_profile()).astype(int) - NOISE
    assert np.abs(moved).max() <= icc.ROUNDING


@pytest.mark.parametrize(("profile", "why"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_cannot_be_applied_is_said(profile: bytes, why: str) -> None:
    used = examined(profile, "apply")
    assert (used.status, used.table) == ("unusable", None)
    assert used.problem is not None
    assert used.problem.startswith(f"its ICC profile {why}")
    assert "\n" not in used.problem
    assert used.to_srgb(NOISE) is NOISE
    ignored = examined(profile, "ignore")
    assert (ignored.status, ignored.problem, ignored.sha256) == ("ignored", None, used.sha256)


@pytest.mark.usefixtures("forgotten")
def test_the_last_profiles_are_remembered() -> None:
    asked = []

    def examine(profile: bytes, choice: Any) -> Any:
        asked.append(profile)
        return examined(profile, choice)

    profiles = [PROFILE + bytes([number]) for number in range(KEPT + 1)]
    for profile in (*profiles[:KEPT], *profiles[:KEPT]):
        icc_of(profile, "ignore", examine)
    assert asked == profiles[:KEPT]
    icc_of(profiles[KEPT], "ignore", examine)
    assert len(icc._kept) == KEPT
    icc_of(profiles[0], "ignore", examine)
    assert asked[KEPT:] == [profiles[KEPT], profiles[0]]
    assert icc_of(None, "apply", examine) is NO_PROFILE


# --- slides


@pytest.mark.usefixtures("forgotten")
def test_a_profile_is_followed_where_a_crash_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiff(tmp_path / "a.tif")
    monkeypatch.delattr(icc, "_table")  # of this process, not of the other
    with open_slide(path, icc="apply", apart=True) as slide:
        assert slide.icc.table is not None
        expected = by_imagecms(NOISE, PROFILE)
        np.testing.assert_array_equal(slide.icc.to_srgb(NOISE), expected)


@pytest.mark.parametrize(
    ("reader", "away"),
    [
        ("direct", False),
        ("direct", True),
        ("openslide", False),
        ("tifffile", False),
        ("tiffslide", False),
    ],
)
def test_every_reader_hands_it_over(tmp_path: Path, reader: str, away: bool) -> None:
    path = write_tiff(tmp_path / "a.tif")
    with (
        open_slide(path, reader, apart=away) as plain,
        open_slide(path, reader, icc="apply", apart=away) as slide,
    ):
        assert (plain.icc.status, slide.icc.status) == ("ignored", "applied")
        assert slide.icc.sha256 == hashlib.sha256(PROFILE).hexdigest()
        assert slide.warnings == plain.warnings
        for region in (Region(0, 0, 0, 512, 512), Region(64, 32, 1, 100, 90)):
            expected = by_imagecms(plain.read(region), PROFILE)
            np.testing.assert_array_equal(slide.read(region), expected)
        beyond = slide.read(Region(480, 480, 0, 64, 64))
        assert (beyond[32:] == 255).all()
        assert (beyond[:, 32:] == 255).all()
        whole = plain.overview(0.5).image, slide.overview(0.5).image
        np.testing.assert_array_equal(whole[1], by_imagecms(whole[0], PROFILE))


def test_plain_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path, icc_profile=PROFILE)
    expected = by_imagecms(picture(), PROFILE)
    np.testing.assert_array_equal(read_image(path), picture())
    np.testing.assert_array_equal(read_image(path, "apply"), expected)
    with open_slide(path, default_mpp_um=0.5, icc="apply") as slide:
        assert slide.reader == "image"
        np.testing.assert_array_equal(slide.read(Region(0, 0, 0, 512, 512)), expected)


def test_dicom(tmp_path: Path) -> None:
    light = Dataset()
    light.OpticalPathIdentifier, light.ICCProfile = "1", PROFILE + bytes(len(PROFILE) % 2)
    dicoms.write_slide(tmp_path / "s", OpticalPathSequence=[light])
    with (
        open_slide(tmp_path / "s") as plain,
        open_slide(tmp_path / "s", icc="apply") as slide,
    ):
        assert (slide.reader, slide.icc.status) == ("openslide", "applied")
        whole = Region(0, 0, 0, dicoms.EDGE, dicoms.EDGE)
        np.testing.assert_array_equal(slide.read(whole), by_imagecms(plain.read(whole), PROFILE))


def test_a_real_slide_with_a_profile(data_dir: Path) -> None:
    """Its scanner's software wrote sRGB: there is nothing to apply."""
    with open_slide(data_dir / TCGA, default_mpp_um=0.25, icc="apply") as slide:
        assert (slide.icc.status, slide.icc.description) == ("srgb", "sRGB IEC61966-2.1")


def test_what_is_left_out_stays_white(tmp_path: Path) -> None:
    """A profile whose white is not pure, and a tile without bytes."""
    profile = matrix_profile(SRGB, 1.0)  # linear: glass would be brighter still
    path = write_tiff(tmp_path / "a.tif", profile)
    with tifffile.TiffFile(path) as tiff:
        counts = tiff.pages.first.tags["TileByteCounts"]
        data = bytearray(path.read_bytes())
    data[counts.valueoffset : counts.valueoffset + 4] = bytes(4)
    path.write_bytes(data)
    with open_slide(path, "tifffile", icc="apply") as slide:
        assert slide.metadata.left_out
        assert (slide.read(Region(0, 0, 0, 128, 128)) == 255).all()


@pytest.mark.parametrize(
    ("problem", "away"), [("no profile", False), ("of CMYK", False), ("no tags", True)]
)
def test_a_slide_whose_profile_cannot_be_applied_warns(
    tmp_path: Path, problem: str, away: bool
) -> None:
    profile, why = PROBLEMS[problem]
    path = write_tiff(tmp_path / "a.tif", profile)
    with (
        open_slide(path, apart=away) as plain,
        open_slide(path, icc="apply", apart=away) as slide,
    ):
        assert plain.warnings == ()
        (warning,) = slide.warnings
        assert warning.startswith(f"its ICC profile {why}")
        assert warning.endswith("its colours stay")
        whole = Region(0, 0, 0, 512, 512)
        np.testing.assert_array_equal(slide.read(whole), plain.read(whole))


def _cmyk(path: Path) -> Path:
    Image.fromarray(picture()).convert("CMYK").save(
        path.with_suffix(".jpg"), icc_profile=relabelled(PROFILE, b"CMYK")
    )
    return path.with_suffix(".jpg")


def _damaged(path: Path) -> Path:
    Image.fromarray(picture()).save(path, icc_profile=b"no profile at all")
    return path


@pytest.mark.parametrize(("write", "why"), [(_cmyk, "is of CMYK"), (_damaged, "is damaged")])
def test_an_image_whose_profile_cannot_be_applied_is_refused(
    tmp_path: Path, write: Callable[[Path], Path], why: str
) -> None:
    path = write(tmp_path / "a.png")
    read_image(path)
    said = refusal(read_image, path, "apply", kind=UnreadableSlideError)
    assert why in said
    assert "set icc to ignore" in said
