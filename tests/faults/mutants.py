"""Mutants of slides: headers and tiles, read by a run and held to OpenSlide and zlib.

A tile of a mutant is right if it is as before the harm, or as OpenSlide reads the mutant; else it
has to be flagged, or the slide said to be damaged. White where there was tissue has to be said,
even where OpenSlide agrees. What no reader can know (a JPEG with other bytes) is thus not held
against us.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import zarr

from tests.faults import subjects
from tests.faults.outcomes import Outcome
from tests.faults.subjects import SUBJECTS, Subject
from tests.faults.trials import Say, tried
from tests.faults.truth import Go
from tests.slide.oracle import composed
from wsi_norm import RunConfig
from wsi_norm.report import SlideResult
from wsi_norm.runner import Event

BATCH = 50
LIMIT = 60.0
"""Seconds from one slide to the next."""

MOST_MB = 2500
FINE = {"done", "damaged", "empty"}
SAID = 1 | 0xF0
"""Flags that say that a tile is not what the slide shows: unreadable, and any that may come."""

GLASS = 250
"""Mean grey level above which a tile may be white by right."""

CONFIG: dict[str, Any] = {
    "workers": 0,
    "device": "cpu",
    "normalizer": "none",
    "segmenter": "none",
    "mpp": 0.5,
    "override_mpp": 0.5,
    "colour_check": "warn",
    "max_unreadable": 1.0,
    "report": False,
}
"""Tiles as they are, all of them, on the pixels of level 0."""


@dataclass(frozen=True)
class Mutant:
    """One harmed file, where it was written, and its unharmed sibling."""

    fault: str
    path: Path
    whole: Path
    checked: bool = False


def campaign(go: Go) -> Iterator[Outcome]:
    rng = go.rng("mutants")
    for subject in SUBJECTS:
        originals = go.place("originals")
        whole = subject.write(originals)
        fields, tiles, data = subject.fields(whole), subject.tiles(whole), whole.read_bytes()
        makers = {"header": subjects.header_mutant, "tiles": subjects.tile_mutant}
        for part, make in makers.items():
            harmed = [make(data, subject, fields, tiles, rng) for _ in range(go.times(200, 5))]
            yield from tried_out(go, subject, part, whole, harmed)
        empty = [*subjects.zero_lengths(whole)]
        yield from tried_out(go, subject, "a tile of 0 bytes", whole, empty[: go.times(9, 2)])


def tried_out(
    go: Go, subject: Subject, part: str, whole: Path, harmed: Sequence[bytes]
) -> Iterator[Outcome]:
    """Mutants of a file, in batches of one run each."""
    fault = f"{subject.name}: {part}"
    known = pristine(go, whole)
    for start in range(0, len(harmed), BATCH):
        folder, mutants = go.place("mutants"), []
        for number, data in enumerate(harmed[start : start + BATCH], start):
            place = folder / f"{number:05}"
            shutil.copytree(whole.parent, place)
            (place / whole.name).write_bytes(data)
            named = place / whole.name
            if whole.suffix != ".dcm":
                named = named.rename(folder / f"{number:05}{whole.suffix}")
            mutants.append(Mutant(fault, named, whole, subject.checked))
        yield from batch(go, mutants, known)


Pristine = dict[tuple[int, int], np.ndarray]


def pristine(go: Go, whole: Path) -> Pristine:
    """Tiles of the unharmed file, which OpenSlide reads the same."""
    output = go.place("pristine")
    run = tried(run_all, [whole], output, limit=LIMIT)
    assert run.good, run.error
    assert [status for _, status, _, _ in run.said] == ["done"], run.said
    (store,) = output.glob("*.zarr")
    tiles = dict(stored(store))
    with openslide.OpenSlide(whole) as slide:
        for (x, y), (pixels, _) in tiles.items():
            np.testing.assert_array_equal(pixels, on_white(slide, x, y, len(pixels)))
    return {corner: pixels for corner, (pixels, _) in tiles.items()}


def batch(go: Go, mutants: list[Mutant], known: Pristine) -> Iterator[Outcome]:
    """What became of each; a slide on which the run hung or died is found by running it alone."""
    output = go.place("of_mutants")
    by_path = {str(mutant.path): mutant for mutant in mutants}
    run = tried(run_all, [mutant.path for mutant in mutants], output, limit=LIMIT)
    alone = len(mutants) == 1
    if run.peak_mb > MOST_MB and not alone:
        run.said = []  # one of them took it
    told = {by_path[path]: (status, said, store) for path, status, said, store in run.said}
    judged = judgements(told, known)
    for mutant in mutants:
        if mutant not in told and not alone:
            yield from batch(go, [mutant], known)
        elif mutant not in told:
            saw = f"{mutant.path.name}: {run.error.strip()[-200:]}"
            yield Outcome(mutant.fault, False, hang=run.hang, why=saw)
        else:
            yield outcome(mutant, told[mutant][:2], judged.get(mutant, ""), run.peak_mb)


def outcome(mutant: Mutant, result: tuple[str, str], wrong: str, peak_mb: float) -> Outcome:
    status, said = result
    problem = wrong
    if "a bug" in said:
        problem = said
    elif (
        status not in FINE and mutant.path.stem not in said and mutant.path.parent.name not in said
    ):
        problem = f"the slide is not named: {said}"
    elif peak_mb > MOST_MB:
        problem = f"{peak_mb:.0f} MB"
    why = f"{mutant.path.parent.name}/{mutant.path.name} ({status}): {problem}" if problem else ""
    return Outcome(mutant.fault, not problem, silent=bool(wrong), why=why)


def run_all(say: Say, paths: list[Path], output: Path) -> None:
    """A run of all, which says what becomes of each: path, status, words, store."""
    from wsi_norm import run

    def on_event(event: Event) -> None:
        if isinstance(event, SlideResult):
            words = " ".join([event.error or "", *event.warnings])
            say((event.slide, event.status, words, event.store))

    run(
        named(paths, output),
        RunConfig(output=output, **CONFIG, **table_of(paths, output)),
        on_event,
    )


def named(paths: list[Path], output: Path) -> list[Path]:
    """DICOM slides are named by a table, as their files are all called the same."""
    return [] if paths[0].suffix == ".dcm" else paths


def table_of(paths: list[Path], output: Path) -> dict[str, Path]:
    if paths[0].suffix != ".dcm":
        return {}
    table = output / "slides.csv"
    rows = [f"{path},{path.parent.name}" for path in paths]
    table.write_text("\n".join(["wsi,name", *rows]))
    return {"slides_csv": table}


# --- what the tiles should be


def judgements(told: dict[Mutant, tuple[str, str, str]], known: Pristine) -> dict[Mutant, str]:
    """What is wrong and not said, by mutant; where OpenSlide hangs or dies, it has no say."""
    items = [
        (mutant, Path(store), status == "damaged" or bool(said.strip()))
        for mutant, (status, said, store) in told.items()
        if status in FINE
    ]
    judged: dict[Mutant, str] = {}
    while items:
        run = tried(judge, items, known, limit=LIMIT)
        judged |= dict(run.said)
        done = len(run.said)
        if run.good:
            return judged
        if run.error and not run.error.startswith("died"):
            raise RuntimeError(run.error)
        mutant, store, said = items[done]
        judged[mutant] = wrong_of(mutant, store, said, known, None)
        items = items[done + 1 :]
    return judged


def judge(say: Say, items: list[tuple[Mutant, Path, bool]], known: Pristine) -> None:
    for mutant, store, said in items:
        say((mutant, wrong_of(mutant, store, said, known, Witness(mutant.path))))


class Witness:
    """OpenSlide on a harmed file: pixels where it gives some, None where it refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pixels(self, x: int, y: int, edge: int) -> np.ndarray | None:
        try:
            with openslide.OpenSlide(self._path) as slide:  # anew: its errors latch
                return on_white(slide, x, y, edge)
        except (openslide.OpenSlideError, OSError):
            return None


