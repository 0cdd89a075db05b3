"""Many small slides, some of them broken, in one run whose memory and open files are watched."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.faults.commands import LIMIT, WORKER, Command
from tests.faults.outcomes import Outcome
from tests.faults.trials import command_line, tried
from tests.faults.truth import Go, held, results, tiles_of, write_slide

KINDS = 5
"""Good slides that differ; the others are further names of them."""

EVERY = 5
"""One slide in so many is broken."""

CLIMB_MB, CLIMB_FILES, REPORT_SECONDS = 80, 8, 20
SETTINGS = ("-n", "2", "--device", "cpu", "--tile-size", "128", "-q")


@dataclass
class Watch:
    """Largest resident memory (MB) and numbers of open files among the workers, as time goes on."""

    command: Command
    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        sizes, files = [0.0], [0]
        for process in self.command.processes(WORKER):
            place = Path("/proc", str(process))
            try:
                pages = int((place / "statm").read_text().split()[1])
                files.append(len([*(place / "fd").iterdir()]))
            except OSError:  # it has ended
                continue
            sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        self.memory.append(max(sizes))
        self.files.append(max(files))

    def climb(self, values: list[float] | list[int]) -> float:
        """How much more there was in the last quarter than in the second."""
        quarter = len(values) // 4
        return median(values[-quarter:]) - median(values[quarter : 2 * quarter]) if quarter else 0


def campaign(go: Go) -> Iterator[Outcome]:
    number = go.times(500, 12)
    slides, broken = subjects(go, number)
    output = go.place("of_soak")
    arguments = ("run", slides, "-o", output, *SETTINGS)
    seen: list[tuple[int, float]] = []
    with Command(*arguments, folder=go.folder) as command:
        watch = Watch(command)

        def all_there() -> bool:
            there = len([*output.iterdir()])
            if not seen or there != seen[-1][0]:
                seen.append((there, time.monotonic()))
                watch.look()
            return False

        command.wait_for(all_there, LIMIT / 4 + number * 4)
        status = command.status(1)
        over = time.monotonic()
    if status is None:
        yield Outcome("soak: good slides", False, hang=True, why=f"no end; {len(seen)} steps")
        return
    yield from of_slides(go, output, slides, broken)
    yield climbing("soak: memory of workers", watch.climb(watch.memory), CLIMB_MB, "MB", go.quick)
    yield climbing(
        "soak: open files of workers", watch.climb(watch.files), CLIMB_FILES, "files", go.quick
    )
    last = max(when for _, when in seen[:-1]) if len(seen) > 1 else over
    yield climbing("soak: the report's seconds", over - last, REPORT_SECONDS, "s", go.quick)
    shutil.rmtree(output)


def climbing(fault: str, value: float, most: float, unit: str, quick: bool) -> Outcome:
    good = quick or value <= most
    return Outcome(fault, good, why="" if good else f"{value:.0f} {unit}, {most} at most")


def subjects(go: Go, number: int) -> tuple[Path, set[str]]:
    """A folder of so many slides, and the names of those that are broken."""
    kinds, folder = go.place("kinds"), go.place("soak")
    for seed in range(KINDS):
        write_slide(kinds / f"{seed}.svs", seed + 20, 640, 512)
    broken = set()
    for index in range(number):
        name, source = f"s{index:04}", kinds / f"{index % KINDS}.svs"
        if index % EVERY == 0:
            broken.add(name)
            (folder / f"{name}.svs").write_bytes(harmed(source.read_bytes(), index // EVERY))
        else:
            os.link(source, folder / f"{name}.svs")
    return folder, broken


def harmed(data: bytes, how: int) -> bytes:
    """In turn: cut, empty, no TIFF, a page of HTML, no tile that can be read."""
    kinds = (
        data[: len(data) // 2],
        b"",
        b"XXXX" + data[4:],
        b"<!DOCTYPE html><html>not found</html>",
        data[:16] + bytes(b ^ 0x55 for b in data[16:2000]) + data[2000:],
    )
    return kinds[how % len(kinds)]


def of_slides(go: Go, output: Path, slides: Path, broken: set[str]) -> Iterator[Outcome]:
    """Each good slide is done and right, each broken one is named with its cause."""
    said = results(output)
    right = {}
    for path in sorted(slides.glob("*.svs")):
        name = path.stem
        result = said.get(name, {"status": "absent", "error": ""})
        if name in broken:
            named = result["status"] == "failed" and path.name in (result["error"] or "")
            named |= result["status"] == "damaged"
            why = "" if named else f"{name}: {result['status']}: {result['error']}"
            silent = result["status"] in {"done", "empty"}
            yield Outcome("soak: broken slides", named, silent=silent, why=why)
            continue
        kind = int(name[1:]) % KINDS
        if kind not in right:
            right[kind] = truth(go, kind)
        outcome = held(output, {name: right[kind]}, whole=result["status"] == "done")
        why = outcome.why or ("" if result["status"] == "done" else str(result))
        yield Outcome(
            "soak: good slides", not why, outcome.lost, outcome.duplicated, outcome.silent, why=why
        )


def truth(go: Go, kind: int) -> dict[tuple[int, int], tuple[bytes, int]]:
    """Tiles of a slide that is alone in its run."""
    output = go.place("alone")
    arguments = ["run", go.folder / "kinds" / f"{kind}.svs", "-o", output, *SETTINGS, "-n", "0"]
    run = tried(command_line, arguments, limit=LIMIT)
    assert run.value == (0, []), (run.value, run.error)
    return dict(tiles_of(output / f"{kind}.zarr"))
