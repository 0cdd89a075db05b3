"""What is said of damaged files: an error's class and its one line, and nothing on the terminal."""

import gc
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_norm.errors import ReadError, ResolutionError, SlideError, UnreadableSlideError
from wsi_norm.geometry import Region
from wsi_norm.slide import open_slide
from wsi_norm.slide.diagnose import tiff_damage, tifffile_complaints, why_unreadable

READERS = ("auto", "direct", "openslide", "tiffslide")
REFUSED = {
    # file: error, cause, remedy
    "truncated_50.svs": (UnreadableSlideError, "truncated TIFF", "copy it again"),
    "zero_byte.svs": (UnreadableSlideError, "the file is empty", "copy it again"),
    "html_text.svs": (UnreadableSlideError, "an HTML page, not a slide", "download it again"),
    "bad_magic.svs": (UnreadableSlideError, "not a TIFF (starts with b'XXXX')", "copy it again"),
    "mpp_removed.svs": (ResolutionError, "no usable mpp", "--default-mpp"),
    "mpp_garbage.svs": (ResolutionError, "no usable mpp", "--default-mpp"),
    "mpp_10x.svs": (ResolutionError, "mpp 4.99 but objective power 20", "--slides-csv"),
}
READ = {"truncated_95.svs", "zeroed_tiles.svs"}


def refusal(path: Path, reader: str) -> tuple[type[BaseException], str]:
    with pytest.raises(SlideError) as caught:
        open_slide(path, reader)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return caught.type, message


def test_every_fault_is_tested(faulty: Path) -> None:
    assert {path.name for path in faulty.glob("*.svs")} == {*REFUSED, *READ}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", REFUSED)
