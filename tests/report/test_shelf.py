"""Reports of more slides than a page can hold: pictures beside it, drawn once, cleared away."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wsi_norm.report import RunSummary, SlideResult, html, write_html
from wsi_norm.report.pictures import Jpeg, Shelf
from wsi_norm.store import TileStore

MakeSummary = Callable[..., RunSummary]
SRC = re.compile(r'<img src="([^"]*)" width="(\d+)" height="(\d+)"[^>]* loading="lazy"')


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two slides are many."""
    monkeypatch.setattr(html, "PICTURES_INSIDE", 1)


def say(store: TileStore, **changes: Any) -> None:
    """Let a store say something else of itself, as one without digests can."""
    none = dict.fromkeys(("arrays_sha256", "identity_sha256", "content_sha256"))
    store._set_meta(store.meta.model_copy(update={**none, **changes}))


@pytest.fixture
def whole(stored: SlideResult) -> SlideResult:
    """The result of a store without unreadable tiles, which says how much of it is tissue."""
    store = TileStore.open(stored.store)
    say(store, tissue_share=0.25)
    return replace(stored, status="done", error=None, counts={"tiles": 30}, unreadable_at=())


@pytest.fixture
def slides(whole: SlideResult, tmp_path: Path) -> list[SlideResult]:
    """Two slides with a store each."""
    other = tmp_path / "other.zarr"
    shutil.copytree(whole.store, other)
    store = TileStore.open(other)
    slide = store.meta.slide.model_copy(update={"name": "other"})
    say(store, slide=slide)
    return [whole, replace(whole, name="other", store=str(other))]


def shown(page: Path) -> list[str]:
    """The pictures of a page, which have to be there in the size that it states."""
    found = SRC.findall(page.read_text("utf-8"))
    for name, width, height in found:
        with Image.open(page.parent / name) as image:
            assert image.size == (int(width), int(height))
    return [name for name, _, _ in found]


def test_pictures_lie_beside_the_page_and_load_as_they_are_seen(
    slides: list[SlideResult], make_summary: MakeSummary, tmp_path: Path
) -> None:
    page = write_html(make_summary(*slides), tmp_path / "report.html")
    names = shown(page)
    assert len(set(names)) == 4
    assert all(name.startswith("report_files/") for name in names)
    text = page.read_text("utf-8")
    assert "data:image" not in text
    assert "<script" not in text
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'; img-src 'self' file:;" in policy[1].replace("&#39;", "'")
    assert "25 % of the area" in text


def test_one_slide_has_them_inside(
    slides: list[SlideResult], make_summary: MakeSummary, tmp_path: Path
) -> None:
    """And a folder that a larger run has left goes away."""
    write_html(make_summary(*slides), tmp_path / "report.html")
    page = write_html(make_summary(slides[0]), tmp_path / "report.html")
    assert page.read_text("utf-8").count("data:image/jpeg") == 2
    assert "img-src data:;" in page.read_text("utf-8")
    assert not (tmp_path / "report_files").exists()


def test_finished_stores_are_drawn_once(
    slides: list[SlideResult],
    make_summary: MakeSummary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = make_summary(*slides)
    first = write_html(summary, tmp_path / "report.html").read_bytes()

    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr(TileStore, "open", opened)
    assert write_html(summary, tmp_path / "report.html").read_bytes() == first


def test_another_store_has_other_pictures_and_the_old_ones_go(
    slides: list[SlideResult], make_summary: MakeSummary, tmp_path: Path
) -> None:
    first = shown(write_html(make_summary(*slides), tmp_path / "report.html"))
    say(TileStore.open(slides[1].store), white=(0.9, 0.9, 0.9))
    second = shown(write_html(make_summary(*slides), tmp_path / "report.html"))
    assert second[:2] == first[:2]
    assert not set(second[2:]) & set(first)
    assert {f"report_files/{file.name}" for file in (tmp_path / "report_files").iterdir()} == set(
        second
    )


def test_unreadable_tiles_are_drawn(
    stored: SlideResult, slides: list[SlideResult], make_summary: MakeSummary, tmp_path: Path
) -> None:
    page = write_html(make_summary(stored, slides[1]), tmp_path / "report.html")
    assert len(set(shown(page))) == 4
    assert "(0, 4000)" in page.read_text("utf-8")


def test_an_interrupted_run_draws_nothing_and_keeps_what_is_there(
    slides: list[SlideResult],
    make_summary: MakeSummary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has to end within seconds, whatever the number of slides."""
    pair = shown(write_html(make_summary(*slides), tmp_path / "report.html"))
    for name in pair[2:]:
        (tmp_path / name).unlink()

    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr(TileStore, "open", opened)
    page = write_html(make_summary(*slides, interrupted=True), tmp_path / "report.html")
    assert shown(page) == pair[:2]
    assert "other" in page.read_text("utf-8")


def test_a_damaged_store_leaves_no_picture(
    slides: list[SlideResult], make_summary: MakeSummary, tmp_path: Path
) -> None:
    (Path(slides[0].store) / "thumbnail/c/0/0/0").write_bytes(b"no")
    assert len(shown(write_html(make_summary(*slides), tmp_path / "report.html"))) == 2


def test_a_shelf_finds_what_it_has_whole(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    image = Image.new("RGB", (4, 3))
    image.save(tmp_path / "a.jpg")
    jpeg = Jpeg((tmp_path / "a.jpg").read_bytes(), 4, 3)
    assert shelf.find("0") is None
    put = shelf.put("0", jpeg, jpeg)
    assert Shelf(tmp_path / "shelf").find("0") == put
    (tmp_path / "shelf" / "0-after.jpg").write_bytes(b"")
    assert shelf.find("0") is None
    (tmp_path / "shelf" / "0-after.jpg").unlink()
    assert shelf.find("0") is None
    (tmp_path / "shelf" / "notes.txt").write_text("mine")
    Shelf(tmp_path / "shelf").clear()
    assert [file.name for file in (tmp_path / "shelf").iterdir()] == ["notes.txt"]


def test_a_report_draws_for_a_bounded_time(
    slides: list[SlideResult],
    make_summary: MakeSummary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Facts stay, pictures wait for the next report."""
    monkeypatch.setattr(html, "DRAW_SECONDS", -1.0)
    page = write_html(make_summary(*slides), tmp_path / "report.html")
    assert shown(page) == []
    text = page.read_text("utf-8")
    assert "2 slides have no pictures" in text
    assert text.count("25 % of the area") == 2
    monkeypatch.setattr(html, "DRAW_SECONDS", 60.0)
    assert len(shown(write_html(make_summary(*slides), tmp_path / "report.html"))) == 4
