"""The benchmark: its modules still fit the package, and what it counts and compares is right."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zarr

import benchmarks
from benchmarks import commands, machine, report
from benchmarks.aims import aims, ratio
from benchmarks.growth import exponent
from benchmarks.pipeline import CAREFUL, CAREFUL_OPENSLIDE, LIMIT, ONE_WORKER, OURS, TORCHSTAIN


@pytest.mark.parametrize(
    "name",
    [
        module.name
        for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
        if not module.name.endswith("__main__")
    ],
)
def test_it_imports(name: str) -> None:
    importlib.import_module(name)


def test_shards_are_counted_by_their_files(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "tiles.zarr", shape=(10, 8), chunks=(1, 8), shards=(4, 8), dtype=np.uint8
    )
    array[:] = 7
    for index, when in enumerate((30, 10, 20)):
        (file,) = (
            path for path in (tmp_path / f"tiles.zarr/c/{index}").rglob("*") if path.is_file()
        )
        os.utime(file, (when, when))
    assert commands.shards([tmp_path / "tiles.zarr"]) == [(10, 4), (20, 2), (30, 4)]


def test_figures_are_of_what_was_written() -> None:
    go = machine.Watched(0.0, 12.0, cpu=[(4.0, 8.0), (12.0, 16.0)], worker_bytes={1: 2 << 20})
    found = commands.figures(go, [(3.0, 64), (4.0, 64), (6.0, 64), (8.0, 32)], first=2)
    assert found["tiles_per_s"] == 96 / 4
    assert found["whole_tiles_per_s"] == 224 / 12
    assert found["start_s"] == 3
    assert found["cpu_ms_per_tile"] == pytest.approx(1e3 * 4 / 96)
    assert found["worker_mb"] == 2
    assert commands.figures(machine.Watched(failed="no"), [], 1) == {"failed": "no"}


def test_memory_is_that_of_processes_which_start_no_other() -> None:
    child = "b = bytearray(b'x') * (64 << 20); print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        root = psutil.Process(process.pid)
        found = machine.Watched()
        machine._look([root, *root.children(recursive=True)], found)
        process.stdin.write("\n")
    assert [size > 64 << 20 for size in found.worker_bytes.values()] == [True]
    assert process.pid not in found.worker_bytes
    assert 0 < found.other_bytes < 64 << 20


def test_a_command_that_fails_says_why() -> None:
    go = machine.watched([sys.executable, "-c", "raise ValueError('wrong')"])
    assert go.failed == "ValueError: wrong"
    assert 0 < go.ended - go.started < 60


def rows(**rates: list[float]) -> dict[str, Any]:
    """Contestants by their rates in each round; whole runs have half of them."""
    return {
        name: [
            {
                "tiles_per_s": rate,
                "whole_tiles_per_s": rate / 2,
                "start_s": 1.5,
                "cpu_ms_per_tile": 1.0,
                "worker_mb": 300.0,
                "tiles": 100,
                "all_tiles": True,
            }
            for rate in found
        ]
        for name, found in rates.items()
    }


def results() -> dict[str, Any]:
    default = rows(
        **{
            OURS: [1000.0, 1200.0, 900.0],
            ONE_WORKER: [500.0, 600.0, 500.0],
            CAREFUL: [400.0, 300.0, 300.0],
            CAREFUL_OPENSLIDE: [100.0, 100.0, 500.0],
            TORCHSTAIN: [50.0],
            LIMIT: [2000.0, 2000.0, 2000.0],
        }
    )
    job = {"slide": "a slide", "workers": 2, "rounds": 3, "failed": {}, "rows": default}
    return {
        "scale": "quick",
        "dates": {"pipeline": "today", "growth": "yesterday"},
        "machine": {"cpu": "c", "cores": 2, "ram_gib": 8, "system": "s", "python": "3"}
        | {"versions": {"torch": "2"}, "date": "today"},
        "pipeline": {
            "jobs": {"0.5": job, "0.25": {**job, "rows": {}}},
            "demo_s": [4.0, 6.0, 4.5],
            "missing": {"gone": "why"},
        },
        "growth": {"series": {"a": {"points": [(1, 2.0, "n")], "exponent": 1.06}}},
    }


def test_ratios_are_of_each_round_and_of_the_best_rival() -> None:
    found = results()["pipeline"]["jobs"]["0.5"]["rows"]
    assert ratio(found, "tiles_per_s", [OURS], [CAREFUL, CAREFUL_OPENSLIDE]) == 2.5  # 2.5, 4, 1.8
    assert ratio(found, "tiles_per_s", [OURS], [TORCHSTAIN]) == 20  # it had one round


def test_aims_are_met_or_missed() -> None:
    found = {aim.what: (aim.shown, aim.is_met) for aim in aims(results())}
    assert found == {
        "0.25 to 0.5 um/px, steady: the faster careful script": ("2.5", True),
        "0.25 to 0.5 um/px, whole run: the faster careful script": ("2.5", True),
        "0.25 to 0.5 um/px, steady: the best package": ("20", True),
        "0.25 to 0.5 um/px, steady: one worker, by two": ("2", True),
        "0.25 to 0.5 um/px: seconds to the first tile": ("1.5", True),
        "0.25 to 0.5 um/px: MB a worker, 2 workers": ("300", False),
        "`wsi-norm demo`: seconds": ("4.5", True),
        "exponent: a": ("1.06", False),
    }


def test_exponents() -> None:
    assert exponent([(2, 6, ""), (4, 12, ""), (8, 24, "")]) == pytest.approx(1)
    assert exponent([(2, 6, "")]) is None


def test_blocks_go_between_their_marks(tmp_path: Path) -> None:
    marks = "".join(
        f"<!-- make bench: {name} -->old<!-- end of {name} -->\n"
        for name in ("short", "aims", "tables")
    )
    (tmp_path / "performance.md").write_text(f"before\n{marks}after\n")
    report.write_docs(results(), tmp_path, tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "1,000 tiles/s once it runs, 500 with its start and end counted" in page
    assert "| wsi-norm run | 1000 (1200) | 500 | 1.5 | 1.00 | 50% | 300 | 100 |" in page
    assert "### Growth\n\nyesterday. Slope" in page
    docs = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    for name in report.blocks(results()):
        assert "new" in report.replaced(docs, name, "new")
    with pytest.raises(ValueError, match="lacks the marks"):
        report.replaced("a page", "short", "")
