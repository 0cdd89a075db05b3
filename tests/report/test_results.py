"""RunSummary and SlideResult: totals, speed and exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from wsi_norm.report import RunSummary, SlideResult, Status, write_json

MakeSummary = Callable[..., RunSummary]


def test_totals(
    make_summary: MakeSummary, good: SlideResult, damaged: SlideResult, failed: SlideResult
) -> None:
    totals = make_summary(good, damaged, failed, good).totals()
    assert totals == {
        "slides": {"damaged": 1, "done": 2, "failed": 1},
        "tiles": 250,
        "tiles_written": 170,
        "unreadable": 2,
        "passed_through": 6,
        "edge": 20,
        "seconds_planning": 0.5,
        "seconds_reading": 3.469,
        "seconds_computing": 4.0,
        "seconds_writing": 1.0,
    }
    assert make_summary().totals()["slides"] == {}
    assert make_summary().totals()["tiles"] == 0


def result(status: Status, unreadable: int = 0) -> SlideResult:
    return SlideResult("n", "s", "o", status, tiles=5, unreadable=unreadable)


@pytest.mark.parametrize(
    ("slides", "interrupted", "expected"),
    [
        ((), False, 0),
        ((result("done"),), False, 0),
        ((result("done"), result("skipped"), result("empty"), result("planned")), False, 0),
        ((result("done"), result("failed")), False, 1),
        ((result("failed"), result("done")), False, 1),
        ((result("damaged", unreadable=1),), False, 1),
        ((result("skipped", unreadable=1),), False, 1),
        ((result("damaged"),), False, 0),
        ((result("interrupted"),), False, 1),
        ((), True, 130),
        ((result("done"),), True, 130),
        ((result("failed"),), True, 130),
    ],
)
def test_exit_status(
    slides: tuple[SlideResult, ...],
    interrupted: bool,
    expected: int,
    tmp_path: Path,
    make_summary: MakeSummary,
) -> None:
    summary = make_summary(*slides, interrupted=interrupted)
    assert summary.exit_status == expected
    document = json.loads(write_json(summary, tmp_path / "run.json").read_text("utf-8"))
    assert document["exit_status"] == expected
    assert document["interrupted"] is interrupted


def test_every_status_counts_as_whole_or_not() -> None:
    whole = {status for status in get_args(Status) if result(status).ok}
    assert whole == set(get_args(Status)) - {"failed", "interrupted"}
    assert not any(result(status, unreadable=1).ok for status in get_args(Status))


def test_no_time_is_no_speed(make_summary: MakeSummary, good: SlideResult) -> None:
    assert SlideResult("n", "s", "o", "done", tiles_written=5).tiles_per_second == 0
    assert make_summary(good, seconds=0.0).tiles_per_second == 0
