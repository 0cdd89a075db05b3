"""Exports that are killed, have no room, or are of stores that were harmed; of every format.

What has its final name is whole: the bytes of an undisturbed export. What another export finds of
one before it is gone at its end.
"""

from __future__ import annotations

import resource
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders import create_store, store_meta, tree
from tests.faults import damage
from tests.faults.commands import HEARD, Command, complaint
from tests.faults.disks import fill, small_disk
from tests.faults.outcomes import Outcome
from tests.faults.signals import INTERRUPTED, complaints
from tests.faults.trials import Say, command_line, tried
from tests.faults.truth import Go
from wsi_norm.choices import EXPORTS

LIMIT = 60.0
NAMES = ("first", "second")
TILE, COLUMNS, SLOTS = 256, 10, 16

Files = Mapping[str, bytes]

HARMS: dict[str, damage.Harm] = {
    "a bit of the tiles": damage.flip_tiles,
    "a bit of another array": damage.flip_arrays,
    "a bit of the metadata": damage.flip_documents,
    "a file deleted": damage.delete,
    "a file cut": damage.cut,
    "a piece of zeros": damage.zero,
    "shards swapped": damage.swap_shards,
    "a shard of another slide": damage.of_another,
    "an array of another slide": damage.array_of_another,
    "a number edited": damage.edit,
}


def campaign(go: Go) -> Iterator[Outcome]:
    rng = go.rng("exports")
    folder = go.place("of_exports")
    rows = 2 if go.quick else 8
    stores = tuple(write_store(folder / f"{n}.zarr", seed, rows) for seed, n in enumerate(NAMES))
    for to in EXPORTS:
        right = exported(go, stores, to)
        for _ in range(go.times(8, 1)):
            yield killed(go, rng, stores, to, right)
        for number in go.rng(to).choice(HEARD, go.times(4, 0)).tolist():
            yield interrupted(go, signal.Signals(number), stores, to, right)
        yield limited(go, stores, to, right)
        if not go.quick:
            yield from on_a_full_disk(go, stores, to, right)
        harms = [*HARMS] if not go.quick else ["a bit of the tiles", "a file deleted"]
        for harm in harms:
            seeds = rng.integers(2**31, size=go.times(5, 1)).tolist()
            yield from of_harmed(go, stores, to, right, harm, seeds)


def write_store(path: Path, seed: int, rows_of_tiles: int) -> Path:
    """A finished store; its tiles are noise, so that exports take their time."""
    rng = np.random.default_rng(seed)
    size = {"width_px": COLUMNS * TILE, "height_px": rows_of_tiles * TILE}
    level = {"level_width_px": COLUMNS * TILE, "level_height_px": rows_of_tiles * TILE}
    meta = store_meta(
        slide={"name": path.stem, "file_name": f"{path.stem}.svs", **size},
        tiling={"tile_size_px": TILE, "tiles_per_shard": SLOTS, **level},
        tissue_share=0.4,
    )
    places = [(x * TILE, y * TILE) for y in range(rows_of_tiles) for x in range(COLUMNS)]
    store = create_store(path, len(places), meta, coords=np.array(places, np.int64))
    for shard in range(store.shards):
        rows = store.rows(shard)
        tiles = rng.integers(0, 256, (rows.stop - rows.start, TILE, TILE, 3), np.uint8)
        store.write_shard(shard, tiles, np.zeros(len(tiles), np.uint8))
    store.finish()
    return path


def exported(go: Go, stores: tuple[Path, ...], to: str) -> Files:
    """An undisturbed export."""
    output = go.place(f"exported_{to}")
    status, lines = again(stores, to, output)
    assert (status, lines) == (0, []), f"an undisturbed export to {to}: {lines}"
    return tree(output)


def again(stores: tuple[Path, ...], to: str, output: Path) -> tuple[int | None, list[str]]:
    """Exit status and lines of an export by a child, left to its end."""
    run = tried(command_line, ["export", *stores, "--to", to, "-o", output], limit=LIMIT)
    return run.value if run.good else (None, [run.error])


def command(go: Go, stores: tuple[Path, ...], to: str, output: Path) -> Command:
    return Command("export", *stores, "--to", to, "-o", output, folder=go.folder)


def killed(
    go: Go, rng: np.random.Generator, stores: tuple[Path, ...], to: str, right: Files
) -> Outcome:
    """kill -9 at some moment; the next export is as if nothing had been."""
    output = go.place("export")
    half = sum(map(len, right.values())) // 4  # of the first of two
    moments: dict[str, Callable[[], object]] = {
        "a draft is there": lambda: list(output.glob(".*.draft")),
        "a part is written": lambda: written(output),
        "half is written": lambda: written(output) > half,
        "one is done": lambda: list(output.glob("[!.]*")),
    }
    moment = str(rng.choice([*moments]))
    with command(go, stores, to, output) as process:
        process.wait_for(moments[moment])  # or it is over: then there is nothing to kill
        process.kill()
    return ended(f"export to {to}: kill -9", moment, stores, to, output, right)


def interrupted(
    go: Go, number: signal.Signals, stores: tuple[Path, ...], to: str, right: Files
) -> Outcome:
    """A signal that ends it in order: 130, one line, nothing half there; then it goes on."""
    output, fault = go.place("export"), f"export to {to}: signals"
    with command(go, stores, to, output) as process:
        process.wait_for(lambda: list(output.glob(".*.draft/*")))
        process.send(number)
        status = process.status()
    if status == 0:  # it was faster
        return ended(fault, number.name, stores, to, output, right)
    problems = [] if status == INTERRUPTED else [f"exit status {status}"]
    problems += [*complaints(process), *map(str, output.glob(".*.draft"))]
    if problems:
        return Outcome(fault, False, hang=status is None, why=f"{number.name}: {problems}")
    return ended(fault, number.name, stores, to, output, right)


