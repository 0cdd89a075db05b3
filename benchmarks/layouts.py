"""What each layout of a store costs, and a whole slide: time, bytes, files, and levels' memory.

    python -m benchmarks.layouts [--edge PX] [--rounds N] [--slide FILE] [--output FOLDER]

One thread does everything; layouts take turns. Times are CPU seconds, so others on the machine
count little; look at ratios all the same.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import slides
from benchmarks.machine import child

GOES: dict[str, dict[str, Any]] = {
    "tiles": {},
    "pyramid": {"layout": "pyramid"},
    "both": {"layout": "both"},
    "plan": {"layout": "plan"},
    "pyramid, whole slide": {"layout": "pyramid", "whole_slide": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=12_000, help="of a synthetic slide, px")
    parser.add_argument("--slide", type=Path, help="a slide of your own instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("bench"))
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    slide = arguments.slide or slides.slide(output, arguments.edge)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in GOES}
    for _ in range(arguments.rounds):
        for name, settings in GOES.items():
            place = output / "scratch"
            answer = child(
                "benchmarks.layouts:once", slide=str(slide), output=str(place), **settings
            )
            if "failed" in answer:
                raise SystemExit(f"{name}: {answer['failed']}")
            found[name].append(answer)
    heads = ("layout", "tiles", *(key for key in found["tiles"][0] if key in UNITS))
    print(f"| {' | '.join([*heads[:2], *(UNITS[head] for head in heads[2:])])} |")
    print(f"| --- |{' ---: |' * (len(heads) - 1)}")
    for name, answers in found.items():
        middle = [statistics.median(answer[key] for answer in answers) for key in heads[1:]]
        print(f"| {name} | {' | '.join(f'{number:,.4g}' for number in middle)} |")


UNITS = {
    "planning_s": "planning, s",
    "shards_s": "shards, s per 1,000 tiles",
    "levels_s": "finish, s per 1,000 tiles",
    "tile_bytes": "bytes a tile",
    "beside_kb": "beside them, kB",
    "files": "files",
    "levels_mb": "finish, peak MB more",
}


def once(slide: str, output: str, **settings: Any) -> dict[str, Any]:
    """A slide's way through the pipeline, in this thread."""
    from dataclasses import replace

    from wsi_norm.config import RunConfig
    from wsi_norm.location import files_below
    from wsi_norm.pipeline import SlideJob, finish, prepare, process_shard
    from wsi_norm.pipeline.kept import kept_normalizer
    from wsi_norm.runner.checks import checked_model
    from wsi_norm.sources import SlideSource

    shutil.rmtree(output, ignore_errors=True)
    Path(output).mkdir(parents=True)
    config = RunConfig(output=Path(output), device="cpu", default_mpp=0.5, **settings)
    model, _ = checked_model(config)
    kept_normalizer(model, config)
    store = Path(output) / "slide.zarr"
    job = SlideJob(SlideSource(Path(slide), "slide"), store, config, model)
    times = [time.process_time()]
    prepared = prepare(job)
    job = replace(job, plan=prepared.plan)
    times.append(time.process_time())
    beside = sum(file.stat().st_size for file in files_below(store))
    for shard in prepared.missing:
        process_shard(job, shard)
    times.append(time.process_time())
    before = _memory("VmRSS", forget=True)
    finish(job)
    times.append(time.process_time())
    files, thousands = files_below(store), prepared.tiles / 1000
    return {
        "tiles": prepared.tiles,
        "planning_s": times[1] - times[0],
        "shards_s": (times[2] - times[1]) / thousands,
        "levels_s": (times[3] - times[2]) / thousands,
        "tile_bytes": (sum(file.stat().st_size for file in files) - beside) / prepared.tiles,
        "beside_kb": beside / 1e3,
        "files": len(files),
        "levels_mb": _memory("VmHWM") - before,
    }


def _memory(name: str, forget: bool = False) -> float:
    """MB of this process as Linux counts it; `forget` its peak so far."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    (size,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(size) / 1e3


if __name__ == "__main__":
    main()
