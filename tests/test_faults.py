"""Bad input: for each fault one line: which file, what, what to do; other slides are done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.builders import exit_status
from tests.dicoms import write_report, write_slide
from wsi_norm import TileStore
from wsi_norm.store import TileFlag

FAULTS = {
    "truncated_50.svs": ("truncated TIFF", "copy it again"),
    "zero_byte.svs": ("the file is empty", "copy it again"),
    "html_text.svs": ("HTML page", "download it again"),
    "bad_magic.svs": ("not a TIFF", "copy it again"),
    "mpp_removed.svs": ("no usable mpp", "--default-mpp"),
    "mpp_garbage.svs": ("no usable mpp", "--default-mpp"),
    "mpp_10x.svs": ("mpp 4.99 but objective power 20", "--slides-csv"),
    "histolab-broken.svs": ("not a TIFF", "copy it again"),
    "openslide_boxes.tiff": ("mpp 352.778", "--slides-csv"),
    "openslide_small.svs": ("smaller than one tile", "--tile-size"),
    "openslide_unreadable.svs": ("smaller than one tile", "--tile-size"),
    "cmu-1-small-region-dicom": ("the glass is not neutral", "--colour-check warn"),
    "test3-DAPI-2-387.ndpi": ("fluorescence", "leave it out"),
    "test3-TRITC-2-560.ndpi": ("fluorescence", "leave it out"),
    "missing.svs": ("no such file", "check the path"),
}


def status(*arguments: object) -> int:
    """Exit status of `wsi-norm run` in this process."""
    return exit_status("run", "-n", 0, "--device", "cpu", *arguments)


@pytest.fixture(scope="module")
def batch(data_dir: Path, faulty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every fault; the good slide comes last."""
    folder = tmp_path_factory.mktemp("batch")
    for path in faulty.glob("*.svs"):
        shutil.copy(path, folder)
    for pattern in ("broken/*", "dicom/*", "fluorescence/*", "synthetic/*"):
        for path in (data_dir / "slides").glob(pattern):
            (folder / path.name).symlink_to(path)
    return folder


