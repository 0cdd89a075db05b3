"""report.html as a browser's parser sees it: what stands where, and what must not be there."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_norm.report import RunSummary, SlideResult, write_html
from wsi_norm.stages import Seconds
from wsi_norm.store import IccMeta, TileStore

MakeSummary = Callable[..., RunSummary]
VOID = {"img", "meta", "br", "link", "hr"}


class Document(HTMLParser):
    """Tags must balance; keeps text by the id of the section around it, attributes, images."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.images: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.attributes += [(tag, name, value) for name, value in values.items()]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.text).split())

    def values(self, name: str) -> list[str]:
        """Of every attribute of that name."""
        return [value for _, key, value in self.attributes if key == name]

    def has(self, tag: str) -> bool:
        """Whether a tag (with attributes) is there."""
        return any(found == tag for found, _, _ in self.attributes)


def section(words: str, start: str, end: str) -> str:
    """The text between two headings."""
    return words[words.index(start) : words.index(end, words.index(start))]


def decode(uri: str) -> Image.Image:
    prefix = "data:image/jpeg;base64,"
    assert uri.startswith(prefix)
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(prefix), validate=True)))


@pytest.fixture
def show(tmp_path: Path, make_summary: MakeSummary) -> Callable[..., Document]:
    """The report of some slides, parsed."""

    def show(*slides: SlideResult, **changes: Any) -> Document:
        path = write_html(make_summary(*slides, **changes), tmp_path / "report.html")
        return Document(path.read_text("utf-8"))

    return show


Show = Callable[..., Document]


def test_the_page_is_whole_and_every_link_leads_somewhere(
    show: Show, good: SlideResult, stored: SlideResult, failed: SlideResult
) -> None:
    page = show(good, stored, failed)
    assert len(page.ids) == len(set(page.ids))
    inner = [href[1:] for href in page.values("href") if href.startswith("#")]
    assert set(inner) <= set(page.ids)
    assert {"slide-1", "slide-2", "slide-3"} <= set(inner)
    assert set(page.values("aria-labelledby")) <= set(page.ids)
    assert set(page.values("scope")) == {"col", "colgroup", "row"}
    assert "en" in page.values("lang")


def test_nothing_comes_from_the_network(show: Show, stored: SlideResult) -> None:
    there = replace(stored, slide="https://host/a.svs", error="https://host/a.svs: gone")
    page = show(there, settings={"output": "https://host/out"})
    for tag, name, value in page.attributes:
        assert "://" not in value, (tag, name, value)
        if name in {"src", "href"}:
            assert value.startswith(("#", "data:image/jpeg;base64,")) or value in {
                "run.json",
                "slides.csv",
            }
        assert not name.startswith("on")
    assert not page.has("script")
    assert not page.has("link")
    style = (Path(__file__).parents[2] / "wsi_norm/report/report.css").read_text("utf-8")
    assert "url(" not in style
    assert "@import" not in style
    assert any(value.startswith("default-src 'none'") for value in page.values("content"))


@pytest.mark.parametrize("name", ["<script>x</script>", "a & b", "\"q\" 'r'", "Präparat 切片 №1"])
def test_names_are_text(name: str, show: Show, stored: SlideResult) -> None:
    page = show(
        replace(stored, name=name, slide=f"/s/{name}", error=f"{name} is bad", warnings=(name,)),
        settings={"output": name},
        versions={name: name},
    )
    assert not page.has("script")
    assert page.words.count(name) >= 6
    assert f"{name} before normalisation, tissue outlined" in page.values("alt")


def test_what_is_wrong_comes_first_and_the_worst_of_it_before_the_rest(
    show: Show, good: SlideResult, damaged: SlideResult, failed: SlideResult
) -> None:
    late = replace(failed, name="late", error="/s/d.svs: no mpp; give --default-mpp")
    page = show(good, damaged, failed, late)
    attention = section(page.words, "Needs attention", "All slides")
    order = ["the file is empty", "no mpp", "2 of 50 tiles cannot be read"]
    places = [attention.index(text) for text in order]
    assert places == sorted(places)
    assert "copy it again" in attention
    assert "give --default-mpp" in attention
    assert "--overwrite" in attention
    assert '"b"' not in attention
    assert page.words.index("Needs attention") < page.words.index("All slides")


