"""Stores harmed after they were finished: verify says it, repair mends it, and a run goes on.

`verify` runs in a child, harm after harm on the same store, each undone before the next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.builders import tree
from tests.faults.outcomes import Outcome
from tests.faults.trials import Say, command_line, tried
from tests.faults.truth import UNREADABLE_STORE, Go, held, results, tiles_of, write_slide

LIMIT = 60.0
SETTINGS = ("--tile-size", "512", "--step", "144", "-n", "0", "--device", "cpu")
NUMBERS = (
    *(("tiling", "mpp_um"), ("tiling", "downsample"), ("tiling", "tile_size_px")),
    *(("tiling", "level"), ("slide", "mpp_um"), ("slide", "width_px"), ("counts", "tiles")),
    *(("counts", "unreadable"), ("tissue", "min_tissue"), ("tissue_share",)),
)

Harm = Callable[[Path, Path, np.random.Generator], str]
"""Harms the first store, maybe by a piece of the second, and says what it did."""


def campaign(go: Go) -> Iterator[Outcome]:
    rng = go.rng("damage")
    stores = finished(go)
    for fault, (harm, times) in HARMS.items():
        seeds = rng.integers(2**31, size=go.times(times, 3)).tolist()
        yield from verified(stores, fault, harm, seeds)
    for fault, harm in (
        ("repair: shards flipped", flip_tiles),
        ("repair: shards deleted", delete_shard),
        ("repair: shards swapped", swap_shards),
    ):
        for seed in rng.integers(2**31, size=go.times(5, 1)).tolist():
            yield mended(go, stores, fault, harm, seed, "--repair")
    for seed in rng.integers(2**31, size=go.times(10, 1)).tolist():
        yield mended(go, stores, "run again: shards deleted", delete_shard, seed)
        yield mended(go, stores, "run again: shards cut", cut_shard, seed)


def finished(
    go: Go, settings: tuple[str, ...] = SETTINGS, size: tuple[int, int] = (1536, 1280)
) -> tuple[Path, Path]:
    """Two finished stores of two shards and more, of slides of the same size."""
    slides, output = go.place("slides_of_stores"), go.place("stores")
    for seed, name in enumerate(("first", "second"), 7):
        write_slide(slides / f"{name}.svs", seed, *size)
    run = tried(command_line, ["run", slides, "-o", output, *settings, "-q"], limit=LIMIT * 3)
    assert run.good, run.error
    assert run.value[0] == 0, run.value
    return output / "first.zarr", output / "second.zarr"


def verified(
    stores: tuple[Path, Path], fault: str, harm: Harm, seeds: list[int]
) -> Iterator[Outcome]:
    """Harm after harm, each found by verify in lines that name the store."""
    while seeds:
        run = tried(harmed_and_verified, *stores, harm, seeds, limit=LIMIT)
        for what, status, lines, changed in run.said:
            yield verdict(fault, stores[0], what, status, lines, changed)
        if run.good:
            return
        yield Outcome(fault, False, hang=run.hang, why=run.error.strip()[-300:])
        restore(stores[0])
        seeds = seeds[len(run.said) + 1 :]


def verdict(
    fault: str, store: Path, what: str, status: int, lines: list[str], changed: bool
) -> Outcome:
    if not changed:  # as a flipped bit in a blank of JSON: to accept it is right, and so is to tell
        return Outcome(fault, survived=True)
    if status == 0:
        return Outcome(fault, False, silent=True, why=f"{what}: verify says all whole")
    told = [line for line in lines if line.startswith("error: ") and str(store) in line]
    if status == 1 and told and len(told) == len(lines):
        return Outcome(fault, survived=True)
    return Outcome(fault, False, why=f"{what}: exit status {status}: {lines[-1:]}")


def harmed_and_verified(say: Say, store: Path, other: Path, harm: Harm, seeds: list[int]) -> None:
    keep(store)
    whole = meaning(store)
    for seed in seeds:
        what = harm(store, other, np.random.default_rng(seed))
        status, lines = command_line(say, ["verify", store])
        say((what, status, lines, status != 0 or meaning(store) != whole))
        restore(store)


def keep(store: Path) -> None:
    kept = store.with_suffix(".kept")
    if not kept.exists():
        shutil.copytree(store, kept)


def restore(store: Path) -> None:
    """Put back what differs, and take away what was not there."""
    kept = store.with_suffix(".kept")
    for path in [*store.rglob("*")] if store.is_dir() else []:
        if path.is_file() and not (kept / path.relative_to(store)).exists():
            path.unlink()
    for source in kept.rglob("*"):
        place = store / source.relative_to(kept)
        if source.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.is_file() or place.read_bytes() != source.read_bytes():
            place.unlink(missing_ok=True)
            shutil.copy2(source, place)


def meaning(store: Path) -> Any:
    """All that a reader gets of a store: documents as parsed, arrays as decoded by zarr."""
    try:
        documents = {
            str(file.relative_to(store)): json.loads(file.read_bytes())
            for file in sorted(store.rglob("zarr.json"))
        }
        group = zarr.open_group(store, mode="r")
        names = ["coords", "tissue_fraction", "tissue_mask", "thumbnail", "thumbnail_normalized"]
        labels = store.glob("pyramid/labels/*/*/zarr.json")
        names += [str(file.parent.relative_to(store)) for file in labels]
        arrays = {name: group[name][:].tobytes() for name in names}
        return documents, arrays, tiles_of(store), sorted(tree(store))
    except UNREADABLE_STORE as error:
        return repr(error)


def mended(
    go: Go,
    stores: tuple[Path, Path],
    fault: str,
    harm: Harm,
    seed: int,
    *options: str,
    settings: tuple[str, ...] = SETTINGS,
    least: int = 1,
) -> Outcome:
    """A run over a harmed store redoes what is damaged, and nothing else."""
    keep(stores[0])
    right = {"first": tiles_of(stores[0].with_suffix(".kept"))}
    what = harm(*stores, np.random.default_rng(seed))
    slides, output = go.folder / "slides_of_stores", stores[0].parent
    arguments = ["run", slides, "-o", output, *settings, *options]
    run = tried(command_line, arguments, limit=LIMIT * 3)
    outcome = held(output, right, whole=run.good and run.value[0] == 0)
    said = results(output).get("first", {})
    restore(stores[0])
    if not run.good:
        return Outcome(fault, False, hang=run.hang, why=run.error.strip()[-300:])
    status, lines = run.value
    why = outcome.why or (f"exit status {status}: {lines[-1:]}" if status else "")
    again = said.get("tiles_written", 0)
    if not why and not least <= again < len(right["first"]):
        why = f"{again} of {len(right['first'])} tiles were written"
    return replace(outcome, fault=fault, survived=not why, why=f"{what}: {why}" if why else "")


# --- harms


def files_of(store: Path, pattern: str) -> list[Path]:
    return sorted(path for path in store.glob(pattern) if path.is_file())


def chosen(store: Path, pattern: str, rng: np.random.Generator) -> Path:
    found = files_of(store, pattern)
    return found[rng.integers(len(found))]


def flip(file: Path, store: Path, rng: np.random.Generator) -> str:
    data = bytearray(file.read_bytes())
    place, bit = int(rng.integers(len(data))), int(rng.integers(8))
    data[place] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {place} of {file.relative_to(store)}"


def flip_tiles(store: Path, other: Path, rng: np.random.Generator) -> str:
    return flip(chosen(store, "tiles/c/*/0/0/0", rng), store, rng)


def flip_arrays(store: Path, other: Path, rng: np.random.Generator) -> str:
    return flip(chosen(store, "[cft]*/c/**/*", rng), store, rng)


def flip_documents(store: Path, other: Path, rng: np.random.Generator) -> str:
    return flip(chosen(store, "**/zarr.json", rng), store, rng)


def delete(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, "**/*", rng)
    file.unlink()
    return f"{file.relative_to(store)} deleted"


def cut(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, "**/*", rng)
    length = int(rng.integers(file.stat().st_size))
    os.truncate(file, length)
    return f"{file.relative_to(store)} cut to {length} bytes"


def zero(store: Path, other: Path, rng: np.random.Generator) -> str:
    """As after a loss of power: the length is right, a part is zeros."""
    file = chosen(store, "**/*", rng)
    data = bytearray(file.read_bytes())
    start = int(rng.integers(len(data)))
    length = min(4096, len(data) - start)
    data[start : start + length] = bytes(length)
    file.write_bytes(data)
    return f"{length} bytes of {file.relative_to(store)} are zeros"


def swap_shards(store: Path, other: Path, rng: np.random.Generator) -> str:
    shards = files_of(store, "tiles/c/*/0/0/0")
    one, two = (shards[index] for index in rng.choice(len(shards), 2, replace=False))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    return f"{one.relative_to(store)} and {two.relative_to(store)} swapped"


def of_another(store: Path, other: Path, rng: np.random.Generator) -> str:
    own, others = (
        {file.relative_to(root) for file in files_of(root, "tiles/c/*/0/0/0")}
        for root in (store, other)
    )
    shared = sorted(own & others)
    piece = shared[rng.integers(len(shared))]
    shutil.copy(other / piece, store / piece)
    return f"{piece} of another slide"


def array_of_another(store: Path, other: Path, rng: np.random.Generator) -> str:
    """Arrays that were swapped whole between stores: flags, coordinates, fractions, pictures."""
    arrays = ("coords", "flags", "tissue_fraction", "tissue_mask", "thumbnail")
    name = str(rng.choice(arrays))
    shutil.rmtree(store / name / "c")
    shutil.copytree(other / name / "c", store / name / "c")
    return f"{name} of another slide"


def edit(store: Path, other: Path, rng: np.random.Generator) -> str:
    """A number of the attribute is another one."""
    keys = NUMBERS[rng.integers(len(NUMBERS))]
    file = store / "zarr.json"
    document = json.loads(file.read_bytes())
    at = document["attributes"]["wsi_norm"]
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = at[keys[-1]] * 2 + 1
    file.write_text(json.dumps(document))
    return f"{'.'.join(keys)} = {at[keys[-1]]}"


def delete_shard(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, "tiles/c/*/0/0/0", rng)
    file.unlink()
    return f"{file.relative_to(store)} deleted"


def cut_shard(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, "tiles/c/*/0/0/0", rng)
    os.truncate(file, int(rng.integers(file.stat().st_size)))
    return f"{file.relative_to(store)} cut"


HARMS: dict[str, tuple[Harm, int]] = {
    "verify: a bit of the tiles": (flip_tiles, 120),
    "verify: a bit of another array": (flip_arrays, 80),
    "verify: a bit of the metadata": (flip_documents, 120),
    "verify: a file deleted": (delete, 50),
    "verify: a file cut": (cut, 50),
    "verify: a piece of zeros": (zero, 50),
    "verify: shards swapped": (swap_shards, 15),
    "verify: a shard of another slide": (of_another, 15),
    "verify: an array of another slide": (array_of_another, 10),
    "verify: a number edited": (edit, 30),
}
"""Harms, and how often each is done in a whole go: 540 in all."""
