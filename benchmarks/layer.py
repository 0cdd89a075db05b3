"""The layer alone: ms per tile on one thread, contestants in turn, medians over rounds."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import slides
from benchmarks.machine import last_line
from benchmarks.normalizers import CONTESTANTS, MISSING, ONLY_EDGES
from benchmarks.scale import Scale

STINT_S = 0.3
"""How long a contestant works in its turn, at least a tile."""
SLOW_S = 2.0
"""Who needs longer for a tile takes part in the first round only."""
PATIENCE_S = 180


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """ms per tile by contestant and tile edge, and why others are missing."""
    found = compare(list(CONTESTANTS), scale.tile_edges, scale.rounds, output, scale)
    found["missing"] |= MISSING
    return found


def compare(
    names: Sequence[str], edges: Sequence[int], rounds: int, output: Path, scale: Scale
) -> dict[str, Any]:
    """The contestants at each tile edge, interleaved; their order turns by one a round."""
    edge = scale.growth_edges[0]
    reference = slides.sample(output, edge, 512)
    ms: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as logs:
        seats = [_Seat(name, Path(logs, f"{i}.log"), reference) for i, name in enumerate(names)]
        for tile_edge in edges:
            tiles = slides.sample(output, edge, tile_edge)
            times: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(rounds):
                shift = turn % len(seats)
                for seat in seats[shift:] + seats[:shift]:
                    slow = times[seat.name] and times[seat.name][0] > SLOW_S * 1e3
                    if slow or tile_edge not in ONLY_EDGES.get(seat.name, (tile_edge,)):
                        continue
                    times[seat.name] += seat.turn(tiles)
            for name, found in times.items():
                if found:
                    ms.setdefault(name, {})[str(tile_edge)] = statistics.median(found)
            print({name: round(values[-1], 2) for name, values in times.items() if values})
        for seat in seats:
            seat.close()
    return {"ms": ms, "missing": {seat.name: seat.failed for seat in seats if seat.failed}}


class _Seat:
    """A contestant in a process of its own, which waits for its turns."""

    def __init__(self, name: str, log: Path, reference: np.ndarray) -> None:
        self.name, self.failed, self._log = name, "", log
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_sit, args=(name, theirs, str(log)), daemon=True)
        self._process.start()
        theirs.close()
        self._ask(reference)

    def turn(self, tiles: np.ndarray) -> list[float]:
        """ms per tile of one stint, or nothing from the failed."""
        answer = None if self.failed else self._ask(tiles)
        return [] if answer is None else [answer]

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _ask(self, message: np.ndarray) -> Any:
        try:
            self._pipe.send(message)
            if self._pipe.poll(PATIENCE_S):
                return self._pipe.recv()
            self.failed = f"no answer in {PATIENCE_S} s"
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            self.failed = last_line(self._log)
        self.close()
        return None


def _sit(name: str, pipe: Connection, log: str) -> None:
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    normalize = CONTESTANTS[name](pipe.recv())
    pipe.send("ready")
    edge = 0
    while True:
        tiles = pipe.recv()
        if tiles.shape[1] != edge:
            edge = tiles.shape[1]
            _check(normalize(tiles[0]), tiles[0])
        times: list[float] = []
        while not times or sum(times) < STINT_S:
            start = time.perf_counter()
            normalize(tiles[len(times) % len(tiles)])
            times.append(time.perf_counter() - start)
        pipe.send(1e3 * statistics.median(times))


def _check(done: np.ndarray, tile: np.ndarray) -> None:
    """A contestant that returns no picture is not measured."""
    if done.dtype != np.uint8 or done.size != tile.size or done.std() < 5:
        raise ValueError(f"the result is no picture: {done.dtype} {done.shape} {done.std():.1f}")