def test_slides_with_the_same_trouble_stand_together(show: Show, failed: SlideResult) -> None:
    many = [
        replace(failed, name=f"n{i}", slide=f"/s/{i}", error=f"/s/{i}: no mpp; give one")
        for i in range(40)
    ]
    attention = section(show(*many).words, "Needs attention", "All slides")
    assert attention.count("no mpp") == 1
    assert "40 slides:" in attention
    assert "n39" in attention


def test_good_slides_need_no_attention(show: Show, good: SlideResult) -> None:
    assert "Needs attention" not in show(good).words


def test_a_skipped_slide_with_unreadable_tiles_needs_attention(
    show: Show, damaged: SlideResult
) -> None:
    words = show(replace(damaged, status="skipped")).words
    assert "2 of 50 tiles cannot be read" in section(words, "Needs attention", "All slides")


@pytest.mark.parametrize(
    ("status", "interrupted", "verdict"),
    [
        ("done", False, "Every slide is whole."),
        ("damaged", False, "Every tile could be read, but some files are damaged."),
        ("failed", False, "Some slides are not whole."),
        ("interrupted", True, "Interrupted. The same command continues"),
        ("planned", False, "A dry run. Nothing was written."),
    ],
)
def test_the_headline_follows_the_exit_status(
    status: str, interrupted: bool, verdict: str, make_summary: MakeSummary, tmp_path: Path
) -> None:
    slide = SlideResult("n", "/s/n.svs", "/o/n.zarr", status)  # type: ignore[arg-type]
    summary = make_summary(slide, interrupted=interrupted)
    page = Document(write_html(summary, tmp_path / "r.html").read_text("utf-8"))
    assert verdict in page.words
    assert f"Exit status {summary.exit_status} " in page.words


def test_figures_of_the_run(
    show: Show, good: SlideResult, damaged: SlideResult, failed: SlideResult
) -> None:
    words = show(
        good, damaged, failed, replace(good, counts={"tiles": 123_456}), seconds=4000.0
    ).words
    head = words[: words.index("Needs attention")]
    assert "1 ✕ failed" in head
    assert "1 ! damaged" in head
    assert "2 ✓ done" in head
    assert "Slides 4 Tiles 123,606 Written by this run 170 Unreadable tiles 2" in head
    assert "Time 1 h 07 min" in head
    assert words.index("✕ failed") < words.index("! damaged") < words.index("✓ done")


def test_a_card_shows_what_the_store_knows(
    show: Show, stored: SlideResult, trained: dict[str, Any]
) -> None:
    page = show(stored, model=trained)
    card = page.words[page.words.index("Slide by slide") :]
    assert "6,400 \u00d7 4,800 px, 5 MB" in card
    assert "0.2525 µm/px, from --default-mpp; tiles 0.5" in card
    assert "25 % of the area" in card
    assert "30, 25 unreadable, 5 at the edge" in card
    assert "L* 50.0 ± 10.0 61.5 ± 14.5" in card
    assert "b* -15.0 ± 3.0 -14.5 ± 6.2" in card
    assert {"background:#8040ff", "background:#b28099"} <= set(page.values("style"))
    row = section(page.words, "All slides", "Slide by slide")
    assert "30 25 0 5 0 0 25 % 1.0" in row
    assert "15.0 0.2525 default openslide" in row


def test_unreadable_tiles_are_those_of_the_store_and_the_first_20(
    show: Show, stored: SlideResult
) -> None:
    words = show(stored).words
    assert "(0, 4000) (32, 4000)" in words
    assert "(608, 4000)" in words
    assert "(640, 4000)" not in words
    assert "and 5 more" in words


def test_without_a_store_the_run_knows_its_unreadable_tiles(
    show: Show, damaged: SlideResult
) -> None:
    page = show(damaged)
    assert "(960, 1440) (1200, 1440)" in page.words
    assert "more, by flag 1" not in page.words
    assert page.images == []


def test_pictures_decode_and_differ(show: Show, stored: SlideResult) -> None:
    before, after = show(stored).images
    pictures = [decode(image["src"]) for image in (before, after)]
    for image, picture in zip((before, after), pictures, strict=True):
        assert picture.size == (200, 150) == (int(image["width"]), int(image["height"]))
        assert image["loading"] == "lazy"
        assert image["alt"].startswith("case ")
    assert np.ptp(np.asarray(pictures[1])) < 10
    assert np.ptp(np.asarray(pictures[0])) > 100


