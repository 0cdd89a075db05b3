"""Scores as figures: SVG or PNG by the name's suffix, readable at a width of 800 px.

Figures are made without pyplot, so that no backend is chosen for the whole process. Colours are
those of Okabe and Ito, which colour-blind readers tell apart; shapes differ too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.presentation import interval, metric_name

Triple = Sequence[float]
Fixed = tuple[str, float, float, float, Triple | None]
Learned = tuple[str, float, float, float]

WIDTH_IN = 8.0
DPI = 200
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"
PALE = "#F2F2F2"
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), ("#CC79A7", "^"), (GREY, "v"))
"""Colour and marker of each condition, in their order."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GREY,
    "svg.hashsalt": "wsi-norm",  # the same figure has the same bytes
}


def forest(
    summary: pd.DataFrame, metric: str, path: Path, *, reference: str | None = None
) -> Figure:
    """Draw every method's mean with its interval, one colour and shape per condition.

    Parameters
    ----------
    summary
        As `summarise` returns it. Methods stand in their order from the top.
    path
        Ends in .svg or .png.
    reference
        A method whose means are drawn as lines through all rows.

    Raises
    ------
    ConfigError
        The summary does not have the metric.
    """
    part = summary[summary["metric"] == metric]
    if part.empty:
        raise ConfigError(f"no metric {metric!r} in the summary")
    methods = [str(name) for name in part["method"].unique()]
    conditions = [str(name) for name in part["condition"].unique()]
    with rc_context(STYLE):
        figure, axes = _rows(methods, 0.16 + 0.17 * len(conditions))
        for place, condition in enumerate(conditions):
            colour, marker = SERIES[place % len(SERIES)]
            own = part[part["condition"] == condition]
            y = np.array([methods.index(str(name)) for name in own["method"]], float)
            y += 0.26 * (place - (len(conditions) - 1) / 2)
            _dots(axes, own[["mean", "low", "high"]].to_numpy(float), y, colour, marker, condition)
            for mean in own[own["method"] == reference]["mean"]:
                axes.axvline(mean, color=colour, lw=1, ls=(0, (4, 3)), zorder=1)
        axes.set_xlabel(f"{metric_name(metric)} (mean over unseen domains, 95 % interval)")
        _legend(axes, len(conditions), reference and f"dashed: mean of '{reference}'")
        return _save(figure, path)


def sensitivity(
    fixed: Sequence[Fixed],
    learned: Learned,
    path: Path,
    metric: str,
    *,
    normaliser: str = "fixed target",
) -> Figure:
    """Draw the score of a normaliser of fixed target for each target tile, beside the learned one.

    Parameters
    ----------
    fixed
        Name of the tile, mean, low, high, and the tile's mean RGB in [0, 1] or None. They are drawn
        from the best at the top to the worst.
    learned
        Name, mean, low, high: a line with a band.
    path
        Ends in .svg or .png.
    metric
        What is scored, for the axis.
    normaliser
        The fixed normaliser's name.

    Raises
    ------
    ConfigError
        There is no tile.
    """
    if not fixed:
        raise ConfigError("no target tile to draw")
    tiles = sorted(fixed, key=lambda tile: -tile[1])
    values = np.array([tile[1:4] for tile in tiles], float)
    best, worst = float(values[:, 0].max()), float(values[:, 0].min())
    name, mean, low, high = learned
    with rc_context(STYLE):
        figure, axes = _rows([tile[0] for tile in tiles], 0.25, swatches=True)
        axes.axvspan(low, high, color=ORANGE, alpha=0.2, lw=0, zorder=1)
        label = f"{name}: {mean:.3f} {interval(low, high)}"
        axes.axvline(mean, color=ORANGE, lw=2, zorder=2, label=label)
        label = f"{normaliser}: {worst:.3f} to {best:.3f} over {len(tiles)} target tiles"
        _dots(axes, values, np.arange(len(tiles), dtype=float), BLUE, "o", label)
        for place, tile in enumerate(tiles):
            if tile[4] is not None:
                axes.scatter(
                    [-0.02],
                    [place],
                    s=90,
                    marker="s",
                    color=[np.clip(tile[4], 0, 1)],
                    edgecolors=GREY,
                    linewidths=0.5,
                    transform=axes.get_yaxis_transform(),
                    clip_on=False,
                )
        axes.set_xlabel(f"{metric_name(metric)} (mean over unseen domains, 95 % interval)")
        axes.text(
            -0.01,
            1.01,
            "Target tile, mean colour",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
        )
        _legend(axes, 1, None)
        return _save(figure, path)


def _rows(names: Sequence[str], height: float, *, swatches: bool = False) -> tuple[Figure, Axes]:
    """A figure with a named row (of `height` inches) per name, from the top; every other shaded."""
    labels = ["\n".join(textwrap.wrap(name, 30)) or name for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    size = (WIDTH_IN, 1.2 + len(names) * max(height, 0.17 * lines + 0.05))
    figure = Figure(size, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=20 if swatches else 6)
    axes.grid(axis="x", color="#DDDDDD", lw=0.8)
    axes.set_axisbelow(True)
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=PALE, lw=0, zorder=0)
    return figure, axes


def _dots(
    axes: Axes,
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    y: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    colour: str,
    marker: str,
    label: str,
) -> None:
    """Means with intervals; values are (rows, 3): mean, low, high. NaN draws no interval."""
    mean, low, high = values.T
    axes.hlines(y, low, high, color=colour, lw=1.8, zorder=3)
    axes.plot(mean, y, marker, color=colour, ms=5.5, mec="white", mew=0.6, zorder=4, label=label)


def _legend(axes: Axes, columns: int, title: str | None) -> None:
    legend = axes.figure.legend(
        loc="outside upper center", ncols=min(columns, 4), frameon=False, title=title
    )
    for text in [*legend.get_texts(), legend.get_title()]:
        text.set_parse_math(False)
        text.set_text(textwrap.fill(text.get_text(), 90))


def _save(figure: Figure, path: Path) -> Figure:
    """Write it; ConfigError for another suffix, OSError if writing fails."""
    if path.suffix.lower() not in {".svg", ".png"}:
        raise ConfigError(f"{path}: a figure is .svg or .png")
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    figure.savefig(path, dpi="figure", metadata=metadata)
    return figure
