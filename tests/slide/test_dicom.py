"""DICOM by its headers: slides by series, and what is none."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    generate_uid,
)

from tests.dicoms import MPP_UM, picture, write_image, write_report, write_slide
from wsi_norm.errors import UnreadableSlideError
from wsi_norm.slide import dicom, open_slide
from wsi_norm.slide.readers.base import Refused


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ".dicom", "", ".1", ".840"])
def test_a_slide_is_its_series_whatever_its_files_are_called(tmp_path: Path, suffix: str) -> None:
    series = write_slide(tmp_path, "b", suffix, levels=3)
    other = write_slide(tmp_path, "a", suffix)
    found = dicom.contents(tmp_path.iterdir())
    assert found.slides == {
        other: [tmp_path / f"a{level}{suffix}" for level in range(2)],
        series: [tmp_path / f"b{level}{suffix}" for level in range(3)],
    }
    assert (found.others, found.broken) == ({}, [])


def test_images_beside_a_slide_come_after_its_levels(tmp_path: Path) -> None:
    series = write_slide(tmp_path, "level")
    for flavour in ("LABEL", "OVERVIEW", "THUMBNAIL"):
        path = tmp_path / f"a {flavour}.dcm"
        write_image(path, picture(128), MPP_UM, series, flavour=flavour)
    (files,) = dicom.contents(tmp_path.iterdir()).slides.values()
    assert [path.stem for path in files] == [
        *("level0", "level1", "a LABEL", "a OVERVIEW", "a THUMBNAIL")
    ]


def test_what_is_no_slide_is_named(tmp_path: Path) -> None:
    write_slide(tmp_path)
    write_report(tmp_path / "annotations.dcm")
    write_image(tmp_path / "label", picture(128), MPP_UM, generate_uid(), flavour="LABEL")
    found = dicom.contents(tmp_path.iterdir())
    assert len(found.slides) == 1
    assert found.others == {
        tmp_path / "annotations.dcm": "Comprehensive SR Storage",
        tmp_path / "label": "LABEL image without a slide",
    }


def test_a_dicomdir_is_no_slide(tmp_path: Path) -> None:
    """It names its class in the file's meta information alone."""
    write_report(tmp_path / "DICOMDIR")
    data = dcmread(tmp_path / "DICOMDIR")
    del data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID
    data.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    data.DirectoryRecordSequence = []
    data.save_as(tmp_path / "DICOMDIR")
    found = dicom.contents(tmp_path.iterdir())
    assert found.others == {tmp_path / "DICOMDIR": "Media Storage Directory Storage"}


def test_files_that_only_look_like_dicom(tmp_path: Path) -> None:
    for name in ("README", "empty.dcm", "text.DCM", "._level0.dcm", "notes.txt", "Makefile"):
        (tmp_path / name).write_bytes(b"" if name == "empty.dcm" else b"x" * 200)
    (tmp_path / "header.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "folder.dcm").mkdir()
    found = dicom.contents(tmp_path.iterdir())
    assert (found.slides, found.others) == ({}, {})
    assert [path.name for path in found.broken] == ["empty.dcm", "header.dcm", "text.DCM"]


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_headers_of_every_encoding(tmp_path: Path, syntax: str) -> None:
    series = generate_uid()
    write_image(tmp_path / "a.dcm", picture(128), MPP_UM, series, syntax=syntax)
    header = dicom.read_header(tmp_path / "a.dcm")
    assert (header.series, header.transfer_syntax, header.flavour) == (series, syntax, "VOLUME")
    assert header.is_level


def test_series_of(tmp_path: Path) -> None:
    series = write_slide(tmp_path / "one")
    write_slide(tmp_path / "two", "a")
    write_slide(tmp_path / "two", "b")
    write_report(tmp_path / "one" / "report.dcm")
    assert dicom.series_of(tmp_path / "one") == series
    assert dicom.series_of(tmp_path / "one" / "level1.dcm") == series
    for name in ("two", "one/report.dcm", "gone.dcm", "gone"):
        assert dicom.series_of(tmp_path / name) is None


def test_why_a_file_is_refused(tmp_path: Path) -> None:
    write_report(tmp_path / "report.dcm")
    assert dicom.why_refused(tmp_path / "report.dcm") == (
        "a DICOM object that is no whole slide (Comprehensive SR Storage); leave it out"
    )
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM\x02\x00")
    assert "a damaged header" in dicom.why_refused(tmp_path / "cut.dcm")
    data = write_image(
        tmp_path / "a.dcm", picture(128), MPP_UM, generate_uid(), syntax=ExplicitVRLittleEndian
    )
    assert "OpenSlide does not open; copy" in dicom.why_refused(tmp_path / "a.dcm")
    data.compress(RLELossless)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "transfer syntax RLE Lossless" in dicom.why_refused(tmp_path / "a.dcm")


def test_damaged_headers_are_refused_and_nothing_else(tmp_path: Path) -> None:
    write_slide(tmp_path, levels=1)
    whole = (tmp_path / "level0.dcm").read_bytes()[:900]
    file = tmp_path / "damaged.dcm"
    rng = random.Random(0)
    for _ in range(500):
        data = bytearray(whole[: rng.randrange(132, len(whole))])
        for _ in range(rng.randrange(8)):
            data[rng.randrange(132, len(data) + 1) - 1] = rng.randrange(256)
        file.write_bytes(data)
        with suppress(Refused):
            dicom.read_header(file)
        dicom.contents([file])


def test_a_slide_without_its_full_resolution_is_damaged(tmp_path: Path) -> None:
    """Levels below the first are RESAMPLED; without the first, a slide opens at half its size."""
    series = generate_uid()
    full = picture()
    write_image(tmp_path / "0.dcm", full, 0.5, series)
    half = np.asarray(Image.fromarray(full).reduce(2))
    kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    write_image(tmp_path / "1.dcm", half, 1.0, series, ImageType=kind)
    with open_slide(tmp_path) as slide:
        assert (slide.dimensions, slide.damage) == ((384, 384), None)
    (tmp_path / "0.dcm").unlink()
    with open_slide(tmp_path) as slide:
        assert slide.dimensions == (192, 192)
        assert "its full resolution is missing" in str(slide.damage)


def test_a_pipe_among_the_files_of_a_slide_is_not_opened(tmp_path: Path) -> None:
    write_slide(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableSlideError, match="a pipe or a device, not a file"):
        open_slide(tmp_path)
    with pytest.raises(UnreadableSlideError, match="a pipe or a device, not a file"):
        open_slide(tmp_path / "pipe")
