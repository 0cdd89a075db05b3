"""Layouts other than tiles: kills on the way, and harm done to what a pyramid or a plan holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.damage import Harm, chosen, files_of, finished, flip, mended, verified
from tests.faults.kills import LINKS, chain
from tests.faults.outcomes import Outcome
from tests.faults.truth import Go

TILES = ("--tile-size", "1300", "--min-tissue", "0", "--device", "cpu")
"""Of 5 MB: two in a shard."""

SIZE, SMALL = (4000, 3900), (2600, 2500)
"""Of slides of six shards, and of two."""

CHUNKS, LOWER = "pyramid/*/c/0/*/*", "pyramid/[1-9]*/c/0/*/*"


def campaign(go: Go) -> Iterator[Outcome]:
    size = SMALL if go.quick else SIZE
    for layout in ("pyramid",) if go.quick else ("pyramid", "both", "plan"):
        rng = go.rng(f"layouts {layout}")
        settings = (*TILES, "--layout", layout)
        folder = go.place(f"layout_{layout}")
        own = replace(go, folder=folder, settings=settings, size=size)
        for workers, times in (2, go.times(10, 0)), (0, go.times(10, 1)):
            fault = f"{layout}: kill -9, --workers {workers}"
            for start in range(0, times, LINKS):
                yield from chain(own, rng, fault, min(LINKS, times - start), workers)
        harms = HARMS if layout != "plan" else HARMS_OF_PLANS
        stores = finished(own, (*settings, "-n", "0"), size)
        for fault, (harm, number) in harms.items():
            seeds = rng.integers(2**31, size=go.times(number, 1)).tolist()
            yield from verified(stores, f"{layout}: verify: {fault}", harm, seeds)
        for fault, harm, least, options in mending(go, layout):
            for seed in rng.integers(2**31, size=go.times(5, 1)).tolist():
                yield mended(
                    *(own, stores, f"{layout}: {fault}", harm, seed, *options),
                    settings=(*settings, "-n", "0"),
                    least=least,
                )


def mending(go: Go, layout: str) -> tuple[Any, ...]:
    """What is harmed and mended: nothing of a plan, which has no shards."""
    return () if layout == "plan" else MENDED[::3] if go.quick else MENDED


# --- harms


def flip_chunk(store: Path, other: Path, rng: np.random.Generator) -> str:
    return flip(chosen(store, CHUNKS, rng), store, rng)


def flip_beside(store: Path, other: Path, rng: np.random.Generator) -> str:
    """Seals and labels."""
    patterns = "seals/c/*/0", "pyramid/labels/*/*/c/0/0"
    return flip(chosen(store, patterns[rng.integers(2)], rng), store, rng)


def flip_documents(store: Path, other: Path, rng: np.random.Generator) -> str:
    return flip(chosen(store, "**/zarr.json", rng), store, rng)


def flip_arrays(store: Path, other: Path, rng: np.random.Generator) -> str:
    return flip(chosen(store, "[cft]*/c/**/*", rng), store, rng)


def delete_chunk(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, CHUNKS, rng)
    file.unlink()
    return f"{file.relative_to(store)} deleted"


def delete_lower(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, LOWER, rng)
    file.unlink()
    return f"{file.relative_to(store)} deleted"


def delete(store: Path, other: Path, rng: np.random.Generator) -> str:
    """Any file; a plan has no flags yet, so none are lost."""
    file = chosen(store, "**/*", rng)
    file.unlink()
    return f"{file.relative_to(store)} deleted"


def cut_chunk(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, CHUNKS, rng)
    os.truncate(file, int(rng.integers(file.stat().st_size)))
    return f"{file.relative_to(store)} cut"


def swap_chunks(store: Path, other: Path, rng: np.random.Generator) -> str:
    chunks = files_of(store, CHUNKS)
    one, two = (chunks[index] for index in rng.choice(len(chunks), 2, replace=False))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    return f"{one.relative_to(store)} and {two.relative_to(store)} swapped"


def chunk_of_another(store: Path, other: Path, rng: np.random.Generator) -> str:
    """In its place, with its seal or without."""
    pieces = ["pyramid/0/c/0/*/*", "seals/c/*/0"]
    own, others = (
        {file.relative_to(root) for pattern in pieces for file in files_of(root, pattern)}
        for root in (store, other)
    )
    shared = sorted(own & others)
    piece = shared[rng.integers(len(shared))]
    shutil.copy(other / piece, store / piece)
    return f"{piece} of another slide"


def chunk_too_many(store: Path, other: Path, rng: np.random.Generator) -> str:
    """A chunk beside the grid's last one, where there is to be none."""
    file = chosen(store, CHUNKS, rng)
    place = file.with_name("77")
    shutil.copy(file, place)
    return f"{place.relative_to(store)} added"


def move_chunk(store: Path, other: Path, rng: np.random.Generator) -> str:
    file = chosen(store, "pyramid/0/c/0/*/*", rng)
    place = file.with_name("78")
    file.rename(place)
    return f"{file.relative_to(store)} moved"


HARMS: dict[str, tuple[Harm, int]] = {
    "a bit of a chunk": (flip_chunk, 60),
    "a bit of seals and labels": (flip_beside, 30),
    "a bit of the metadata": (flip_documents, 60),
    "a file deleted": (delete, 20),
    "a chunk deleted": (delete_chunk, 20),
    "a chunk cut": (cut_chunk, 20),
    "chunks swapped": (swap_chunks, 15),
    "a chunk of another slide": (chunk_of_another, 15),
    "a chunk too many": (chunk_too_many, 10),
    "a chunk moved": (move_chunk, 10),
}

HARMS_OF_PLANS: dict[str, tuple[Harm, int]] = {
    "a bit of an array": (flip_arrays, 30),
    "a bit of the metadata": (flip_documents, 30),
    "a file deleted": (delete, 20),
}

MENDED: tuple[tuple[str, Harm, int, tuple[str, ...]], ...] = (
    ("repair: chunks flipped", flip_chunk, 0, ("--repair",)),
    ("repair: chunks swapped", swap_chunks, 0, ("--repair",)),
    ("repair: chunks moved", move_chunk, 1, ("--repair",)),
    ("run again: chunks deleted", delete_chunk, 0, ()),
    ("run again: chunks of lower levels deleted", delete_lower, 0, ()),
)
"""What is done, the tiles that are written again at least, and by which options."""
