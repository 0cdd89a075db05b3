"""report.html: a page without script or network, which holds all it shows as far as it can."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from wsi_norm.location import write_text
from wsi_norm.report import words
from wsi_norm.report.colour import Channel, Moments, channels, scale_of, strips, swatch
from wsi_norm.report.facts import StoreFacts, read_store
from wsi_norm.report.pictures import Shelf
from wsi_norm.report.results import RunSummary, SlideResult, Status
from wsi_norm.stages import Stage
from wsi_norm.store import TileFlag
from wsi_norm.text import shown

POSITIONS_SHOWN = 20

PICTURES_INSIDE = 200
"""Slides up to this many have their pictures in the page, which can be mailed then: 3 MB."""

DRAW_SECONDS = 20.0
"""How long a report may draw: more than a thousand slides, on an idle machine."""

URGENCY: tuple[Status, ...] = ("failed", "interrupted", "damaged", "skipped")
"""The order in which slides that need attention are listed."""


@dataclass(frozen=True)
class Card:
    """One slide: its result, what its store adds, its colours beside the target's."""

    index: int
    slide: SlideResult
    store: StoreFacts | None
    channels: tuple[Channel, ...]

    @property
    def swatch(self) -> str | None:
        """The slide's mean colour."""
        return swatch(self.store.meta.statistics) if self.store else None

    @property
    def unreadable_at(self) -> tuple[tuple[int, int], ...]:
        """Corners of unreadable tiles: all those the store knows, else those of this run."""
        return self.store.unreadable_at if self.store else self.slide.unreadable_at


@dataclass(frozen=True)
class Problem:
    """What one or more slides suffer from, and what to do about it."""

    status: Status
    cause: str
    more: str
    remedy: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    summary: RunSummary
    cards: tuple[Card, ...]

    @cached_property
    def problems(self) -> list[Problem]:
        """What needs attention, worst first; slides with the same trouble stand together."""
        found: dict[tuple[Status, str, str], list[Card]] = {}
        for card in self.cards:
            if not card.slide.ok or card.slide.status == "damaged":
                message, remedy = words.message(card.slide), words.remedy(card.slide)
                found.setdefault((card.slide.status, message, remedy), []).append(card)
        problems = [
            Problem(status, *words.split_cause(message), remedy, tuple(cards))
            for (status, message, remedy), cards in found.items()
        ]
        return sorted(problems, key=lambda problem: URGENCY.index(problem.status))

    @cached_property
    def totals(self) -> Mapping[str, Any]:
        """Of the summary."""
        return self.summary.totals()

    @property
    def statuses(self) -> Mapping[Status, int]:
        """Slides per status, in the order of `words.STATUSES`; only those there are."""
        counts = self.totals["slides"]
        return {status: counts[status] for status in words.STATUSES if status in counts}

    @property
    def has_pictures(self) -> bool:
        """Whether any slide has pictures, so that their legend is needed."""
        return any(card.store and card.store.before for card in self.cards)

    @property
    def without_pictures(self) -> int:
        """Slides with a store for whose pictures there was no time."""
        return sum(bool(card.store and not card.store.before) for card in self.cards)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the normaliser comes from."""
        return self.summary.model.get("provenance") or {}

    @property
    def normalizer(self) -> Mapping[str, Any]:
        """What normalised the tiles and, if that is a checkpoint, whether it was trained."""
        elsewhere = ("target", "provenance")
        facts = {
            key: value
            for key, value in self.summary.model.items()
            if value is not None and key not in elsewhere
        }
        if facts.get("checkpoint"):
            facts["trained"] = words.trained(self.provenance)
        return facts

    @property
    def memory(self) -> Mapping[str, str]:
        """Peak memory of each worker."""
        return {name: words.size(peak) for name, peak in self.summary.peak_memory_bytes.items()}


def write_html(summary: RunSummary, path: Path) -> Path:
    """Write the report; OSError if that fails.

    It is one file for up to `PICTURES_INSIDE` slides. The pictures of more lie in a folder beside
    it, `<name>_files`, and a browser loads them as they are looked at. There those of an earlier
    report are used again; an interrupted run, which has to end soon, draws no others. No report
    draws for longer than `DRAW_SECONDS`: the slides that are left have facts, and no pictures.

    Every store is opened once. A store that cannot be opened leaves its slide without pictures.
    """
    target = summary.model.get("target")
    shelf = Shelf(path.with_name(f"{path.stem}_files"))
    many = len(summary.slides) > PICTURES_INSIDE
    cards = _cards(summary, shelf if many else None, target)
    page = Page(summary, tuple(cards))
    text = _template().render(
        page=page,
        summary=summary,
        words=words,
        flags=TileFlag,
        stages=Stage,
        strips=strips(
            ((card.index, card.slide.name, card.channels) for card in page.cards), target
        ),
        target=target,
        target_swatch=swatch(target),
        scale=scale_of(target),
        positions_shown=POSITIONS_SHOWN,
        pictures_from="'self' file:" if many else "data:",
    )
    write_text(path, text)
    if not summary.interrupted:
        shelf.clear()
    return path


def _cards(summary: RunSummary, shelf: Shelf | None, target: Moments | None) -> Iterable[Card]:
    soon = shelf is not None and summary.interrupted
    until = time.monotonic() + DRAW_SECONDS
    for index, slide in enumerate(summary.slides, start=1):
        store = read_store(slide, shelf, known_only=soon or time.monotonic() > until)
        measured = store.meta.statistics if store else None
        yield Card(index, slide, store, channels(measured, target))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsi_norm", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "duration", "setting", "share", "size"):
        environment.filters[name] = getattr(words, name)
    return environment.get_template("report.html")
