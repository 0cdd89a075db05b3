"""Slides that are replaced, overwritten, cut, touched or gone while a run reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.outcomes import Outcome
from tests.faults.trials import Say, tried
from tests.faults.truth import Go, held
from wsi_norm import RunConfig
from wsi_norm.runner import Event, ShardWritten, SlidePlanned

LIMIT = 120.0

CONFIG: dict[str, Any] = {"tile_size": 1024, "step": 160, "device": "cpu", "workers": 0}
"""As the truth was made, in one thread of the child."""

Change = Callable[[Path, Path], None]


def campaign(go: Go) -> Iterator[Outcome]:
    moments = (1, 99, 0, 2, 4, 6)[: go.times(6, 1)]
    changes = CHANGES if not go.quick else {name: CHANGES[name] for name in QUICK}
    for fault, change in changes.items():
        for moment in moments:
            yield replace(changed(go, change, moment), fault=f"slide {fault} during the run")


def replaced(slide: Path, other: Path) -> None:
    """As rsync and mv do."""
    copy = slide.with_suffix(".new")
    shutil.copy(other, copy)
    copy.replace(slide)


def overwritten(slide: Path, other: Path) -> None:
    """As cp does; of the same length, so that only times and bytes tell."""
    data = other.read_bytes()[: slide.stat().st_size].ljust(slide.stat().st_size, b"\0")
    with slide.open("r+b") as stream:
        stream.write(data)


def cut(slide: Path, other: Path) -> None:
    os.truncate(slide, slide.stat().st_size // 2)


def gone(slide: Path, other: Path) -> None:
    slide.unlink()


def touched(slide: Path, other: Path) -> None:
    """The same bytes once more: nothing is wrong, or at least nothing silent."""
    data = slide.read_bytes()
    slide.write_bytes(data)


CHANGES: dict[str, Change] = {
    "replaced": replaced,
    "overwritten": overwritten,
    "cut": cut,
    "gone": gone,
    "rewritten with the same bytes": touched,
}

QUICK = ("replaced",)


@dataclass
class Changer:
    """Does a change after so many shards of a run (0: once it is planned; 99: after the last)."""

    change: Change
    slide: Path
    other: Path
    moment: int
    left: int = 0
    shards: int = 0
    done: bool = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, SlidePlanned):
            self.left = event.tiles
        elif isinstance(event, ShardWritten):
            self.shards += 1
            self.left -= event.tiles
        else:
            return
        if not self.done and (self.shards >= self.moment or not self.left):
            self.done = True
            self.change(self.slide, self.other)


def run_changed(
    say: Say, slide: Path, other: Path, output: Path, change: Change | None, moment: int
) -> tuple[str, str]:
    """Status and error of the slide, changed on the way."""
    from wsi_norm import run

    changer = Changer(change, slide, other, moment) if change else None
    summary = run([slide], RunConfig(output=output, **CONFIG), changer)
    (result,) = summary.slides
    return result.status, " ".join([result.error or "", *result.warnings])


def changed(go: Go, change: Change, moment: int) -> Outcome:
    """A run over a changing slide; then one over the slide as it was."""
    right = {"first": go.truth["first"]}
    folder, output = go.place("changes"), go.place("changed")
    slide, whole, other = (
        folder / "first.svs",
        go.subjects / "first.svs",
        go.subjects / "second.svs",
    )
    shutil.copy2(whole, slide)
    run = tried(run_changed, slide, other, output, change, moment, limit=LIMIT)
    if not run.good:
        return Outcome("", False, hang=run.hang, why=run.error.strip()[-300:])
    status, said = run.value
    good = status in {"done", "damaged"}
    outcome = held(output, right, whole=status == "done")
    if good and not outcome.held:
        return replace(outcome, why=f"{moment} shards: {status}, but {outcome.why}")
    if not good and str(slide) not in said:
        return Outcome("", False, why=f"{moment} shards: {status}: {said}")
    slide.unlink(missing_ok=True)
    shutil.copy2(whole, slide)
    again = tried(run_changed, slide, other, output, None, 0, limit=LIMIT)
    if not again.good:
        return Outcome("", False, hang=again.hang, why=again.error.strip()[-300:])
    status, error = again.value
    outcome = held(output, right, whole=status in {"done", "skipped"})
    if outcome.held and status not in {"done", "skipped"}:
        return Outcome("", False, why=f"{moment} shards: and when it is back, {status}: {error}")
    back = f"{moment} shards: {said}; when it is back, {status}: {outcome.why}"
    return replace(outcome, why="" if outcome.held else back)
