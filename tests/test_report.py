"""run.json and slides.csv, read back."""

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from wsi_norm.report import (
    CSV_COLUMNS,
    RunSummary,
    SlideResult,
    Status,
    write_csv,
    write_json,
    write_report,
)

GOOD = SlideResult(
    name='a, "b"\nä',
    slide="/s/a.svs",
    store="/o/a.zarr",
    status="done",
    warnings=("one", "two; three"),
    tiles=100,
    passed_through=3,
    edge=10,
    seconds=4.0,
    seconds_planning=0.25,
    seconds_reading=1.23456,
    seconds_computing=2.0,
    seconds_writing=0.5,
    tiles_written=60,
)
DAMAGED = SlideResult(
    name="c",
    slide="/s/c.svs",
    store="/o/c.zarr",
    status="damaged",
    error="/s/c.svs: 2 of 50 tiles cannot be read",
    tiles=50,
    unreadable=2,
    unreadable_at=((960, 1440), (1200, 1440)),
    seconds=1.0,
    seconds_reading=1.0,
    tiles_written=50,
)
FAILED = SlideResult(
    name="d",
    slide="/s/d.svs",
    store="/o/d.zarr",
    status="failed",
    error="/s/d.svs: the file is empty; copy it again",
    traceback="Traceback\n  ...",
)


def make_summary(*slides: SlideResult, **changes: Any) -> RunSummary:
    facts: dict[str, Any] = {
        "seconds": 10.0004,
        "peak_memory_bytes": {"host:1": 1000},
        "settings": {"output": Path("/o"), "mpp": 0.5},
        "model": {"sha256": "1" * 64},
        "versions": {"numpy": "2"},
        "started": "2026-01-02T03:04:05+00:00",
    }
    return RunSummary(slides=slides, **(facts | changes))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_json_holds_everything(tmp_path: Path) -> None:
    summary = make_summary(GOOD, DAMAGED, FAILED)
    text = write_json(summary, tmp_path / "run.json").read_text("utf-8")
    document = json.loads(text)
    assert text.endswith("}\n")
    assert document["exit_status"] == 1
    assert document["interrupted"] is False
    assert document["seconds"] == 10.0
    assert document["tiles_per_second"] == 11.0
    assert document["started"] == "2026-01-02T03:04:05+00:00"
    assert document["settings"] == {"output": "/o", "mpp": 0.5}
    assert document["model"] == {"sha256": "1" * 64}
    assert document["versions"] == {"numpy": "2"}
    assert document["peak_memory_bytes"] == {"host:1": 1000}
    assert document["platform"]
    for slide, written in zip((GOOD, DAMAGED, FAILED), document["slides"], strict=True):
        for field in fields(SlideResult):
            value = getattr(slide, field.name)
            if isinstance(value, tuple):
                value = [list(v) if isinstance(v, tuple) else v for v in value]
            assert written[field.name] == value, field.name
    assert [slide["tiles_per_second"] for slide in document["slides"]] == [15.0, 50.0, 0.0]


def test_totals() -> None:
    totals = make_summary(GOOD, DAMAGED, FAILED, GOOD).totals()
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


def test_csv_has_a_row_per_slide(tmp_path: Path) -> None:
    path = write_csv([GOOD, DAMAGED, FAILED], tmp_path / "slides.csv")
    rows = read_csv(path)
    assert [tuple(row) for row in rows] == [CSV_COLUMNS] * 3
    good, damaged, failed = rows
    assert good["name"] == GOOD.name
    assert good["warnings"] == "one; two; three"
    assert good["error"] == ""
    assert good["seconds_reading"] == "1.235"
    assert good["tiles_per_second"] == "15.0"
    assert (damaged["tiles"], damaged["unreadable"], damaged["edge"]) == ("50", "2", "0")
    assert damaged["error"] == DAMAGED.error
    assert (failed["status"], failed["error"], failed["tiles"]) == ("failed", FAILED.error, "0")
    assert "Traceback" not in path.read_text("utf-8")


def test_csv_of_no_slides_has_a_header(tmp_path: Path) -> None:
    path = write_csv([], tmp_path / "slides.csv")
    assert path.read_text("utf-8").strip().split(",") == list(CSV_COLUMNS)


def test_both_are_written_and_replaced(tmp_path: Path) -> None:
    for slides in ([GOOD, FAILED], [DAMAGED]):
        paths = write_report(make_summary(*slides), tmp_path)
        assert paths == (tmp_path / "run.json", tmp_path / "slides.csv")
        assert len(json.loads(paths[0].read_text("utf-8"))["slides"]) == len(slides)
        assert len(read_csv(paths[1])) == len(slides)
    with pytest.raises(OSError, match="gone"):
        write_report(make_summary(GOOD), tmp_path / "gone")


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
    slides: tuple[SlideResult, ...], interrupted: bool, expected: int, tmp_path: Path
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


def test_no_time_is_no_speed() -> None:
    assert SlideResult("n", "s", "o", "done", tiles_written=5).tiles_per_second == 0
    assert make_summary(GOOD, seconds=0.0).tiles_per_second == 0
