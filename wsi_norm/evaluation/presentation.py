"""Scores as tables: Markdown for people, CSV for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_norm.errors import ConfigError
from wsi_norm.tables import guarded
from wsi_norm.text import shown

BETTER, WORSE = "▲", "▼"
"""After a difference whose interval leaves out 0."""

NOTE = (
    f"Mean over domains and seeds (SD over seeds) [95 % interval]. {BETTER} better, {WORSE} worse: "
    "the interval of the difference leaves out 0."
)

METRIC_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "dice": "Dice",
    "iou": "IoU",
}
"""As people write them."""


def markdown(
    summary: pd.DataFrame,
    metrics: str | Sequence[str] | None = None,
    *,
    reference: str | None = None,
) -> str:
    """Write a summary as Markdown, with one table per metric and a note below the last.

    Parameters
    ----------
    summary
        As `summarise` returns it. Methods and conditions stay in their order.
    metrics
        One or more; None for all.
    reference
        The method whose row says "reference" in place of a difference.

    Raises
    ------
    ConfigError
        The summary does not have one of the metrics.
    """
    tables = []
    for metric in _chosen(summary, metrics):
        part = summary[summary["metric"] == metric]
        conditions = [str(name) for name in part["condition"].unique()]
        header = ["Method"]
        for condition in conditions:
            header += [condition, f"{condition}: difference"]
        rows = [
            [method, *_cells(part[part["method"] == method], conditions, method == reference)]
            for method in part["method"].unique()
        ]
        tables += [f"**{metric_name(metric)}**", table(header, rows)]
    return "\n\n".join([*tables, NOTE]) + "\n"


def domain_table(scores: pd.DataFrame, metrics: str | Sequence[str] | None = None) -> str:
    """Write means over seeds, method x domain, as Markdown: a table per metric and condition.

    Parameters
    ----------
    scores
        As `score_runs` returns it. The last column is the mean of those before it; a domain without
        a value is left out of it.
    metrics
        One or more; None for all.

    Raises
    ------
    ConfigError
        The scores do not have one of the metrics.
    """
    tables = []
    for metric in _chosen(scores, metrics):
        part = scores[scores["metric"] == metric]
        for condition, frame in part.groupby("condition", sort=False, observed=True):
            domains = [str(name) for name in frame["domain"].unique()]
            means = frame.groupby(["method", "domain"], observed=True)["value"].mean()
            rows = []
            for method in frame["method"].unique():
                own = means[method].reindex(domains)
                rows.append([str(method), *map(_number, [*own, own.mean()])])
            title = f"**{metric_name(metric)}, {_escape(str(condition))}**"
            tables += [title, table(["Method", *domains, "mean"], rows)]
    return "\n\n".join(tables) + "\n"


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a row per row, every digit, empty where there is no value; OSError if that fails.

    Text is safe in a spreadsheet.
    """
    safe = frame.map(lambda value: guarded(value) if isinstance(value, str) else value)
    safe.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")
    return path


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Lines of a Markdown table: the first `left` columns to the left, the others to the right."""
    ruler = [":--"] * left + ["--:"] * (len(header) - left)
    lines = [map(_escape, header), ruler, *(map(_escape, row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def metric_name(metric: str) -> str:
    """A metric as people write it; one that is not known as it is."""
    return METRIC_NAMES.get(metric, metric)


def interval(low: float, high: float, sign: str = "") -> str:
    """[low, high] with 3 decimals; empty if it is not known."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _chosen(frame: pd.DataFrame, metrics: str | Sequence[str] | None) -> list[str]:
    known = [str(name) for name in frame["metric"].unique()]
    if metrics is None:
        return known
    chosen = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in chosen:
        if metric not in known:
            raise ConfigError(f"no metric {metric!r} in the table (known: {', '.join(known)})")
    return chosen


def _cells(part: pd.DataFrame, conditions: Iterable[str], is_reference: bool) -> list[str]:
    """Score and difference of one method for each condition."""
    cells = []
    for condition in conditions:
        rows = part[part["condition"] == condition].to_dict("records")
        if not rows:
            cells += ["", ""]
            continue
        cells += [_score(rows[0]), "reference" if is_reference else _difference(rows[0])]
    return cells


def _score(row: dict[str, Any]) -> str:
    sd = "" if math.isnan(row["sd"]) else f"({row['sd']:.3f})"
    return _join(_number(row["mean"]), sd, interval(row["low"], row["high"]))


def _difference(row: dict[str, Any]) -> str:
    value, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if math.isnan(value):
        return ""
    mark = BETTER if low > 0 else WORSE if high < 0 else ""
    return _join(f"{value:+.3f}", interval(low, high, "+"), mark)


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _escape(text: str) -> str:
    """Text that stays in its cell and is shown as it is."""
    return re.sub(r"([\\|*`<])", r"\\\1", shown(" ".join(str(text).split())))
