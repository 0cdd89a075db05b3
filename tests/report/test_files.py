"""run.json and slides.csv, read back; report.html beside them."""

import csv
import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from wsi_norm.report import (
    CSV_COLUMNS,
    RunSummary,
    SlideResult,
    profile_table,
    write_csv,
    write_json,
    write_report,
)
from wsi_norm.tables import read_table
from wsi_norm.text import shown

MakeSummary = Callable[..., RunSummary]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_json_holds_everything(
    tmp_path: Path,
    make_summary: MakeSummary,
    good: SlideResult,
    damaged: SlideResult,
    failed: SlideResult,
) -> None:
    summary = make_summary(good, damaged, failed)
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
    for slide, written in zip((good, damaged, failed), document["slides"], strict=True):
        for field in fields(SlideResult):
            if field.name in {"counts", "spent"}:
                continue
            value = getattr(slide, field.name)
            if isinstance(value, tuple):
                value = [list(v) if isinstance(v, tuple) else v for v in value]
            assert written[field.name] == value, field.name
    first, second, _ = document["slides"]
    flags = ("tiles", "unreadable", "passed_through", "edge", "fill", "left_out")
    assert [first[key] for key in flags] == [100, 0, 3, 10, 0, 0]
    assert [second[key] for key in flags] == [50, 2, 0, 0, 0, 0]
    names = ("planning", "reading", "computing", "writing")
    assert [first[f"seconds_{name}"] for name in names] == [0.25, 1.23456, 2.0, 0.5]
    assert [second[f"seconds_{name}"] for name in names] == [0.0, 1.0, 0.0, 0.0]
    assert [first["cpu_seconds"][name] for name in names] == [0.2, 1.0, 1.9, 0.25]
    assert [slide["tiles_per_second"] for slide in document["slides"]] == [15.0, 50.0, 0.0]


def test_csv_has_a_row_per_slide(
    tmp_path: Path, good: SlideResult, damaged: SlideResult, failed: SlideResult
) -> None:
    path = write_csv([good, damaged, failed], tmp_path / "slides.csv")
    rows = read_csv(path)
    assert [tuple(row) for row in rows] == [CSV_COLUMNS] * 3
    first, second, third = rows
    assert first["name"] == shown(good.name)
    assert first["warnings"] == "one; two; three"
    assert first["error"] == ""
    assert first["seconds_reading"] == "1.235"
    assert first["tiles_per_second"] == "15.0"
    assert (second["tiles"], second["unreadable"], second["edge"]) == ("50", "2", "0")
    assert second["error"] == damaged.error
    assert (third["status"], third["error"], third["tiles"]) == ("failed", failed.error, "0")
    assert "Traceback" not in path.read_text("utf-8")


def test_csv_holds_no_formulas(tmp_path: Path, failed: SlideResult) -> None:
    """Neither in names nor in messages; `read_table` gives the name back."""
    bad = replace(failed, name="=cmd|' /C calc'!A0", slide="@x", error="-2+3", store="\t=1")
    path = write_csv([bad], tmp_path / "slides.csv")
    (row,) = read_csv(path)
    assert (row["name"], row["slide"], row["error"]) == ("'=cmd|' /C calc'!A0", "'@x", "'-2+3")
    assert row["store"] == "\\t=1"
    assert read_table(path, "slides").rows[0].fields["name"] == bad.name


def test_csv_of_no_slides_has_a_header(tmp_path: Path) -> None:
    path = write_csv([], tmp_path / "slides.csv")
    assert path.read_text("utf-8").strip() == (
        "name,status,error,warnings,tiles,unreadable,passed_through,edge,fill,left_out,"
        "seconds,seconds_planning,seconds_reading,seconds_computing,seconds_writing,"
        "tiles_per_second,slide,store"
    )


def test_all_three_are_written_and_replaced(
    tmp_path: Path,
    make_summary: MakeSummary,
    good: SlideResult,
    damaged: SlideResult,
    failed: SlideResult,
) -> None:
    for slides in ([good, failed], [damaged]):
        paths = write_report(make_summary(*slides), tmp_path)
        assert paths == tuple(tmp_path / name for name in ("run.json", "slides.csv", "report.html"))
        assert ("/s/d.svs" in paths[2].read_text("utf-8")) == (failed in slides)
        assert len(json.loads(paths[0].read_text("utf-8"))["slides"]) == len(slides)
        assert len(read_csv(paths[1])) == len(slides)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    with pytest.raises(OSError, match=r"run\.json"):
        write_report(make_summary(good), paths[0])


def test_a_name_that_is_no_text_is_still_written(
    tmp_path: Path, make_summary: MakeSummary, good: SlideResult
) -> None:
    """File names are bytes on POSIX; Python carries what is no UTF-8 as lone surrogates."""
    odd = replace(good, name=os.fsdecode(b"caf\xe9"))
    for path in write_report(make_summary(odd), tmp_path):
        assert "caf\\udce9" in path.read_text("utf-8")


def test_the_profile_accounts_for_the_time_of_all_workers(
    good: SlideResult, make_summary: MakeSummary
) -> None:
    summary = make_summary(good)
    stages = summary.stages()
    assert sum(wall for wall, _ in stages.values()) == pytest.approx(2 * (10.0004 - 1.5))
    assert stages["computing"] == (2.0, 1.9)
    rows = [line.split(" | ") for line in profile_table(summary).splitlines() if "ms" not in line]
    table = {row[0].removeprefix("| "): row[1:] for row in rows if len(row) == 5}
    assert table["writing"] == ["0.50", "3%", "0.25", f"{500 / good.tiles_written:.2f} |"]
    assert table["waiting"][0] == f"{2 * 8.5004 - 0.25 - 1.23456 - 2 - 0.5:.2f}"


def test_run_json_has_the_stages(
    good: SlideResult, make_summary: MakeSummary, tmp_path: Path
) -> None:
    document = json.loads(write_json(make_summary(good), tmp_path / "run.json").read_text())
    assert document["stages"]["reading"] == {"seconds": 1.235, "cpu_seconds": 1.0}
    assert (document["threads"], document["seconds_starting"]) == (2, 1.5)
