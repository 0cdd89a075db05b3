"""End to end: one slide of 0.25 um/px, the same tissue tiles, from the file to written tiles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks import commands, slides
from benchmarks.machine import child_command, facts, watched
from benchmarks.normalizers import FLOOR, MISSING, PLAIN
from benchmarks.scale import Scale

DEFAULT, NATIVE = 0.5, slides.MPP_UM
"""um/px: what a run brings slides to, and the resolution of the slide itself."""

RUN, LOOP, PATCHING = "run", "benchmarks.loops:loop", "benchmarks.loops:wsi_patching"

OURS = "wsi-norm run"
ONE_WORKER = f"{OURS}, one worker"
EXACT = f"{OURS} --resample exact"
LIMIT = "decode + write (ours, --normalizer none)"
CAREFUL = "careful script: fastslide, cv2 Reinhard, zarr-python"
CAREFUL_OPENSLIDE = "careful script: OpenSlide, cv2 Reinhard, zarr-python"
TORCHSTAIN = "plain script: OpenSlide, torchstain Macenko, PNG"
WSI_PATCHING = "wsi-patching: Reinhard, WebDataset"
PLAIN_LAYER = "plain kornia layer: OpenSlide, PNG"

SCRIPTS = CAREFUL, CAREFUL_OPENSLIDE
PACKAGES = TORCHSTAIN, WSI_PATCHING


class Contestant(NamedTuple):
    """`tiles` limits the slow ones, which also take part once; None is all tiles."""

    name: str
    function: str
    arguments: dict[str, Any]
    tiles: int | None = None
    mpp_um: tuple[float, ...] = (DEFAULT, NATIVE)


CONTESTANTS = (
    Contestant(OURS, RUN, {}),
    Contestant(ONE_WORKER, RUN, {"workers": 1}, mpp_um=(DEFAULT,)),
    Contestant(EXACT, RUN, {"resample": "exact"}, mpp_um=(DEFAULT,)),
    Contestant(f"{OURS} --codec blosc", RUN, {"codec": "blosc"}),
    Contestant(f"{OURS} --reader openslide", RUN, {"reader": "openslide"}),
    Contestant(f"{OURS} --ckpt paper", RUN, {"ckpt": "paper"}),
    Contestant(LIMIT, RUN, {"normalizer": "none"}),
    Contestant(CAREFUL, LOOP, {"reader": "fastslide", "normalizer": FLOOR, "writer": "zarr"}),
    Contestant(
        CAREFUL_OPENSLIDE, LOOP, {"reader": "openslide", "normalizer": FLOOR, "writer": "zarr"}
    ),
    Contestant(
        "decode + write: OpenSlide, zarr-python",
        LOOP,
        {"reader": "openslide", "normalizer": None, "writer": "zarr"},
    ),
    Contestant(
        TORCHSTAIN,
        LOOP,
        {
            "reader": "openslide",
            "normalizer": "torchstain Macenko, torch",
            "writer": "png",
            "chunk": 16,
        },
        768,
    ),
    Contestant(WSI_PATCHING, PATCHING, {}, 400),
    Contestant(
        PLAIN_LAYER,
        LOOP,
        {"reader": "openslide", "normalizer": PLAIN, "writer": "png", "chunk": 8},
        160,
        mpp_um=(DEFAULT,),
    ),
)


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """The default job, then the slide's own resolution."""
    warm = watched([*commands.COMMAND, "warm-up"])
    if warm.failed:
        raise SystemExit(f"warm-up: {warm.failed}")
    edges = {DEFAULT: scale.slide_edge, NATIVE: scale.native_slide_edge}
    return {
        "jobs": {str(mpp): _job(mpp, edge, scale, output) for mpp, edge in edges.items()},
        "demo_s": _demo(scale, output / "scratch"),
        "missing": {name: MISSING[name] for name in ("tiatoolbox", "squidpy", "histolab")},
    }


