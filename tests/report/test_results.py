"""RunSummary and SlideResult: totals, speed and exit status."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

import wsi_norm
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
        "fill": 0,
        "left_out": 0,
        "seconds_planning": 0.5,
        "seconds_reading": 3.469,
        "seconds_computing": 4.0,
        "seconds_writing": 1.0,
    }
    assert make_summary().totals()["slides"] == {}
    assert make_summary().totals()["tiles"] == 0


def result(status: Status, unreadable: int = 0) -> SlideResult:
    return SlideResult("n", "s", "o", status, counts={"tiles": 5, "unreadable": unreadable})


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


ANOTHER_FLAG = """
import sys
from pathlib import Path
import numpy as np
from wsi_norm.report import RunSummary, SlideResult, write_report
from wsi_norm.store import TileFlag, TileStore
from wsi_norm_cli.progress import print_summary

folder, path = Path(sys.argv[1]), sys.argv[2]
store = TileStore.open(path)
flags = np.where(np.arange(len(store)) < 7, TileFlag.OUT_OF_FOCUS, 0).astype(np.uint8)
store.write_shard(0, store[:], flags)
store.reopen()
counts = store.finish().counts
slide = SlideResult("case", "/s/case.svs", path, "done", counts=counts)
summary = RunSummary((slide,), 1.0, 0.0, 1, {}, {}, {}, {}, "2026-01-02T03:04:05+00:00")
write_report(summary, folder)
print_summary(summary, folder)
"""


def test_another_flag_is_a_line_in_the_store(tmp_path: Path, store_path: Path) -> None:
    """Counts, files, report and terminal name it: the package is copied, with that line added."""
    copy, line = tmp_path / "copy", '    FILL = 8, "mostly fill"\n'
    shutil.copytree(Path(wsi_norm.__file__).parent, copy / "wsi_norm")
    metadata = copy / "wsi_norm/store/metadata.py"
    text = metadata.read_text("utf-8")
    assert text.count(line) == 1
    metadata.write_text(text.replace(line, f'{line}    OUT_OF_FOCUS = 32, "blurred"\n'), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_FLAG, tmp_path, store_path],
        cwd=copy,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "30 tiles (7 blurred)" in done.stdout
    with (tmp_path / "slides.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["out_of_focus"], row["unreadable"]) == ("7", "0")
    document = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert document["slides"][0]["out_of_focus"] == document["totals"]["out_of_focus"] == 7
    page = (tmp_path / "report.html").read_text("utf-8")
    assert '<th scope="col">out of focus</th>' in page
    assert '<th scope="colgroup" colspan="7">Tiles</th>' in page
    assert "30, 7 blurred" in page
    stored = json.loads((store_path / "zarr.json").read_text("utf-8"))["attributes"]["wsi_norm"]
    assert stored["counts"]["out_of_focus"] == 7
