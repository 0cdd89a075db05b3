"""Results as JSON, as Markdown tables and as one picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.normalizers import FLOOR

OURS, THEIRS, BOUND = "#c2185b", "#90a4ae", "#37474f"


def write(results: Mapping[str, Any], output: Path) -> None:
    """results.json, results.md and, where there is something to draw, results.png."""
    (output / "results.json").write_text(json.dumps(results, indent=1))
    sections = [_machine(results["machine"], results["scale"])]
    parts = {
        "layer": _layer,
        "pipeline": _pipeline,
        "loading": _loading,
        "growth": _growth,
        "scheduler": _scheduler,
    }
    sections += [write(results[name]) for name, write in parts.items() if name in results]
    (output / "results.md").write_text("\n\n".join(sections) + "\n")
    _draw(results, output / "results.png")


def _machine(machine: Mapping[str, Any], scale: str) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"# Benchmark ({scale} size), {machine['date']}\n\n{machine['cpu']}, {machine['cores']} "
        f"cores, {machine['ram_gib']} GiB; {machine['system']}, Python {machine['python']}; "
        f"{versions}.\n\nglibc's malloc is tuned for everybody (as wsi-norm tunes it for its own "
        "workers); tiles and slides are synthetic H&E (`wsi_norm.synthetic`)."
    )


def _layer(part: Mapping[str, Any]) -> str:
    edges = sorted({edge for ms in part["ms"].values() for edge in ms}, key=int)
    ordered = sorted(part["ms"].items(), key=lambda item: item[1].get("256", 0))
    floor = part["ms"].get(FLOOR, {})
    rows = [
        [
            name,
            *(
                f"{ms[e]:.2f} ({ms[e] / floor[e]:.1f})" if e in ms and e in floor else "-"
                for e in edges
            ),
        ]
        for name, ms in ordered
    ]
    return (
        "## The layer alone\n\nms per tile, one thread (ratio to the floor), by tile edge in px; "
        "medians over rounds in which the contestants take turns; who needs more than 2 s for a "
        "tile has one round. The plain form transforms glass too and has each tile's own "
        "statistics.\n\n" + _table(["", *edges], rows) + _missing(part)
    )


def _pipeline(part: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['tiles_per_s']:.0f} ({row['best_tiles_per_s']:.0f})",
            f"{row['wall_tiles_per_s']:.0f}" if row["wall_tiles_per_s"] else "-",
            f"{row['start_s']:.1f}",
            f"{row['cpu_ms_per_tile']:.2f}",
            f"{row['share']:.0%}" if row["share"] else "-",
            f"{row['peak_mb']:.0f}",
            f"{row['tiles']:.0f}",
        ]
        for name, row in sorted(part["rows"].items(), key=lambda item: -item[1]["tiles_per_s"])
    ]
    head = "steady tiles/s (best)|whole run, tiles/s|start s|CPU ms a tile|of the limit|MB|tiles"
    return (
        f"## End to end\n\n{part['slide']} of 256 px, {part['workers']} worker processes, medians "
        f"of {part['rounds']} interleaved round(s); contestants with fewer tiles took part once. "
        "Steady: from the plan (wsi-norm) or from when all workers are ready (scripts) to the last "
        "tile. Start: until every worker is ready. Whole run: start, plan and end included. CPU: "
        "user and system time of all processes while steady. Limit: decode + write by wsi-norm's "
        "own run without the normaliser, with the same reader, of the same round. MB: the largest "
        "single process. A tile that a script's normaliser raises on is written as it is.\n\n"
        + _table(["", *head.split("|")], rows)
        + _missing(part)
    )


def _loading(part: Mapping[str, Any]) -> str:
    reference = part["rows"].get(part["reference"], {})

    def cells(row: Mapping[str, Any], workers: str) -> list[str]:
        if workers not in row:
            return ["-", "-"]
        rate, base = row[workers]["tiles_per_s"], reference.get(workers, {}).get("tiles_per_s")
        ratio = f" ({rate / base:.1f})" if base else ""
        return [f"{rate:.0f}{ratio}", f"{row[workers]['cpu_ms_per_tile']:.2f}"]

    rows = [
        [name, *cells(row, "1"), *cells(row, "2"), f"{row['bytes'] / 1000:.1f}"]
        for name, row in part["rows"].items()
    ]
    head = "1 worker: tiles/s|CPU ms a tile|2 workers: tiles/s|CPU ms a tile|kB a tile"
    return (
        f"## Loading\n\nTiles per second from a DataLoader, batches of 64, uint8 (3, 256, 256), of "
        f"{part['tiles']} normalised tiles of one slide (ratio to {part['reference']}); medians of "
        f"{part['rounds']} interleaved round(s), from the first batch on. Files are in the page "
        "cache. CPU: of workers and the process that they serve. A plan reads and normalises as "
        "it goes.\n\n" + _table(["", *head.split("|")], rows) + _missing(part)
    )


def _growth(part: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            "; ".join(
                note if size is None else f"{size}: {cost:.4g} ({note})"
                for size, cost, note in series["points"]
            ),
            "-" if series["exponent"] is None else f"{series['exponent']:.2f}",
        ]
        for name, series in part["series"].items()
    ]
    return (
        "## Growth\n\nSlope of log cost against log size; seconds from the first slide's plan (or "
        "first shard) to the last shard, without the start of Python, workers and layer.\n\n"
        + _table(["", "size: cost", "exponent"], rows)
    )


def _scheduler(part: Mapping[str, Any]) -> str:
    if "failed" in part:
        return f"## Scheduler\n\nMissing: {part['failed']}"
    start, middle, end = part["rss_mb"]
    return (
        f"## Scheduler\n\n{part['tasks']} no-op shard tasks: {part['ms_per_task']:.2f} ms a task "
        f"({part['ms_per_task_first_half']:.2f} in the first half, "
        f"{part['ms_per_task_second_half']:.2f} in the second). Memory of client and scheduler, "
        f"one process: {start:.0f} MB at the start, {middle:.0f} in the middle, {end:.0f} at the "
        "end."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _missing(part: Mapping[str, Any]) -> str:
    lines = [f"- {name}: {reason}" for name, reason in part["missing"].items()]
    return "\n\nMissing:\n\n" + "\n".join(lines) if lines else ""


def _draw(results: Mapping[str, Any], path: Path) -> None:
    panels = []
    if ms := results.get("layer", {}).get("ms"):
        panels.append(("ms per tile of 256 px, one thread (less is better)", _at(ms, "256")))
    if rows := results.get("pipeline", {}).get("rows"):
        rates = {name: row["tiles_per_s"] for name, row in rows.items()}
        panels.append(("tiles per second, file to store (more is better)", rates))
    if not panels:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 0.3 * sum(len(bars) + 3 for _, bars in panels)))
    FigureCanvasAgg(figure)
    ratios = {"height_ratios": [len(bars) + 1 for _, bars in panels]}
    axes = figure.subplots(len(panels), squeeze=False, gridspec_kw=ratios)[:, 0]
    for axis, (title, bars) in zip(axes, panels, strict=True):
        best_first = sorted(bars.items(), key=lambda bar: bar[1], reverse="second" not in title)
        names, values = zip(*best_first, strict=True)
        drawn = axis.barh(names, values, color=[_colour(name) for name in names], height=0.7)
        axis.bar_label(
            drawn, [f"{v:.0f}" if v > 99 else f"{v:.3g}" for v in values], padding=3, fontsize=8
        )
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlim(min(values) / 2, max(values) * 2)
        axis.set_title(title, loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    machine = results["machine"]
    note = "red: wsi-norm, dark: bounds, grey: others"
    note += f" | {machine['cpu']}, {machine['cores']} cores, {machine['date'][:10]}"
    figure.supxlabel(note, fontsize=8, color=BOUND)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _at(ms: Mapping[str, Mapping[str, float]], edge: str) -> dict[str, float]:
    return {name: edges[edge] for name, edges in ms.items() if edge in edges}


def _colour(name: str) -> str:
    if name.startswith("wsi-norm"):
        return OURS
    return BOUND if name.startswith("decode") or name == FLOOR else THEIRS
