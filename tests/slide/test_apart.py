"""Readers in a process of their own: the same pixels, and crashes that are one slide's failure."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wsi_norm.choices import READERS
from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Level, Region
from wsi_norm.slide import apart, open_slide
from wsi_norm.slide.readers.base import RGB, Metadata, Refused
from wsi_norm.slide.readers.image import ImageReader


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No process is left to the next test."""
    yield
    apart.end_idle()


class Fragile(ImageReader):
    """A grey image whose place in the file's name says where its reader does what."""

    name = "fragile"

    def __init__(self, path: str) -> None:
        self._does = Path(path).stem
        self.metadata = Metadata((Level(0, 512, 512, 1.0),))
        self._pixels = np.full((512, 512, 3), 128, np.uint8)
        self._do("opening")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        if left:
            self._do("reading")
        return super().read(level, left, top, width, height)

    def _do(self, when: str) -> None:
        match self._does.split():
            case ["segfault", at] if at == when:
                os.kill(os.getpid(), signal.SIGSEGV)
            case ["abort", at] if at == when:
                os.abort()
            case ["exit", at] if at == when:
                os._exit(3)
            case ["bug", at] if at == when:
                raise ZeroDivisionError("oops")
            case ["refuse", at] if at == when:
                raise Refused("not today") if at == "opening" else ReadError("not there")
            case ["wait", at] if at == when:
                threading.Event().wait()
            case ["print", at] if at == when:
                os.write(1, b"a library's word")


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A reader that other processes find, in this file."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    READERS.add("fragile", f"{Path(__file__).stem}:Fragile")
    yield "fragile"
    READERS.remove("fragile")


def file(folder: Path, does: str) -> Path:
    path = folder / f"{does}.svs"
    path.write_bytes(b"")
    return path


ASIDE = Region(9, 0, 0, 20, 20)


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_the_same_slide_as_in_this_process(slide_path: Path, reader: str) -> None:
    with (
        open_slide(slide_path, reader) as here,
        open_slide(slide_path, reader, apart=True) as slide,
    ):
        assert (slide.metadata, slide.damage) == (here.metadata, here.damage)
        assert (slide.reader, slide.reader_version) == (here.reader, here.reader_version)
        assert slide.block_px == here.block_px
        for region in (Region(0, 0, 0, 256, 256), Region(999, 777, 1, 300, 1), ASIDE):
            np.testing.assert_array_equal(slide.read(region), here.read(region))
        np.testing.assert_array_equal(slide.overview(8.0).image, here.overview(8.0).image)


@pytest.mark.parametrize(
    ("does", "how"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "exit status 3")]
)
def test_a_crash_is_one_slides_failure(tmp_path: Path, fragile: str, does: str, how: str) -> None:
    crashing = file(tmp_path, f"{does} opening")
    with pytest.raises(UnreadableSlideError) as caught:
        open_slide(crashing, fragile, default_mpp_um=0.5, apart=True)
    assert str(caught.value).startswith(f"{crashing}: its reader crashed ({how})")
    whole = file(tmp_path, "whole")
    crashing = file(tmp_path, f"{does} reading")
    with (
        open_slide(whole, fragile, default_mpp_um=0.5, apart=True) as other,
        open_slide(crashing, fragile, default_mpp_um=0.5, apart=True) as slide,
    ):
        assert (slide.read(Region(0, 0, 0, 20, 20)) == 128).all()
        with pytest.raises(UnreadableSlideError, match=how):
            slide.read(ASIDE)
        assert (other.read(ASIDE) == 128).all()


@pytest.mark.parametrize("when", ["opening", "reading"])
def test_a_reader_that_never_answers_is_ended(
    tmp_path: Path, fragile: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    whole, waiting = file(tmp_path, "whole"), file(tmp_path, f"wait {when}")
    open_slide(whole, fragile, default_mpp_um=0.5, apart=True).close()  # the process is up
    monkeypatch.setattr(apart, "READER_SECONDS", 0.5)
    with (
        pytest.raises(UnreadableSlideError) as caught,
        open_slide(waiting, fragile, default_mpp_um=0.5, apart=True) as slide,
    ):
        slide.read(ASIDE)
    assert str(caught.value).startswith(f"{waiting}: its reader did not answer within 0.5 s")
    assert not [process for process in apart._living if not process.is_alive]
    monkeypatch.setattr(apart, "READER_SECONDS", 60.0)  # another process has to start
    with open_slide(whole, fragile, default_mpp_um=0.5, apart=True) as slide:
        assert (slide.read(ASIDE) == 128).all()


def test_what_is_raised_there_is_raised_here(tmp_path: Path, fragile: str) -> None:
    with pytest.raises(UnreadableSlideError, match="fragile: not today"):
        open_slide(file(tmp_path, "refuse opening"), fragile, default_mpp_um=0.5, apart=True)
    slide = open_slide(file(tmp_path, "refuse reading"), fragile, default_mpp_um=0.5, apart=True)
    with slide, pytest.raises(ReadError, match=r"cannot read 20 x 20 px at \(9, 0\).*not there"):
        slide.read(ASIDE)
    slide = open_slide(file(tmp_path, "bug reading"), fragile, default_mpp_um=0.5, apart=True)
    with slide, pytest.raises(ZeroDivisionError, match="oops") as caught:
        slide.read(ASIDE)
    assert "_do" in caught.value.__notes__[0]


def test_what_a_library_prints_is_no_answer(
    tmp_path: Path, fragile: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_slide(
        file(tmp_path, "print reading"), fragile, default_mpp_um=0.5, apart=True
    ) as slide:
        assert (slide.read(ASIDE) == 128).all()
    assert capfd.readouterr().out == ""


def test_a_process_is_kept_for_the_next_slide_unless_it_died(tmp_path: Path, fragile: str) -> None:
    whole = file(tmp_path, "whole")
    for _ in range(2):
        open_slide(whole, fragile, default_mpp_um=0.5, apart=True).close()
    (process,) = apart._idle
    os.kill(process._pid, signal.SIGKILL)
    while process.is_alive:
        time.sleep(0.01)
    with open_slide(whole, fragile, default_mpp_um=0.5, apart=True) as slide:
        assert (slide.read(ASIDE) == 128).all()
    assert apart._idle[-1] is not process


def test_signals_to_the_group_are_not_for_the_reader(tmp_path: Path, fragile: str) -> None:
    with open_slide(file(tmp_path, "whole"), fragile, default_mpp_um=0.5, apart=True) as slide:
        for stop in apart.STOPS:
            os.kill(slide._reader._process._pid, stop)  # type: ignore[attr-defined]
        assert (slide.read(ASIDE) == 128).all()


def test_a_reader_that_was_added_as_an_object_stays_here(tmp_path: Path) -> None:
    READERS.add("own", Fragile)
    try:
        with open_slide(file(tmp_path, "whole"), "own", default_mpp_um=0.5, apart=True) as slide:
            assert isinstance(slide._reader, Fragile)
    finally:
        READERS.remove("own")