def test_faults_that_refuse_a_slide(
    faulty: Path, name: str, reader: str, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, cause, remedy = REFUSED[name]
    error, message = refusal(faulty / name, reader)
    assert error is expected
    assert cause in message
    assert remedy in message
    if expected is UnreadableSlideError:
        for asked in ("openslide", "tiffslide") if reader == "auto" else (reader,):
            assert f"{asked}: " in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("reader", READERS)
def test_a_refused_file_is_closed(faulty: Path, reader: str) -> None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        for name in REFUSED:
            with pytest.raises(SlideError):
                open_slide(faulty / name, reader)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("reader", READERS)
def test_text_under_a_slides_name(
    data_dir: Path, reader: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error, message = refusal(data_dir / "slides" / "broken" / "histolab-broken.svs", reader)
    assert error is UnreadableSlideError
    assert "not a TIFF" in message
    assert "copy it again" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
def test_a_slide_cut_at_95_percent_is_read_but_not_in_silence(
    faulty: Path, data_dir: Path, reader: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = faulty / "truncated_95.svs"
    with open_slide(path, reader) as slide:
        assert slide.reader == "tiffslide"
        assert slide.damage is not None
        assert "truncated or damaged TIFF" in slide.damage
        assert str(path.stat().st_size) in slide.damage
        assert ("openslide: " in slide.damage) is (reader == "auto")
        assert "\n" not in slide.damage
        region = Region(700, 1200, 0, 300, 200)
        pixels = slide.read(region)
        assert slide.overview(8.0).readable.all()
    with open_slide(data_dir / "slides/real/CMU-1-Small-Region.svs", "openslide") as slide:
        np.testing.assert_array_equal(pixels, slide.read(region))
    assert capfd.readouterr() == ("", "")


def test_openslide_alone_refuses_it(faulty: Path) -> None:
    error, message = refusal(faulty / "truncated_95.svs", "openslide")
    assert error is UnreadableSlideError
    assert "truncated or damaged TIFF" in message
    assert "copy it again" in message


@pytest.mark.parametrize("reader", READERS)
def test_zeroed_tiles_open_and_fail_where_they_are(
    faulty: Path, reader: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_slide(faulty / "zeroed_tiles.svs", reader) as slide:
        assert slide.damage is None
        with pytest.raises(ReadError, match=r"zeroed_tiles\.svs: cannot read 9 x 9 px"):
            slide.read(Region(1000, 1500, 0, 9, 9))
        assert not slide.overview(8.0).readable.all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_slide_is_never_taken_for_whole(
    slide_path: Path,
    tmp_path: Path,
    share: float,
    reader: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "cut.svs"
    data = slide_path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    try:
        with open_slide(path, reader) as slide:
            noticed = slide.damage is not None or not slide.overview(2.0).readable.all()
    except SlideError as error:
        noticed = str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert noticed
    assert capfd.readouterr() == ("", "")


# --- the words


def test_whole_files_have_no_damage(real_slides: list[Path], slide_path: Path) -> None:
    for path in [*real_slides, slide_path]:
        assert tiff_damage(path) is None


def test_data_beyond_the_end(slide_path: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    assert tiff_damage(path) is None
    with tifffile.TiffFile(path) as tiff:
        last = max(tiff.pages[0].dataoffsets)
    path.write_bytes(path.read_bytes()[: last + 10])
    damage = tiff_damage(path)
    assert damage == f"truncated TIFF: 1 of its tiles lie beyond the file's {last + 10} bytes"
    assert why_unreadable(path) == f"{damage}; copy it again"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.svs", b"", "the file is empty"),
        ("a.png", b"", "the file is empty"),
        ("a.svs", b"  \n<!DOCTYPE html><html>", "an HTML page"),
        ("a.svs", b"<HTML><body>403</body>", "an HTML page"),
        ("a.svs", b"hello", "not a TIFF (starts with b'hell')"),
        ("a.NDPI", b"\x00\x01\x02\x03", "not a TIFF (starts with b'\\x00\\x01\\x02\\x03')"),
        ("a.mrxs", b"hello", "not a slide format"),
        ("a.svs", b"II*\0", "truncated"),
        ("a.svs", b"II*\0\xff\xff\xff\x7f", "truncated TIFF"),
        ("a.svs", b"II+\0\x08\0\0\0", "truncated"),
        ("a.svs", b"MM\0*\0\0\0\x08\0\x05", "truncated"),
    ],
)
def test_why(
    tmp_path: Path, name: str, data: bytes, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert words in why_unreadable(path)
    assert refusal(path, "auto")[0] is UnreadableSlideError
    assert capfd.readouterr() == ("", "")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    assert why_unreadable(tmp_path / "a.svs") == (
        "No such file or directory; check the file and its permissions"
    )


def test_a_tag_that_tifffile_trips_over(tmp_path: Path) -> None:
    """Its TypeError says that the file is damaged; it used to end the run."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        bits, counts = (tiff.pages.first.tags[tag] for tag in ("BitsPerSample", "TileByteCounts"))
    data = bytearray(path.read_bytes())
    data[bits.valueoffset] = 9  # 9, 8 and 8 bits
    data[counts.offset + 1] = 0xFF  # the tag's number: there are no byte counts
    path.write_bytes(data)
    assert "damaged TIFF (" in str(tiff_damage(path))
    assert refusal(path, "auto")[0] is UnreadableSlideError


def test_a_whole_tiff_that_is_no_slide(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, np.zeros((4, 64, 64), np.complex64), photometric="minisblack")
    assert why_unreadable(path).startswith("a TIFF that no reader understands")


def test_threads_do_not_hear_each_others_complaints(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tifffile")
    inside, outside = threading.Event(), threading.Event()

    def other() -> list[str]:
        with tifffile_complaints() as complaints:
            inside.set()
            assert outside.wait(10)
            logger.error("<TiffPage> theirs")
        return complaints

    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(other)
        assert inside.wait(10)
        with tifffile_complaints() as ours:
            logger.error("<TiffPage> ours")
        logger.error("nobody collects this")
        outside.set()
        assert (ours, theirs.result()) == (["ours"], ["theirs"])
    assert [record.message for record in caplog.records] == ["nobody collects this"]


def test_complaints_are_collected_and_the_logger_left_as_it_was(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("tifffile")
    before = (logger.propagate, list(logger.handlers), logger.level)
    with tifffile_complaints() as complaints, tifffile_complaints() as inner:
        logger.error("<TiffPages @8> it is cut")
        logger.warning("never mind")
    assert complaints == inner == ["it is cut"]
    with pytest.raises(KeyError), tifffile_complaints():
        raise KeyError
    assert (logger.propagate, logger.handlers, logger.level) == before
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    logger.error("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]
