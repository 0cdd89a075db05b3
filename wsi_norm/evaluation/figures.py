"""Scores and colours as figures: SVG or PNG by the name's suffix, readable at a width of 800 px.

Figures are made without pyplot, so that no backend is chosen for the whole process. Colours are
those of Okabe and Ito, which colour-blind readers tell apart; shapes differ too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsi_norm.colorspace import CONVERSIONS, HUE, Space
from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.tables import interval, metric_name

Triple = Sequence[float]
Fixed = tuple[str, float, float, float, Triple | None]
Learned = tuple[str, float, float, float]
Moments = Mapping[Space, tuple[Triple, Triple]]

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


def colour_move(
    template: Moments,
    target: Moments,
    path: Path,
    *,
    channels: Mapping[Space, Sequence[str]] | None = None,
) -> Figure:
    """Draw how far a learned target has moved from the template it began with.

    Parameters
    ----------
    template, target
        Mean and std of three channels per colour space, in the channels' own units. Moves are in
        units of the template's std; hue moves the short way round. The bars are one std to both
        sides.
    path
        Ends in .svg or .png.
    channels
        Names of the three channels per space; None for those of `wsi_norm.colorspace`.

    Raises
    ------
    ConfigError
        The two have other spaces, or a template's std is not positive.
    """
    if not template or set(template) != set(target):
        raise ConfigError(f"colour spaces differ: {sorted(template)} and {sorted(target)}")
    moves = {space: _moves(space, template[space], target[space]) for space in template}
    names = channels or {space: CONVERSIONS[space].channels for space in template}
    rows = [f"{space.upper()}  {name}" for space in template for name in names[space]]
    values = np.concatenate([moves[space] for space in template])
    y = np.arange(len(rows), dtype=float)
    with rc_context(STYLE):
        figure, axes = _rows(rows, 0.3, banded=3)
        axes.barh(y, 2, left=-1, height=0.5, color="#CFCFCF", zorder=1, label="template ± 1 std")
        axes.errorbar(
            values[:, 0],
            y,
            xerr=values[:, 1],
            fmt="o",
            color=ORANGE,
            capsize=3,
            zorder=3,
            label="learned target ± 1 std",
        )
        axes.axvline(0, color=GREY, lw=1, zorder=2)
        for place, (move, spread) in enumerate(values):
            axes.annotate(
                f"{move:+.2f}",
                (max(move + spread, 1), place),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=ORANGE,
            )
        axes.margins(x=0.1)
        axes.set_xlabel("Move of the mean (units of the template's std)")
        _legend(axes, 2, None)
        _patches(axes, template, target)
        return _save(figure, path)


def _moves(
    space: Space, template: tuple[Triple, Triple], target: tuple[Triple, Triple]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(3, 2): move of the mean, and the target's std, in units of the template's std."""
    rows = []
    for channel in range(3):
        unit = template[1][channel]
        if not unit > 0:
            raise ConfigError(f"the template's std of {space}, channel {channel}, is not positive")
        move = target[0][channel] - template[0][channel]
        if (space, channel) == HUE:
            move = math.remainder(move, 2 * math.pi)
        rows.append((move / unit, target[1][channel] / unit))
    return np.array(rows, float)


def _patches(axes: Axes, template: Moments, target: Moments) -> None:
    """Mean colours before and after, beside each space's rows."""
    beside = axes.get_yaxis_transform()
    for column, (title, moments) in enumerate((("before", template), ("after", target))):
        left = 1.03 + 0.1 * column
        axes.text(left + 0.045, 1, title, transform=axes.transAxes, ha="center", va="bottom")
        for place, space in enumerate(template):
            axes.add_patch(
                Rectangle(
                    (left, 3 * place - 0.4),
                    0.09,
                    2.8,
                    transform=beside,
                    facecolor=_rgb(space, moments[space][0]),
                    edgecolor=GREY,
                    linewidth=0.5,
                    clip_on=False,
                )
            )


def _rgb(space: Space, mean: Triple) -> tuple[float, float, float]:
    """A mean of any space as RGB in [0, 1]."""
    pixel = torch.tensor(list(mean), dtype=torch.float64).reshape(1, 3, 1, 1)
    red, green, blue = CONVERSIONS[space].to_rgb(pixel).clamp(0, 1).flatten().tolist()
    return red, green, blue


def _rows(
    names: Sequence[str], height: float, *, swatches: bool = False, banded: int = 1
) -> tuple[Figure, Axes]:
    """A figure with one named row (of `height` inches) per name, from the top; every other shaded.

    `banded` rows together are shaded alike.
    """
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
    for place in range(0, len(names), 2 * banded):
        axes.axhspan(place - 0.5, place - 0.5 + banded, color=PALE, lw=0, zorder=0)
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
