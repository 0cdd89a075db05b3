"""Results as JSON, as Markdown tables, as one picture, and in docs/performance.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.aims import STEADY, WHOLE, Aim, aims, median, ratio
from benchmarks.normalizers import DENSITY, FLOOR, KERNEL, PLAIN
from benchmarks.pipeline import DEFAULT, LIMIT, NATIVE, OURS, PACKAGES, SCRIPTS

RED, GREY, DARK = "#c2185b", "#90a4ae", "#37474f"


def read(output: Path, scale: str) -> dict[str, Any]:
    """What earlier goes of this size have left in a folder."""
    file = output / "results.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    return (
        found if found.get("scale") == scale and "dates" in found else {"scale": scale, "dates": {}}
    )


def write(results: Mapping[str, Any], output: Path) -> None:
    """results.json, results.md and, where there is something to draw, results.png."""
    (output / "results.json").write_text(json.dumps(results, indent=1))
    texts = [f"# Benchmark ({results['scale']} size)", *blocks(results).values()]
    (output / "results.md").write_text("\n\n".join(text for text in texts if text) + "\n")
    _draw(results, output / "results.png")


def write_docs(results: Mapping[str, Any], output: Path, docs: Path) -> None:
    """The blocks and the picture into performance.md and images/ of a folder."""
    page = docs / "performance.md"
    text = page.read_text()
    for name, block in blocks(results).items():
        if block:
            text = replaced(text, name, block)
    page.write_text(text)
    if (output / "results.png").exists():
        shutil.copy(output / "results.png", docs / "images" / "performance.png")


def replaced(page: str, name: str, text: str) -> str:
    """The page with what stands between the marks of a name replaced; ValueError without marks."""
    begin, end = f"<!-- make bench: {name} -->", f"<!-- end of {name} -->"
    head, found, rest = page.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"the page lacks the marks {begin} and {end}")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def blocks(results: Mapping[str, Any]) -> dict[str, str]:
    """What is written, by name: what a user wants to know, the aims, the tables."""
    parts = {
        "pipeline": _pipeline,
        "memory": _memory,
        "layer": _layer,
        "loading": _loading,
        "growth": _growth,
        "scheduler": _scheduler,
    }
    tables = [
        _section(table(results[name]), results["dates"][name])
        for name, table in parts.items()
        if name in results
    ]
    return {
        "short": "\n".join(_short(results)),
        "aims": aims_table(aims(results)),
        "tables": "\n\n".join([_machine(results["machine"]), *tables]),
    }


def aims_table(found: Sequence[Aim]) -> str:
    """What was wanted, what was measured."""
    rows = [[a.what, a.wanted, a.shown, "met" if a.is_met else "missed"] for a in found]
    return _table(["", "wanted", "measured", ""], rows) if rows else ""


def _section(text: str, date: str) -> str:
    """With the date of its go below its heading."""
    heading, _, rest = text.partition("\n\n")
    return f"{heading}\n\n{date}. {rest}"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB; "
        f"{machine['system']}, Python {machine['python']}; {versions}.\n\nglibc's malloc is tuned "
        "for everybody (as wsi-norm tunes it for its own workers); tiles and slides are synthetic "
        "H&E (`wsi_norm.synthetic`)."
    )


def _short(results: Mapping[str, Any]) -> Iterable[str]:
    """In a few sentences."""
    if "pipeline" in results:
        yield from _short_pipeline(results["pipeline"])
    if "memory" in results and (rows := results["memory"]["rows"]):
        sizes = [f"{row['largest_mb']:.0f} MB with {n} workers" for n, row in rows.items()]
        yield (
            f"- **Memory.** The largest worker takes {', '.join(sizes)} (proportional set size, "
            "small slides, tiles of 256 px, on Linux without a GPU)."
        )
    if ms := results.get("layer", {}).get("ms"):
        named = {
            "the default, density": DENSITY,
            "the paper's layer": KERNEL,
            "the fastest Reinhard of OpenCV": FLOOR,
            "the paper's layer as one would write it down with kornia": PLAIN,
        }
        said = [f"{what} {ms[n]['256']:.3g}" for what, n in named.items() if "256" in ms.get(n, {})]
        yield f"- **The layer alone**, ms a tile of 256 px on one thread: {', '.join(said)}."


def _short_pipeline(part: Mapping[str, Any]) -> Iterable[str]:
    for mpp, words in (
        (DEFAULT, f"brought to {DEFAULT} um/px, the default"),
        (NATIVE, "at that resolution"),
    ):
        job = part["jobs"][str(mpp)]
        rows = job["rows"]
        if OURS not in rows:
            continue
        steady, whole = median(rows, STEADY, OURS), median(rows, WHOLE, OURS)
        said = f"{steady:,.0f} tiles/s once it runs, {whole:,.0f} with its start and end counted"
        rivals = {"the faster careful script": SCRIPTS, "the best package": PACKAGES}
        ratios = [
            f"{ratio(rows, STEADY, [OURS], names):.2g} times {rival}"
            + (
                f" ({ratio(rows, WHOLE, [OURS], names):.2g} with the start)"
                if names == SCRIPTS
                else ""
            )
            for rival, names in rivals.items()
            if any(name in rows for name in names)
        ]
        if LIMIT in rows:
            share = ratio(rows, STEADY, [OURS], [LIMIT])
            ratios.append(f"{share:.0%} of what decoding and writing alone reach")
        if mpp == DEFAULT:
            said += f", the first shard {median(rows, 'start_s', OURS):.1f} s after Enter"
            said += f", at most {median(rows, 'worker_mb', OURS):.0f} MB a worker"
        yield (
            f"- **A slide of {NATIVE} um/px {words}** ({job['slide']}, {job['workers']} workers): "
            f"{said}: {', '.join(ratios)}."
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
        "### The layer alone\n\nms per tile, one thread (ratio to the floor), by tile edge in px; "
        "medians over rounds in which the contestants take turns; who needs more than 2 s for a "
        "tile has one round. The plain form transforms glass too and has each tile's own "
        "statistics.\n\n" + _table(["", *edges], rows) + _missing(part)
    )


def _pipeline(part: Mapping[str, Any]) -> str:
    about = (
        "Steady: from when every worker has written its first shard (of 64 tiles) to the last. "
        "Whole: from the launch of the command to its end; of ours with planning and report, which "
        "scripts do without: they are given the tiles. Start: until the first shard is there. CPU: "
        "user and system time of all processes while steady. Limit: our own run with "
        "`--normalizer none`, in the same round. MB: proportional set size of the largest process "
        "that does the work. Contestants with fewer tiles took part once. At "
        f"{DEFAULT} um/px scripts read level 0 and shrink it with cv2 (INTER_AREA). A tile that a "
        "script's normaliser raises on is written as it is. Kernels are compiled, and files are in "
        "the page cache."
    )
    tables = [_job(mpp, job) for mpp, job in part["jobs"].items()]
    demo = [f"{seconds:.1f}" for seconds in part["demo_s"]]
    said = f"\n\n`wsi-norm demo`, a slide drawn and run: {', '.join(demo)} s." if demo else ""
    return f"### End to end\n\n{about}\n\n" + "\n\n".join(tables) + said + _missing(part)


def _job(mpp: str, job: Mapping[str, Any]) -> str:
    rows, what = job["rows"], f"{NATIVE} to {mpp} um/px" if float(mpp) != NATIVE else f"{mpp} um/px"

    def cells(name: str) -> list[str]:
        best = max(answer[STEADY] for answer in rows[name])
        return [
            name,
            f"{median(rows, STEADY, name):.0f} ({best:.0f})",
            f"{median(rows, WHOLE, name):.0f}" if rows[name][0]["all_tiles"] else "-",
            f"{median(rows, 'start_s', name):.1f}",
            f"{median(rows, 'cpu_ms_per_tile', name):.2f}",
            f"{ratio(rows, STEADY, [name], [LIMIT]):.0%}",
            f"{median(rows, 'worker_mb', name):.0f}",
            f"{rows[name][0]['tiles']}",
        ]

    order = sorted(rows, key=lambda name: -median(rows, STEADY, name))
    head = "steady tiles/s (best)|whole tiles/s|start s|CPU ms a tile|of the limit|MB|tiles"
    return (
        f"**{what}**: {job['slide']} of 256 px, {job['workers']} worker processes, medians of "
        f"{job['rounds']} interleaved round(s).\n\n"
        + _table(["", *head.split("|")], map(cells, order))
        + _missing({"missing": job["failed"]})
    )


def _memory(part: Mapping[str, Any]) -> str:
    rows = [
        [
            workers,
            f"{row['median_mb']:.0f}",
            f"{row['largest_mb']:.0f}",
            f"{row['other_mb']:.0f}",
            f"{row['tiles']}",
        ]
        for workers, row in part["rows"].items()
    ]
    head = "workers|MB a worker, median|largest|MB of command and fork server|tiles"
    return (
        "### Memory\n\nProportional set size of processes at work, the largest seen of each, "
        f"looked at twice a second: {NATIVE} to {DEFAULT} um/px, two small slides for each "
        "worker and at least eight, all workers on the cores of this machine.\n\n"
        + _table(head.split("|"), rows)
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
        "### Loading\n\nTiles per second from a DataLoader, batches of 64, uint8 (3, 256, 256), of "
        f"{part['tiles']} normalised tiles of one slide (ratio to {part['reference']}); medians of "
        f"{part['rounds']} interleaved round(s), from the first batch on. Files are in the page "
        "cache. CPU: of workers and the process that they serve. A plan reads and normalises as "
        "it goes.\n\n" + _table(["", *head.split("|")], rows) + _missing(part)
    )


def _growth(part: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            "; ".join(f"{size}: {cost:.4g} ({note})" for size, cost, note in series["points"]),
            "-" if series["exponent"] is None else f"{series['exponent']:.2f}",
        ]
        for name, series in part["series"].items()
    ]
    return "### Growth\n\nSlope of log cost against log size.\n\n" + _table(
        ["", "size: cost", "exponent"], rows
    )


def _scheduler(part: Mapping[str, Any]) -> str:
    rows = []
    for go in part.values():
        if "failed" in go:
            return f"### Scheduler\n\nMissing: {go['failed']}"
        times = (f"{go[key]:.2f}" for key in ("ms", "ms_first_half", "ms_second_half", "cpu_ms"))
        memory = (f"{mb:.0f}" for mb in go["rss_mb"])
        rows.append([str(go["per_task"]), str(go["shards"]), *times, *memory])
    head = ["shards a task", "shards", "ms a shard", "first half", "second half", "its CPU ms"]
    head += ["MB at the start", "in the middle", "at the end"]
    said = "Shards that do nothing. Client and scheduler are one process: its CPU and memory."
    return f"### Scheduler\n\n{said}\n\n" + _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _missing(part: Mapping[str, Any]) -> str:
    lines = [f"- {name}: {reason}" for name, reason in part["missing"].items()]
    return "\n\nMissing:\n\n" + "\n".join(lines) if lines else ""


def _draw(results: Mapping[str, Any], path: Path) -> None:
    panels = []
    if job := results.get("pipeline", {}).get("jobs", {}).get(str(DEFAULT)):
        what = f"tiles per second, {NATIVE} to {DEFAULT} um/px"
        for key, when in ((STEADY, "steady"), (WHOLE, "whole run, start included")):
            rates = {
                name: median(job["rows"], key, name)
                for name, answers in job["rows"].items()
                if key == STEADY or answers[0]["all_tiles"]
            }
            panels.append((f"{what}, {when} (more is better)", rates))
    if ms := results.get("layer", {}).get("ms"):
        panels.append(("ms per tile of 256 px, one thread (less is better)", _at(ms, "256")))
    panels = [(title, {n: v for n, v in bars.items() if v > 0}) for title, bars in panels]
    panels = [panel for panel in panels if panel[1]]
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
    figure.supxlabel(note, fontsize=8, color=DARK)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _at(ms: Mapping[str, Mapping[str, float]], edge: str) -> dict[str, float]:
    return {name: edges[edge] for name, edges in ms.items() if edge in edges}


def _colour(name: str) -> str:
    if name.startswith("wsi-norm"):
        return RED
    return DARK if name.startswith("decode") or name == FLOOR else GREY