def _job(mpp_um: float, edge: int, scale: Scale, output: Path) -> dict[str, Any]:
    """Each contestant's figures, a list over rounds, in which they take turns."""
    slide, corners = slides.slide(output, edge), slides.tissue(output, edge, mpp_um)
    workers, rows, failed = facts()["cores"], {}, {}
    for turn in range(scale.pipeline_rounds):
        for contestant in CONTESTANTS:
            if mpp_um not in contestant.mpp_um or (turn and contestant.tiles is not None):
                continue
            tiles = contestant.tiles and max(48, int(contestant.tiles * scale.pipeline_share))
            some = corners if tiles is None else _middle(corners, tiles)
            answer = _go(contestant, slide, some, mpp_um, workers, output / "scratch")
            print(f"{mpp_um} {contestant.name}:", _line(answer), flush=True)
            if "failed" in answer:
                failed[contestant.name] = f"round {turn + 1}: {answer['failed']}"
            else:
                answer["all_tiles"] = answer["tiles"] == len(corners)
                rows.setdefault(contestant.name, []).append(answer)
    return {
        "slide": f"{edge} x {edge} px, {len(corners)} tissue tiles",
        "workers": workers,
        "rounds": scale.pipeline_rounds,
        "rows": rows,
        "failed": failed,
    }


def _go(
    contestant: Contestant,
    slide: Path,
    corners: list[list[int]],
    mpp_um: float,
    workers: int,
    scratch: Path,
) -> dict[str, Any]:
    if contestant.function == RUN:
        return commands.run(
            [slide], scratch, **{"workers": workers, "mpp": mpp_um, **contestant.arguments}
        )
    arguments = {**contestant.arguments, "slide": str(slide), "output": str(scratch)}
    shrink = round(mpp_um / slides.MPP_UM)
    if contestant.function == LOOP:
        arguments |= {"workers": workers, "corners": corners, "shrink": shrink}
    else:
        arguments |= {"box": _box(corners, shrink), "mpp_um": mpp_um}
    shutil.rmtree(scratch, ignore_errors=True)
    with TemporaryDirectory() as folder:
        file = Path(folder, "answer.json")
        go = watched(child_command(contestant.function, file, **arguments))
        answer = {} if go.failed else json.loads(file.read_text())
    written = answer.get("written") or _written(scratch)
    first = workers * contestant.arguments.get("chunk", 64) if _is_png(contestant) else workers
    found = commands.figures(go, written, 1 if "written" in answer else first)
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def _is_png(contestant: Contestant) -> bool:
    return contestant.arguments.get("writer") == "png"


def _written(output: Path) -> list[tuple[float, int]]:
    """What a script wrote: shards, or a file for each tile."""
    return commands.shards(output.glob("tiles.zarr")) + sorted(
        (file.stat().st_mtime, 1) for file in output.glob("*.png")
    )


def _demo(scale: Scale, scratch: Path) -> list[float]:
    """Seconds of `wsi-norm demo`, which draws a slide of its own, each from nothing."""
    seconds = []
    for _ in range(scale.pipeline_rounds):
        shutil.rmtree(scratch, ignore_errors=True)
        go = watched([*commands.COMMAND, "demo", f"--output={scratch}"])
        if not go.failed:
            seconds.append(go.ended - go.started)
    shutil.rmtree(scratch, ignore_errors=True)
    return seconds


def _middle(corners: list[list[int]], number: int) -> list[list[int]]:
    """That many tiles in a row, from the middle of the order."""
    first = max(0, (len(corners) - number) // 2)
    return corners[first : first + number]


def _box(corners: list[list[int]], shrink: int) -> list[int]:
    """A square of about as many tiles around the middle one, in px of the job's resolution."""
    edge = int(len(corners) ** 0.5) * 256
    x, y = (place // shrink for place in corners[len(corners) // 2])
    ends = (max(corner[axis] for corner in corners) // shrink + 256 - edge for axis in (0, 1))
    return [*(max(0, min(place, end)) for place, end in zip((x, y), ends, strict=True)), edge, edge]


def _line(answer: dict[str, Any]) -> str:
    if "failed" in answer:
        return answer["failed"]
    return (
        f"{answer['tiles_per_s']:.0f}/s steady, {answer['whole_tiles_per_s']:.0f}/s of the whole, "
        f"start {answer['start_s']:.1f} s, {answer['cpu_ms_per_tile']:.2f} ms of CPU a tile, "
        f"{answer['worker_mb']:.0f} MB a worker"
    )
