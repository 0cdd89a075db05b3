"""Pages of the gallery: index.html with pictures, gallery.md with counts alone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.gallery.faults import FAULTS
from benchmarks.gallery.subjects import PACKAGED
from benchmarks.gallery.work import Result, Row

BEGIN, END = "<!-- counts: written by make gallery -->", "<!-- end of counts -->"
GREYED = "greyed"
"""Shown, but not summed up."""
SMALL_PX = 128
"""Smaller pictures are shown enlarged."""
NEAR = 0.5
"""Per thousand: methods whose faults differ by no more are as good as each other."""

STYLE = """
body { font: 14px sans-serif; margin: 1em; }
figure { display: inline-block; margin: 0 6px 0 0; vertical-align: top; }
figcaption { max-width: 384px; min-height: 3em; } .best { font-weight: bold; }
h2 { font-size: 16px; margin: 1em 0 .3em; } .row { white-space: nowrap; }
"""


def per_thousand(row: Row, name: str) -> float:
    """Faults of a method, all kinds together, per thousand pixels counted."""
    counts = row.results[name].counts
    return 1000 * sum(counts[fault] for fault in FAULTS) / row.pixels


def best(row: Row) -> list[str]:
    """Methods with the fewest faults, or as good as these; empty if none did anything."""
    shares = {name: per_thousand(row, name) for name, r in row.results.items() if not r.note}
    return [name for name, share in shares.items() if share <= min(shares.values()) + NEAR]


def write_html(rows: Iterable[Row], output: Path) -> None:
    """index.html, and its pictures beside it."""
    pictures = output / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    body = []
    for number, row in enumerate(rows):
        figures = [_figure(pictures, f"{number:02}_before", row.before, "before", "")]
        for name, result in row.results.items():
            words = result.note or _words(result, row.pixels)
            style = "best" if name in best(row) else ""
            figures.append(
                _figure(pictures, f"{number:02}_{name}", result.picture, name, words, style)
            )
        title = f"{row.subject.name} ({row.subject.file}, x y {row.subject.at})"
        body.append(f"<h2>{html.escape(title)}</h2><div class=row>{''.join(figures)}</div>")
    (output / "index.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>Gallery</title><style>{STYLE}</style>"
        "<h1>Gallery</h1><p>Faults that the input had not, pixels (per thousand). Bold: fewest."
        f"</p>{''.join(body)}\n"
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown: the counts, then where the packaged normaliser is not among the best."""
    methods = list(rows[0].results)
    lines = [
        f"| subject | fault | {' | '.join(methods)} | fewest |",
        f"|---|---|{'---:|' * len(methods)}---|",
    ]
    for row in rows:
        lines += _lines(row)
    behind = [row for row in rows if (fewest := best(row)) and PACKAGED not in fewest]
    lines += ["", f"Where `{PACKAGED}` is not among the best:", ""]
    lines += [
        f"- {row.subject.name}: {per_thousand(row, PACKAGED):.1f} per thousand, "
        + ", ".join(f"`{name}` {per_thousand(row, name):.1f}" for name in best(row))
        for row in behind
    ] or ["nowhere."]
    return "\n".join(lines)


def replace_table(page: str, text: str) -> str:
    """The page with what stands between its two marks replaced; ValueError without marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def strip(rows: Iterable[Row], edge: int = 144) -> Image.Image:
    """Small pictures of rows, before and after side by side."""
    lines = []
    for row in rows:
        pictures = [row.before, *(result.picture for result in row.results.values())]
        lines.append(np.hstack([picture[:edge, :edge] for picture in pictures]))
    return Image.fromarray(np.vstack(lines))


def _lines(row: Row) -> list[str]:
    fewest = ", ".join(best(row))
    notes = {result.note for result in row.results.values() if result.note}
    if not fewest:
        blank = " |" * len(row.results)
        return [f"| {row.subject.name} | none: {'; '.join(sorted(notes))} |{blank} |"]
    lines = []
    for fault in (*FAULTS, GREYED):
        cells = [_cell(result, fault, row.pixels) for result in row.results.values()]
        if any(result.counts[fault] for result in row.results.values()):
            lines.append(f"| | {fault} | {' | '.join(cells)} | |")
    shares = [
        "as is" if result.note else f"**{per_thousand(row, name):.1f}**"
        for name, result in row.results.items()
    ]
    total = (
        f"| {row.subject.name} | all, ‰ of {row.pixels:,} px | {' | '.join(shares)} | {fewest} |"
    )
    return [total, *lines]


def _cell(result: Result, fault: str, pixels: int) -> str:
    count = result.counts[fault]
    return f"{count:,} ({1000 * count / pixels:.1f})" if count else "0"


def _words(result: Result, pixels: int) -> str:
    words = [
        f"{fault} {_cell(result, fault, pixels)}"
        for fault in (*FAULTS, GREYED)
        if result.counts[fault]
    ]
    return ", ".join(words) or "no faults"


def _figure(
    folder: Path, name: str, picture: np.ndarray, label: str, words: str, style: str = ""
) -> str:
    Image.fromarray(picture).save(folder / f"{name}.png")
    zoom = max(1, SMALL_PX // max(picture.shape[:2]))
    size = f"width={zoom * picture.shape[1]} height={zoom * picture.shape[0]}"
    return (
        f'<figure><img src="pictures/{name}.png" {size} style="image-rendering:pixelated">'
        f'<figcaption class="{style}">{label}<br>'
        f'<span style="white-space:normal">{html.escape(words)}</span></figcaption></figure>'
    )