def on_white(slide: openslide.OpenSlide, x: int, y: int, edge: int) -> np.ndarray:
    """uint8 (edge, edge, 3) of level 0; white beyond the slide."""
    width, height = slide.dimensions
    pixels = composed(slide.read_region((x, y), 0, (edge, edge)))
    pixels[max(0, height - y) :] = 255
    pixels[:, max(0, width - x) :] = 255
    return pixels


def stored(store: Path) -> Iterator[tuple[tuple[int, int], tuple[np.ndarray, int]]]:
    group = zarr.open_group(store, mode="r")
    rows = zip(group["coords"][:].tolist(), group["tiles"][:], group["flags"][:], strict=True)
    for (x, y), pixels, flags in rows:
        yield (x, y), (pixels, int(flags))


def wrong_of(
    mutant: Mutant, store: Path, said: bool, known: Pristine, witness: Witness | None
) -> str:
    """Tiles that are wrong without a word; '' if there are none."""
    unsaid = []
    for corner, (pixels, flags) in stored(store):
        before = known.get(corner)
        if flags & SAID or (before is not None and np.array_equal(pixels, before)):
            continue
        right = witness.pixels(*corner, len(pixels)) if witness is not None else None
        white = (pixels == 255).all() and before is not None and before.mean() < GLASS
        agreed = right is not None and np.array_equal(pixels, right)
        if said:
            continue
        if white:
            unsaid.append(f"{corner} is white")
        elif not agreed:
            unsaid.append(f"{corner} is {'not' if right is not None else 'unread'} by OpenSlide")
        elif mutant.checked and contradicted(mutant):
            unsaid.append(f"{corner} contradicts its checksum")
    return f"{len(unsaid)} tiles: {unsaid[0]}" if unsaid else ""


def contradicted(mutant: Mutant) -> bool:
    """Whether a deflate tile, where the whole file has it, is not what its checksum says."""
    data = mutant.path.read_bytes()
    for start, length in subjects.tiff_tiles(mutant.whole):
        try:
            zlib.decompress(data[start : start + length])
        except zlib.error:
            return True
    return False