def written(folder: Path) -> int:
    """Bytes so far; what is renamed or goes meanwhile does not count."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size * file.is_file()
        except OSError:
            continue
    return total


def limited(go: Go, stores: tuple[Path, ...], to: str, right: Files) -> Outcome:
    """No file may grow beyond half of the largest, as under a quota."""
    output, fault = go.place("export"), f"export to {to}: files limited in size"
    most = max(map(len, right.values())) // 2
    arguments = ["export", *stores, "--to", to, "-o", output]
    run = tried(with_small_files, most, arguments, limit=LIMIT)
    if not run.good:
        return Outcome(fault, False, hang=run.hang, why=run.error.strip()[-300:])
    failed = refused(fault, *run.value, output)
    return failed or ended(fault, "", stores, to, output, right)


def with_small_files(say: Say, most: int, arguments: list[Any]) -> tuple[int, list[str]]:
    """A command in a child whose files are at most of so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return command_line(say, arguments)


def on_a_full_disk(go: Go, stores: tuple[Path, ...], to: str, right: Files) -> Iterator[Outcome]:
    """There is room for a fourth of it all."""
    output, fault = go.place("export"), f"export to {to}: disk full"
    try:
        with small_disk(output):
            fill(output)
            ballast = output / "ballast"
            room = sum(map(len, right.values())) // 4
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - room)
            with command(go, stores, to, output) as process:
                status = process.status()
                failed = refused(fault, status, process.lines, output, beside=("ballast",))
            ballast.unlink()
            yield failed or ended(fault, "", stores, to, output, right)
    except PermissionError:  # no right to mount: what cannot be tried is not counted
        return


def refused(
    fault: str, status: int | None, lines: list[str], output: Path, beside: tuple[str, ...] = ()
) -> Outcome | None:
    """What is wrong with the end of an export that has no room: 1, a line a store, no litter."""
    if status is None:
        return Outcome(fault, False, hang=True, why=f"it does not end: {lines}")
    why = complaint(lines, len(NAMES)) or ("" if lines else "not a word")
    if status != 1:
        why = f"exit status {status}: {lines}"
    if left := [path.name for path in output.iterdir() if path.name not in beside]:
        why = f"left behind: {left}"
    return Outcome(fault, False, silent=status == 0, why=why) if why else None


def ended(
    fault: str, how: str, stores: tuple[Path, ...], to: str, output: Path, right: Files
) -> Outcome:
    """What has a name now is whole, and so is all after another export."""
    if wrong := others(output, right):
        return Outcome(fault, False, silent=True, why=f"{how}: half-written: {wrong}")
    status, lines = again(stores, to, output)
    if (status, lines) != (0, []):
        return Outcome(fault, False, hang=status is None, why=f"{how}: {status}: {lines[-1:]}")
    same = tree(output) == right
    return Outcome(fault, same, silent=not same, why="" if same else f"{how}: other files")


def others(output: Path, right: Files) -> list[str]:
    """Exports under their names that are not as they should be."""
    wrong = []
    for place in output.glob("[!.]*"):
        name = place.name
        whole = {file: data for file, data in right.items() if Path(file).parts[0] == name}
        there = tree(place) if place.is_dir() else {"": place.read_bytes()}
        if {str(Path(name, file)): data for file, data in there.items()} != whole:
            wrong.append(name)
    return wrong


def of_harmed(
    go: Go,
    stores: tuple[Path, ...],
    to: str,
    right: Files,
    harm: str,
    seeds: list[int],
) -> Iterator[Outcome]:
    """Harm after harm, each undone before the next: refused in a line, or of no consequence."""
    fault, output = f"export to {to}: of a harmed store", go.place("export")
    run = tried(harmed_and_exported, stores, to, output, HARMS[harm], seeds, limit=LIMIT)
    for what, status, lines, files in run.said:
        own = {name: data for name, data in right.items() if name.startswith(NAMES[0])}
        told = len(lines) == 1 and lines[0].startswith("error: ") and str(stores[0]) in lines[0]
        if status == 0 and files == own:
            yield Outcome(fault, survived=True)
        elif status == 0:
            yield Outcome(
                fault, False, silent=True, why=f"{harm}: {what}: exported with no word of it"
            )
        elif status == 1 and told and not files:
            yield Outcome(fault, survived=True)
        else:
            yield Outcome(
                fault, False, why=f"{harm}: {what}: {status}: {lines}, left {sorted(files)}"
            )
    if not run.good:
        yield Outcome(fault, False, hang=run.hang, why=run.error.strip()[-300:])
        damage.restore(stores[0])


def harmed_and_exported(
    say: Say,
    stores: tuple[Path, ...],
    to: str,
    output: Path,
    harm: damage.Harm,
    seeds: list[int],
) -> None:
    damage.keep(stores[0])
    for seed in seeds:
        what = harm(*stores, np.random.default_rng(seed))
        with tempfile.TemporaryDirectory(dir=output) as folder:
            status, lines = command_line(say, ["export", stores[0], "--to", to, "-o", folder])
            say((what, status, lines, tree(Path(folder))))
        damage.restore(stores[0])
