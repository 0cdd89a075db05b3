"""What is right: the slides of the campaign, an undisturbed run of them, and stores held to it.

Stores are read by plain zarr, tile by tile, so that nothing of ours vouches for itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError

from tests.faults.commands import LIMIT, Command
from tests.faults.outcomes import Outcome
from tests.faults.trials import Tried, command_line, tried
from wsi_norm.synthetic import write_synthetic_slide

UNREADABLE = 1
SHARDS = ("--tile-size", "1024", "--step", "160", "--device", "cpu")
"""Settings by which a small slide has many shards: four tiles of 3 MiB in each."""

UNREADABLE_STORE = (OSError, ValueError, TypeError, LookupError, RuntimeError, BaseZarrError)
"""What zarr and its codecs raise on stores that are damaged."""


@dataclass(frozen=True)
class Go:
    """One go of the campaign: its folder, its seed, and how much of the whole it is.

    `share` is of the times that each fault is tried; `quick` is what the tests try. `settings` and
    `size` are of the runs of two slides and of these.
    """

    folder: Path
    seed: int = 0
    quick: bool = False
    share: float = 1.0
    settings: tuple[str, ...] = SHARDS
    size: tuple[int, int] = (2048, 1536)

    def times(self, whole: int, quick: int) -> int:
        """How often something is tried."""
        return quick if self.quick else max(1, round(self.share * whole))

    def rng(self, family: str) -> np.random.Generator:
        """The same numbers for a family, whichever others are in the go."""
        return np.random.default_rng([self.seed, *family.encode()])

    def place(self, name: str) -> Path:
        """An empty folder."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def run(self, output: Path, *options: object, **how: Any) -> Command:
        """`wsi-norm run` of the two slides into a folder."""
        return Command(
            "run", self.subjects, "-o", output, *self.settings, *options, folder=self.folder, **how
        )

    def undisturbed(self, output: Path, *options: object) -> Tried:
        """The same by a child, in one process: its exit status and lines."""
        arguments = ["run", self.subjects, "-o", output, *self.settings, "-n", 0, "-q", *options]
        return tried(command_line, arguments, limit=LIMIT * 2)

    @property
    def subjects(self) -> Path:
        """A folder of two slides of the same size, each of some 15 shards."""
        folder = self.folder / "slides"
        if not folder.exists():
            draft = self.place("slides_draft")
            for seed, name in enumerate(("first", "second")):
                write_slide(draft / f"{name}.svs", seed, *self.size)
            draft.rename(folder)
        return folder

    @cached_property
    def truth(self) -> Mapping[str, Tiles]:
        """Tiles of an undisturbed run of the two slides, by the name of the store."""
        output = self.folder / "truth"
        if not (output / "run.json").exists():
            run = self.undisturbed(output)
            assert run.value == (0, []), f"an undisturbed run: {run.value} {run.error}"
        return {store.stem: tiles_of(store) for store in sorted(output.glob("*.zarr"))}

    def ended(
        self, output: Path, *options: object, truth: Mapping[str, Tiles] | None = None
    ) -> Outcome:
        """A run undisturbed to its end, over whatever was left there, and what came of it."""
        before = missing(output)
        run = self.undisturbed(output, *options)
        if not run.good:
            return Outcome("", survived=False, hang=run.hang, why=f"the last run: {run.error}")
        status, lines = run.value
        outcome = held(output, truth or self.truth, whole=status == 0)
        again = sum(written(output).values()) - before if before is not None else 0
        why = outcome.why or (f"the last run ends with {status}: {lines}" if status else "")
        return replace(
            outcome,
            survived=outcome.survived and status == 0,
            duplicated=outcome.duplicated + max(0, again),
            why=why or (f"{again} tiles were written again" if again > 0 else ""),
        )


def write_slide(path: Path, seed: int = 0, width: int = 2048, height: int = 1536) -> Path:
    """A synthetic slide at 0.5 um/px; all of a size are of the same pixel size."""
    return Path(
        write_synthetic_slide(path, width=width, height=height, mpp_um=0.5, levels=2, seed=seed)
    )


Tiles = Mapping[tuple[int, int], tuple[bytes, int]]
"""By level-0 corner: a digest of the pixels, and the flags."""

