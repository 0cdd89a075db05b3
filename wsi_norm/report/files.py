"""What a run leaves beside its stores: report.html, run.json and slides.csv."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsi_norm.location import write_text
from wsi_norm.report.html import write_html
from wsi_norm.report.results import COUNTED, TIMED, RunSummary, SlideResult
from wsi_norm.tables import guarded

CSV_COLUMNS = (
    "name",
    "status",
    "error",
    "warnings",
    *COUNTED,
    "seconds",
    *TIMED.values(),
    "tiles_per_second",
    "slide",
    "store",
)


def write_report(summary: RunSummary, folder: Path) -> tuple[Path, Path, Path]:
    """Write `run.json`, `slides.csv` and `report.html` into a folder; OSError if that fails.

    The files for programs come first: they are there even if the last one fails.
    """
    return (
        write_json(summary, folder / "run.json"),
        write_csv(summary.slides, folder / "slides.csv"),
        write_html(summary, folder / "report.html"),
    )


def write_json(summary: RunSummary, path: Path) -> Path:
    """Everything, for programs."""
    document = {
        "started": summary.started,
        "seconds": round(summary.seconds, 3),
        "tiles_per_second": round(summary.tiles_per_second, 2),
        "exit_status": summary.exit_status,
        "interrupted": summary.interrupted,
        "passed_over": list(summary.passed_over),
        "totals": summary.totals(),
        "seconds_starting": round(summary.seconds_starting, 3),
        "threads": summary.threads,
        "stages": {
            stage: {"seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}
            for stage, (wall, cpu) in summary.stages().items()
        },
        "peak_memory_bytes": dict(summary.peak_memory_bytes),
        "settings": dict(summary.settings),
        "model": dict(summary.model),
        "versions": dict(summary.versions),
        "platform": platform.platform(),
        "slides": [
            {**slide.columns(), "tiles_per_second": round(slide.tiles_per_second, 2)}
            for slide in summary.slides
        ],
    }
    return write_text(path, json.dumps(document, indent=1, default=str) + "\n")


def profile_table(summary: RunSummary) -> str:
    """Where the workers' time went, in Markdown."""
    stages = summary.stages()
    whole = sum(wall for wall, _ in stages.values()) or 1.0
    tiles = summary.tiles_written or 1
    lines = [
        f"{summary.tiles_written} tiles in {summary.seconds:.1f} s, of which "
        f"{summary.seconds_starting:.1f} s to start {summary.threads} worker threads",
        "",
        "| stage | seconds | of workers' time | CPU seconds | ms a tile |",
        "|---|---|---|---|---|",
        *(
            f"| {stage} | {wall:.2f} | {wall / whole:.0%} | {cpu:.2f} | {1000 * wall / tiles:.2f} |"
            for stage, (wall, cpu) in stages.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def write_csv(slides: Sequence[SlideResult], path: Path) -> Path:
    """A row per slide, for people: safe in a spreadsheet. `run.json` has every name as it is."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, CSV_COLUMNS)
    writer.writeheader()
    writer.writerows(_row(slide) for slide in slides)
    return write_text(path, table.getvalue())


def _row(slide: SlideResult) -> dict[str, Any]:
    row = {**slide.columns(), "warnings": "; ".join(slide.warnings)}
    return {key: _cell(row[key]) for key in CSV_COLUMNS}


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return guarded(value)
    return round(value, 3) if isinstance(value, float) else value
