"""`wsi-norm run` as users start it, and what can be seen of it from outside: shards' files."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import Watched, watched

COMMAND = sys.executable, "-c", "from cli.main import main; main()"
"""`wsi-norm` of this checkout."""


def run(
    slides: Iterable[Path],
    output: Path,
    workers: int | None,
    timeout_s: float = 600,
    look_s: float = 1.0,
    **settings: Any,
) -> dict[str, Any]:
    """A whole run with its report, over slides, into a folder that is there for it alone.

    Returns
    -------
    As `figures`.
    """
    options = {"output": output, "workers": workers, **settings}
    words = [
        f"--{key.replace('_', '-')}={said}" for key, said in options.items() if said is not None
    ]
    shutil.rmtree(output, ignore_errors=True)
    go = watched([*COMMAND, "run", *map(str, slides), *words, "--quiet"], timeout_s, look_s)
    answer = figures(go, [] if go.failed else shards(output.glob("*.zarr/tiles")), workers or 1)
    shutil.rmtree(output, ignore_errors=True)
    return answer


def shards(arrays: Iterable[Path]) -> list[tuple[float, int]]:
    """(when it was written, tiles) of each shard of zarr arrays, from early to late."""
    found = []
    for array in arrays:
        meta = json.loads((array / "zarr.json").read_text())
        tiles, each = meta["shape"][0], meta["chunk_grid"]["configuration"]["chunk_shape"][0]
        for folder in (array / "c").iterdir():
            (file,) = (path for path in folder.rglob("*") if path.is_file())
            found.append((file.stat().st_mtime, min(each, tiles - each * int(folder.name))))
    return sorted(found)


def figures(go: Watched, written: Sequence[tuple[float, int]], first: int) -> dict[str, Any]:
    """What a contestant is judged by: a dict, or only `failed`, the reason in a line.

    Steady is from when the `first` ones of what was written were there (one of each worker) to the
    last; nan where there is no more.

    Parameters
    ----------
    written
        (seconds since the epoch, tiles), from early to late.
    """
    if go.failed or not written:
        return {"failed": go.failed or "nothing was written"}
    first = min(first, len(written))
    start, end = written[first - 1][0], written[-1][0]
    steady, tiles = (sum(number for _, number in part) for part in (written[first:], written))
    whole_s = go.ended - go.started
    return {
        "tiles": tiles,
        "steady_tiles": steady,
        "steady_s": end - start,
        "tiles_per_s": steady / (end - start) if steady else math.nan,
        "whole_s": whole_s,
        "whole_tiles_per_s": tiles / whole_s,
        "start_s": written[0][0] - go.started,
        "cpu_ms_per_tile": 1e3 * go.cpu_s(start, end) / steady if steady else math.nan,
        "whole_cpu_s": go.cpu_s(go.started, go.ended),
        "workers_mb": sorted(size / 2**20 for size in go.worker_bytes.values()),
        "worker_mb": max(go.worker_bytes.values(), default=math.nan) / 2**20,
        "other_mb": go.other_bytes / 2**20,
    }