BESIDE = -1
"""In the place of x: the lower levels of a pyramid are counted as tiles, by their number."""


def tiles_of(store: Path, seen: Callable[[tuple[int, int]], None] | None = None) -> Tiles:
    """The tiles of a store, read by zarr from wherever they are; `seen` is told of each row."""
    group = zarr.open_group(store, mode="r")
    coords, flags = group["coords"][:], group["flags"][:]
    found: dict[tuple[int, int], tuple[bytes, int]] = {}
    for row, pixels in enumerate(_pixels(group, coords)):
        corner = int(coords[row, 0]), int(coords[row, 1])
        found[corner] = hashlib.blake2b(pixels, digest_size=16).digest(), flags[row]
        if seen is not None:
            seen(corner)
    if "pyramid" in group:
        levels = sorted(name for name, _ in group["pyramid"].arrays())
        for name in levels[1:]:
            pixels = group["pyramid"][name][:].tobytes()
            found[BESIDE, int(name)] = hashlib.blake2b(pixels, digest_size=16).digest(), 0
    return found


def _pixels(group: Any, coords: Any) -> Iterator[bytes]:
    """Of each tile, in the array and in the image, as far as there are these."""
    tiles, image = group.get("tiles"), group.get("pyramid/0")
    slots = 1 if tiles is None else (tiles.shards or tiles.chunks)[0]
    tiling = group.attrs["wsi_norm"]["tiling"]
    edge, scale = tiling["tile_size_px"], tiling["downsample"]
    for start in range(0, len(coords), slots):
        shard = coords[start : start + slots]
        there = [b""] * len(shard) if tiles is None else tiles[start : start + slots]
        for (x, y), tile in zip((shard / scale).round().astype(int), there, strict=True):
            part = b"" if image is None else image[:, y : y + edge, x : x + edge].tobytes()
            yield bytes(tile) + part


def held(output: Path, truth: Mapping[str, Tiles], *, whole: bool) -> Outcome:
    """Stores held to the truth; `whole`: somebody said that they are whole and right."""
    lost = duplicated = wrong = 0
    for name, right in truth.items():
        rows: Counter[tuple[int, int]] = Counter()
        try:
            there = tiles_of(output / f"{name}.zarr", lambda corner: rows.update([corner]))  # noqa: B023
        except UNREADABLE_STORE:
            lost += len(right)
            continue
        lost += len(right.keys() - there.keys())
        duplicated += sum(count - 1 for count in rows.values())
        duplicated += len(there.keys() - right.keys())
        wrong += sum(
            there[corner] != tile and not there[corner][1] & UNREADABLE
            for corner, tile in right.items()
            if corner in there
        )
    seen = (lost, "tiles are missing"), (duplicated, "are there twice"), (wrong, "are wrong")
    why = ", ".join(f"{number} {what}" for number, what in seen if number)
    return Outcome("", not why, lost, duplicated, silent=whole and wrong > 0, why=why)


def missing(output: Path) -> int | None:
    """Tiles of the two stores that are not there yet; None where a store is not."""
    from wsi_norm import TileStore
    from wsi_norm.errors import StoreError

    absent = 0
    for name in ("first", "second"):
        try:
            store = TileStore.open(output / f"{name}.zarr", allow_partial=True)
        except StoreError:
            return None
        rows = (store.rows(shard) for shard in store.missing_shards())
        absent += sum(part.stop - part.start for part in rows)
    return absent


def results(output: Path) -> dict[str, dict[str, Any]]:
    """What run.json says of each slide, by its name."""
    try:
        document = json.loads((output / "run.json").read_text())
    except FileNotFoundError:
        return {}
    return {slide["name"]: slide for slide in document["slides"]}


def written(output: Path) -> dict[str, int]:
    """Tiles that the last run wrote, by slide."""
    return {name: slide["tiles_written"] for name, slide in results(output).items()}


def shards_in(output: Path) -> int:
    """Shards that stand in a folder's stores, of tiles or else of pyramids."""
    tiles = sum(1 for _ in output.glob("*.zarr/tiles/c/*/0/0/0"))
    return tiles or sum(1 for _ in output.glob("*.zarr/seals/c/*/0"))
