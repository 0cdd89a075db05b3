"""End to end: one slide, the same tissue tiles, from the file to written tiles."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import slides
from benchmarks.machine import child, facts
from benchmarks.normalizers import FLOOR, MISSING, PLAIN
from benchmarks.scale import Scale

RUN, LOOP, PATCHING = (
    "benchmarks.runs:normalize",
    "benchmarks.loops:loop",
    "benchmarks.loops:wsi_patching",
)
LIMIT = "decode + write (ours, no normaliser)"
OPENSLIDE_LIMIT = "decode + write (ours, OpenSlide, no normaliser)"
SLIDE = "wsi-norm run, slide statistics"
TILE = "wsi-norm run, tile statistics"


class Contestant(NamedTuple):
    """`tiles` limits the slow ones, which also take part once; None is all tiles.

    `limit` is the contestant that reads and writes in the same way and does nothing else.
    """

    name: str
    function: str
    arguments: dict[str, Any]
    tiles: int | None = None
    limit: str = LIMIT


CONTESTANTS = (
    Contestant("decode only (ours)", RUN, {"only": "decode"}),
    Contestant(LIMIT, RUN, {"only": "decode_and_write"}),
    Contestant(SLIDE, RUN, {"statistics": "slide"}),
    Contestant(TILE, RUN, {"statistics": "tile"}),
    Contestant(f"{SLIDE}, blosc", RUN, {"codec": "blosc"}),
    Contestant(OPENSLIDE_LIMIT, RUN, {"only": "decode_and_write", "reader": "openslide"}),
    Contestant(f"{SLIDE}, OpenSlide", RUN, {"reader": "openslide"}, limit=OPENSLIDE_LIMIT),
    Contestant(
        "decode + write: OpenSlide tile by tile, zarr-python",
        LOOP,
        {"reader": "openslide", "normalizer": None, "writer": "zarr"},
    ),
    Contestant(
        "careful script: fastslide, cv2 Reinhard, zarr-python",
        LOOP,
        {"reader": "fastslide", "normalizer": FLOOR, "writer": "zarr"},
    ),
    Contestant(
        "plain script: OpenSlide, torchstain Macenko, PNG",
        LOOP,
        {"reader": "openslide", "normalizer": "torchstain Macenko, torch", "writer": "png"},
        1024,
    ),
    Contestant(
        "plain kornia layer: OpenSlide, PNG",
        LOOP,
        {"reader": "openslide", "normalizer": PLAIN, "writer": "png", "chunk": 8},
        160,
    ),
    Contestant("wsi-patching: Reinhard, WebDataset", PATCHING, {}, 400),
)


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """Median over rounds of each contestant, in turn within a round."""
    slide, corners = slides.slide(output, scale.slide_edge), slides.tissue(output, scale.slide_edge)
    workers = facts()["cores"]
    answers: dict[str, list[dict[str, Any]]] = {}
    for turn in range(scale.pipeline_rounds):
        for contestant in CONTESTANTS:
            if turn and contestant.tiles is not None:
                continue
            answer = _go(contestant, str(slide), corners, workers, scale, output / "scratch")
            answers.setdefault(contestant.name, []).append(answer)
            print(contestant.name, answer.get("failed") or f"{answer['tiles_per_s']:.0f}/s")
    for contestant in CONTESTANTS:
        limits = [answer.get("tiles_per_s") for answer in answers[contestant.limit]]
        for answer, limit in zip(answers[contestant.name], limits, strict=False):
            if limit and "failed" not in answer:
                answer["share"] = answer["tiles_per_s"] / limit
    good = {name: [a for a in found if "failed" not in a] for name, found in answers.items()}
    failed = {
        name: f"round {turn + 1}: {answer['failed']}"
        for name, found in answers.items()
        for turn, answer in enumerate(found)
        if "failed" in answer
    }
    return {
        "slide": f"{scale.slide_edge} x {scale.slide_edge} px, {len(corners)} tissue tiles",
        "workers": workers,
        "rounds": scale.pipeline_rounds,
        "rows": {name: _median(found) for name, found in good.items() if found},
        "missing": failed | {name: MISSING[name] for name in ("tiatoolbox", "squidpy", "histolab")},
    }


def _go(
    contestant: Contestant,
    slide: str,
    corners: list[list[int]],
    workers: int,
    scale: Scale,
    scratch: Path,
) -> dict[str, Any]:
    arguments = {**contestant.arguments, "output": str(scratch)}
    limit = contestant.tiles and max(32, int(contestant.tiles * scale.pipeline_share))
    if contestant.function == RUN:
        arguments |= {"slides": [slide], "workers": workers}
    elif contestant.function == LOOP:
        some = corners if limit is None else _middle(corners, limit)
        arguments |= {"slide": slide, "workers": workers, "corners": some}
    else:
        arguments |= {"slide": slide, "box": _box(corners, limit or 400)}
    shutil.rmtree(scratch, ignore_errors=True)
    answer = child(contestant.function, **arguments)
    shutil.rmtree(scratch, ignore_errors=True)
    if "failed" not in answer:
        answer["start_s"] = answer["ready_at"] - answer["started"]
        answer["all_tiles"] = answer["tiles"] == len(corners)
    return answer


def _middle(corners: list[list[int]], number: int) -> list[list[int]]:
    """That many tiles in a row, from the middle of the order."""
    first = max(0, (len(corners) - number) // 2)
    return corners[first : first + number]


def _box(corners: list[list[int]], tiles: int) -> list[int]:
    """A square of about that many tiles around the middle tile, within the tissue's extent."""
    edge = int(tiles**0.5) * 256
    x, y = corners[len(corners) // 2]
    last_x, last_y = (max(corner[axis] for corner in corners) + 256 - edge for axis in (0, 1))
    return [max(0, min(x, last_x)), max(0, min(y, last_y)), edge, edge]


def _median(answers: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("tiles_per_s", "cpu_ms_per_tile", "start_s", "wall_s", "peak_mb", "tiles")
    row = {key: statistics.median(answer[key] for answer in answers) for key in keys}
    shares = [answer["share"] for answer in answers if "share" in answer]
    row["share"] = statistics.median(shares) if shares else None
    row["best_tiles_per_s"] = max(answer["tiles_per_s"] for answer in answers)
    row["wall_tiles_per_s"] = row["tiles"] / row["wall_s"] if answers[0]["all_tiles"] else None
    return row
