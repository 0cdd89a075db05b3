"""Whether a slide that changes is noticed, and one that does not is let be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from tests.builders import refusal
from tests.dicoms import write_slide
from wsi_norm.errors import SlideError
from wsi_norm.slide import slide_files

BYTES = 3_000_000


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A file of noise: what is in it is nobody's concern here."""
    path = tmp_path / "case.svs"
    path.write_bytes(np.random.default_rng(0).bytes(BYTES))
    return path


def overwritten(path: Path) -> None:
    """In place and in the middle, with the old length and times."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(BYTES // 3)
        stream.write(b"\0" * (BYTES // 3))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """As rsync and mv do, by a file of the same length and times."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(np.random.default_rng(1).bytes(BYTES))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def grown(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


@pytest.mark.parametrize(
    "change", [overwritten, replaced, grown, lambda path: os.truncate(path, BYTES - 1)]
)
def test_a_change_is_named(slide: Path, change: Callable[[Path], None]) -> None:
    files = slide_files(slide)
    files.check(slide)
    change(slide)
    message = refusal(files.check, slide, kind=SlideError)
    assert message.startswith(f"{slide}: changed during the run; ")
    assert "--overwrite" in message


def test_a_touch_and_a_copy_of_itself_are_no_change(slide: Path) -> None:
    files = slide_files(slide)
    os.utime(slide, (1, 1))
    files.check(slide)
    copy = slide.with_name("copy")
    shutil.copyfile(slide, copy)
    copy.replace(slide)
    files.check(slide)
    slide.unlink()
    files.check(slide)  # the reader says so
    assert slide_files(slide).files == ()


def test_the_digest_is_of_names_sizes_and_samples(slide: Path, tmp_path: Path) -> None:
    before = slide_files(slide).sha256
    os.utime(slide, (1, 1))
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy(slide, tmp_path / "elsewhere"))
    assert slide_files(slide).sha256 == slide_files(copy).sha256 == before
    overwritten(copy)
    assert slide_files(copy).sha256 != before
    assert slide_files(slide.rename(tmp_path / "other.svs")).sha256 != before


@pytest.mark.parametrize(
    ("name", "companion"),
    [
        ("a.mrxs", "a/Data0003.dat"),
        ("a.vms", "a_map2.jpg"),
    ],
)
def test_what_lies_beside_a_slide_counts(tmp_path: Path, name: str, companion: str) -> None:
    slide, beside = tmp_path / name, tmp_path / companion
    beside.parent.mkdir(exist_ok=True)
    for file in (slide, beside, tmp_path / "b.dat"):
        file.write_bytes(b"as it was")
    files = slide_files(slide)
    (tmp_path / "b.dat").write_bytes(b"another slide's")
    files.check(slide)
    beside.write_bytes(b"different")
    assert f"changed during the run ({beside.name})" in refusal(files.check, slide, kind=SlideError)


@pytest.mark.parametrize("named", ["folder", "file"])
def test_all_instances_of_a_dicom_slide_count(tmp_path: Path, named: str) -> None:
    write_slide(tmp_path, "a", levels=2)
    instances = sorted(tmp_path.glob("a*.dcm"))
    if named == "file":
        write_slide(tmp_path, "b")
    slide = tmp_path if named == "folder" else instances[0]
    files = slide_files(slide)
    assert [file.path for file in files.files] == instances
    for other in tmp_path.glob("b*.dcm"):
        other.write_bytes(b"another slide's")
    files.check(slide)
    instances[-1].write_bytes(instances[-1].read_bytes()[:-2] + b"xx")
    assert f"({instances[-1].name})" in refusal(files.check, slide, kind=SlideError)


def test_a_url_has_no_files() -> None:
    files = slide_files(UPath("memory://bucket/a.svs"))
    assert (files.files, files.sha256) == ((), None)
