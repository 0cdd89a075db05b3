"""What is aimed at, as ratios of one go: contestants that took turns, round by round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.normalizers import DENSITY, FLOOR, PLAIN
from benchmarks.pipeline import (
    DEFAULT,
    EXACT,
    LIMIT,
    NATIVE,
    ONE_WORKER,
    OURS,
    PACKAGES,
    SCRIPTS,
)

STEADY, WHOLE = "tiles_per_s", "whole_tiles_per_s"
MOST_MB, MOST_START_S, MOST_DEMO_S, NEAR_ONE = 250, 2.0, 5.0, 0.05

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


class Aim(NamedTuple):
    """`measured` is nan where the go does not say."""

    what: str
    wanted: str
    measured: float
    is_met: bool
    shown: str


def aims(results: Mapping[str, Any]) -> list[Aim]:
    """Of the parts that there are."""
    parts = {"pipeline": _pipeline, "memory": _memory, "growth": _growth, "layer": _layer}
    found = [aim for name, of in parts.items() if name in results for aim in of(results[name])]
    return [aim for aim in found if not math.isnan(aim.measured)]


def ratio(rows: Rows, key: str, names: Sequence[str], others: Sequence[str]) -> float:
    """Median over rounds of the best of some by the best of others; nan where one is missing.

    Who took part in fewer rounds counts with the last one.
    """
    rounds = max((len(answers) for answers in rows.values()), default=0)
    ratios = [
        _best(rows, key, names, turn) / _best(rows, key, others, turn) for turn in range(rounds)
    ]
    return statistics.median(ratios) if ratios else math.nan


def _best(rows: Rows, key: str, names: Sequence[str], turn: int) -> float:
    answers = [rows[name] for name in names if rows.get(name)]
    values = [answer[min(turn, len(answer) - 1)][key] for answer in answers]
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def median(rows: Rows, key: str, name: str) -> float:
    """Over rounds; nan where the contestant is missing."""
    return statistics.median(answer[key] for answer in rows[name]) if rows.get(name) else math.nan


def _pipeline(part: Mapping[str, Any]) -> Iterator[Aim]:
    rows = part["jobs"][str(DEFAULT)]["rows"]
    job = f"{NATIVE} to {DEFAULT} um/px"

    def times(what: str, least: float, key: str, names: Sequence[str], own: str = OURS) -> Aim:
        return _least(what, least, ratio(rows, key, [own], names))

    yield times(f"{job}, steady: the faster careful script", 2.0, STEADY, SCRIPTS)
    yield times(f"{job}, whole run: the faster careful script", 1.0, WHOLE, SCRIPTS)
    yield times(f"{job}, steady: the best package", 12.0, STEADY, PACKAGES)
    yield times(f"{job}, steady: `--resample exact`, as before", 1.6, STEADY, [EXACT])
    yield times(f"{job}, steady: one worker, by two", 1.8, STEADY, [ONE_WORKER])
    yield _most(f"{job}: seconds to the first tile", MOST_START_S, median(rows, "start_s", OURS))
    yield _most(f"{job}: MB a worker, 2 workers", MOST_MB, median(rows, "worker_mb", OURS), ".0f")
    demo = statistics.median(part["demo_s"]) if part["demo_s"] else math.nan
    yield _most("`wsi-norm demo`: seconds", MOST_DEMO_S, demo)
    rows, job = part["jobs"][str(NATIVE)]["rows"], f"{NATIVE} um/px"
    yield times(f"{job}, steady: decode + write", 0.9, STEADY, [LIMIT])
    yield times(f"{job}, steady: the faster careful script", 2.0, STEADY, SCRIPTS)
    yield times(f"{job}, whole run: the faster careful script", 1.0, WHOLE, SCRIPTS)


def _memory(part: Mapping[str, Any]) -> Iterator[Aim]:
    for workers, row in part["rows"].items():
        what = f"MB of the largest of {workers} workers"
        yield _most(what, MOST_MB, row["largest_mb"], ".0f")


def _growth(part: Mapping[str, Any]) -> Iterator[Aim]:
    for name, series in part["series"].items():
        found = math.nan if series["exponent"] is None else series["exponent"]
        near = abs(found - 1) <= NEAR_ONE
        yield Aim(f"exponent: {name}", f"1 +- {NEAR_ONE}", found, near, f"{found:.2f}")


def _layer(part: Mapping[str, Any]) -> Iterator[Aim]:
    def of(name: str, edge: str = "256") -> float:
        return part["ms"].get(name, {}).get(edge, math.nan)

    ours = of(DENSITY)
    yield _least("layer, 256 px: the cv2 floor", 1.0, of(FLOOR) / ours)
    yield _least("layer, 256 px: the plain kornia layer", 25.0, of(PLAIN) / ours)


def _least(what: str, least: float, found: float) -> Aim:
    """So many times as fast as something."""
    return Aim(what, f"at least {least:g} times", found, found >= least, f"{found:.3g}")


def _most(what: str, most: float, found: float, form: str = ".1f") -> Aim:
    return Aim(what, f"at most {most:g}", found, found <= most, format(found, form))