def test_every_fault_is_one_line_and_the_other_slides_are_done(
    batch: Path, slide_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [*FAULTS, "zeroed_tiles.svs", "truncated_95.svs"]
    slides = [batch / name for name in names]
    assert status(*slides, slide_path, "-o", tmp_path) == 1
    err = capfd.readouterr().err
    told = [line for line in err.splitlines() if not line.startswith("[")]  # but for the progress
    lines = {line for line in told if line.startswith(("error: ", "warning: "))}
    assert len(lines) == len(told), f"something else was printed: {err}"
    for name, words in FAULTS.items():
        (line,) = (line for line in lines if f"/{name}" in line)
        assert all(word in line for word in words), line
    results = {
        Path(slide["slide"]).name: slide
        for slide in json.loads((tmp_path / "run.json").read_text())["slides"]
    }
    assert {name for name, slide in results.items() if slide["status"] == "failed"} == set(FAULTS)
    assert results["synthetic.svs"]["status"] == "done"
    assert len(TileStore.open(tmp_path / "synthetic.zarr")) > 20
    check_zeroed(tmp_path, results["zeroed_tiles.svs"])
    truncated = results["truncated_95.svs"]
    assert truncated["status"] == "damaged"
    assert truncated["unreadable"] == 0
    assert "truncated or damaged TIFF" in truncated["warnings"][0]
    assert "tiffslide although other readers refuse it" in truncated["warnings"][0]


def check_zeroed(output: Path, result: dict[str, object]) -> None:
    """Tiles over the zeroed bytes are flagged and white, and no others."""
    store = TileStore.open(output / "zeroed_tiles.zarr")
    unreadable = (store.flags & TileFlag.UNREADABLE) != 0
    assert result["status"] == "damaged"
    assert result["unreadable"] == unreadable.sum() == 6
    assert "6 of 55 tiles cannot be read" in str(result["error"])
    x, y = store.coords.T
    edge = 256 * store.meta.tiling.downsample
    over = (x + edge > 960) & (x < 1440) & (y + edge > 1440) & (y < 1680)
    np.testing.assert_array_equal(unreadable, over)
    for row in np.flatnonzero(unreadable):
        assert (store[int(row)] == 255).all()
    for row in np.flatnonzero(~unreadable):
        assert not (store[int(row)] == 255).all()


def test_a_slide_that_never_reads_is_said_to_be_unreadable(
    batch: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(batch / "openslide_unreadable.svs", "--tile-size", 16, "-o", tmp_path) == 1
    line = capfd.readouterr().err
    assert "Bogus marker length" in line
    assert "copy it again" in line


def test_a_damaged_slide_equals_the_whole_one_where_it_can_be_read(
    batch: Path, real_slides: list[Path], tmp_path: Path
) -> None:
    """Tile statistics, so that what cannot be read has no part in the other tiles."""
    settings = ("--statistics", "tile", "-q")
    assert status(batch / "zeroed_tiles.svs", *settings, "-o", tmp_path) == 1
    assert status(batch / "truncated_95.svs", *settings, "-o", tmp_path) == 0
    assert status(real_slides[0], *settings, "-o", tmp_path) == 0
    whole = TileStore.open(tmp_path / "CMU-1-Small-Region.zarr")
    for name in ("zeroed_tiles", "truncated_95"):
        damaged = TileStore.open(tmp_path / f"{name}.zarr")
        rows = {tuple(xy): row for row, xy in enumerate(whole.coords.tolist())}
        for row, (xy, flags) in enumerate(zip(damaged.coords.tolist(), damaged.flags, strict=True)):
            if not flags & TileFlag.UNREADABLE:
                np.testing.assert_array_equal(damaged[row], whole[rows[tuple(xy)]])


def test_wrong_colours_accepted_are_still_said(
    batch: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dicom = batch / "cmu-1-small-region-dicom"
    assert status(dicom, "--colour-check", "warn", "-o", tmp_path) == 0
    assert "warning: " in (err := capfd.readouterr().err)
    assert "the glass is not neutral" in err
    store = TileStore.open(tmp_path / "cmu-1-small-region-dicom.zarr")
    assert any("not neutral" in warning for warning in store.meta.warnings)


def test_a_slide_on_which_the_native_reader_crashes(
    slide_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """OpenSlide 4.0.1 dies of tiles whose places are promised, and not there."""
    write_slide(tmp_path / "sparse", DimensionOrganizationType="TILED_SPARSE")
    assert status(tmp_path / "sparse", slide_path, "-o", tmp_path / "out") == 1
    (line,) = (x for x in capfd.readouterr().err.splitlines() if x.startswith("error: "))
    assert f"{tmp_path}/sparse/level0.dcm: " in line
    results = json.loads((tmp_path / "out" / "run.json").read_text())["slides"]
    assert [slide["status"] for slide in results] == ["failed", "done"]


def test_dicom_objects_that_are_no_slides_are_said_and_kept_in_the_report(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_slide(tmp_path / "case", levels=1)
    write_report(tmp_path / "case" / "annotations.dcm")
    assert status(tmp_path / "case", "-o", tmp_path / "out", "--tile-size", 64) == 0
    (passed_over,) = json.loads((tmp_path / "out" / "run.json").read_text())["passed_over"]
    assert "annotations.dcm (Comprehensive SR Storage)" in passed_over
    assert f"warning: {passed_over}" in capfd.readouterr().err


STEERING = "\x1b]0;owned\x07=1\nerror: forged\x1b[2J.svs"
SHOWN = r"\x1b]0;owned\x07=1\nerror: forged\x1b[2J.svs"


def test_a_name_steers_neither_terminal_nor_report_nor_spreadsheet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, line breaks, formulas; run.json has the names as they are."""
    names = [STEERING, "=1+1.svs", "<b>.svs"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert status(*(tmp_path / name for name in names), "-o", tmp_path / "out") == 1
    shown = "".join(capfd.readouterr())
    table = (tmp_path / "out/slides.csv").read_text("utf-8")
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert SHOWN in shown
    assert SHOWN in page
    for text in (shown, table, page):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert not any(line.startswith("error: forged") for line in text.splitlines())
    assert "<b>.svs" not in page
    assert len(table.splitlines()) == 1 + len(names)
    assert any(line.startswith("'=1+1,") for line in table.splitlines())
    told = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert [Path(slide["slide"]).name for slide in told["slides"]] == names