def test_a_damaged_store_leaves_no_picture(
    show: Show, stored: SlideResult, store_path: Path
) -> None:
    assert len(show(stored).images) == 2
    (store_path / "thumbnail/c/0/0/0").write_bytes(b"no")
    page = show(stored)
    assert page.images == []
    assert "25 of 30 tiles cannot be read" in page.words


def test_the_checkpoint_says_whether_it_was_trained(
    show: Show, good: SlideResult, trained: dict[str, Any]
) -> None:
    words = show(good, model=trained, settings={"mpp": 0.5}).words
    end = words[words.index("How it was made") :]
    assert f"sha256 {'2' * 64}" in end
    assert "preset paper" in end
    assert "trained yes" in end
    assert "mpp 0.5" in end
    assert "numpy 2" in end
    assert "host:1 " in end
    assert "licence CC0" in end
    assert "target" not in end
    untold = {"checkpoint": "a.pt", "sha256": "1" * 64}
    assert "trained not stated" in show(good, model=untold).words


def test_without_a_checkpoint_there_is_no_target_and_nothing_trained(
    show: Show, stored: SlideResult
) -> None:
    """As of `none`, which leaves colour alone."""
    model = {"normalizer": "none", "sha256": None, "target": None, "provenance": {}}
    page = show(stored, replace(stored, name="other"), model=model)
    assert "L* 50.0 ± 10.0 \u2013" in page.words
    assert "the band is the target's" not in page.words
    assert "trained" not in page.words
    assert "Its provenance" not in page.words


def test_a_dry_run_shows_what_is_expected(show: Show) -> None:
    slide = SlideResult(
        "n",
        "/s",
        "/o",
        "planned",
        counts={"tiles": 500},
        expected_bytes=2_500_000_000,
        expected_seconds=125.0,
        icc=IccMeta(status="applied", description="ScanScope <v1>", sha256="0" * 64),
    )
    page = show(slide, peak_memory_bytes={})
    assert "ICC profile applied (ScanScope <v1>)" in page.words
    assert "2.5 GB, 2 min 05 s of one worker" in page.words
    assert "Needs attention" not in page.words


def test_an_interrupted_run_says_how_far_it_came(show: Show, stored: SlideResult) -> None:
    note = "not finished; run the command again"
    half = replace(stored, status="interrupted", error=note, counts={}, tiles_written=7)
    never = replace(half, name="never", spent=Seconds(), tiles_written=0)
    page = show(half, never, interrupted=True)
    assert "30, 7 of them written by this run" in page.words
    assert len(page.images) == 2
    attention = section(page.words, "Needs attention", "All slides")
    assert "2 slides: case , never not finished run the command again" in attention


def test_no_slides_at_all(show: Show) -> None:
    assert "There were no slides." in show().words


def test_the_same_summary_gives_the_same_bytes(
    stored: SlideResult, make_summary: MakeSummary, tmp_path: Path
) -> None:
    first = write_html(make_summary(stored), tmp_path / "a.html").read_bytes()
    time.sleep(1 - time.time() % 1)  # into the next second: a clock time would show
    assert write_html(make_summary(stored), tmp_path / "b.html").read_bytes() == first


def test_many_slides_stay_small_and_each_store_is_opened_once(
    stored: SlideResult,
    make_summary: MakeSummary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thumbnail of the store is noise, the worst that JPEG can meet."""
    opened = []
    open_store = TileStore.open.__func__  # type: ignore[attr-defined]

    def counted(cls: type, path: str, allow_partial: bool = False) -> Any:
        opened.append(path)
        return open_store(cls, path, allow_partial)

    monkeypatch.setattr(TileStore, "open", classmethod(counted))
    slides = [replace(stored, name=f"slide {i}") for i in range(60)]
    path = write_html(make_summary(*slides), tmp_path / "r.html")
    page = Document(path.read_text("utf-8"))
    assert len(page.images) == 120
    assert len(opened) == 60
    assert path.stat().st_size < 60 * 15_000
    assert len(re.findall("slide-60", path.read_text("utf-8"))) >= 4
