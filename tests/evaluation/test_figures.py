"""Figures: what they say and where things stand in them, and that the files hold them."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.figures import forest, sensitivity

METHODS = ["none", "Reinhard", "costs $5 or $6", "a method whose name is longer than a row is wide"]

SUMMARY = pd.DataFrame(
    [
        {
            "method": method,
            "condition": condition,
            "metric": "balanced_accuracy",
            "mean": 0.7 + 0.02 * place - drop,
            "low": 0.68 + 0.02 * place - drop,
            "high": 0.73 + 0.02 * place - drop,
        }
        for place, method in enumerate(METHODS)
        for condition, drop in (("clean", 0.0), ("simulated", 0.1))
    ]
)

FIXED = [
    (f"tile {i:02}", 0.7 + 0.01 * (7 * i % 12), 0.69, 0.83, (i / 12, 0.5, 0.6) if i else None)
    for i in range(12)
]


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for text in figure.findobj(Text)]
    return [text.replace("\n", " ") for text in found if text]


def rows(axes: Axes) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]


def assert_drawn(path: Path) -> None:
    """The file is a picture of the promised width with more than one colour."""
    if path.suffix == ".svg":
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag.endswith("svg")
        assert len(list(root.iter())) > 100
        return
    with Image.open(path) as image:
        assert image.width == 1600
        pixels = np.asarray(image.convert("L"))
    assert pixels.std() > 5
    assert 0.5 < (pixels > 230).mean() < 0.999


def assert_nothing_overlaps(figure: Figure) -> None:
    """No two texts share a place, and none leaves the page."""
    low, high = figure.axes[0].get_xlim()
    beyond = [  # ticks that matplotlib keeps but does not draw
        label
        for label in figure.axes[0].get_xticklabels()
        if not low <= label.get_position()[0] <= high
    ]
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in beyond
    ]
    assert len(boxes) > 5
    page = figure.bbox
    for place, (name, box) in enumerate(boxes):
        assert box.x0 >= page.x0 - 1, name
        assert box.x1 <= page.x1 + 1, name
        assert box.y0 >= page.y0 - 1, name
        assert box.y1 <= page.y1 + 1, name
        for other, another in boxes[place + 1 :]:
            assert not box.overlaps(another), (name, other)


def draw(kind: str, path: Path) -> Figure:
    if kind == "forest":
        return forest(SUMMARY, "balanced_accuracy", path, reference="none")
    learned = ("learned layer", 0.79, 0.77, 0.81)
    return sensitivity(FIXED, learned, path, "dice", normaliser="Reinhard")


KINDS = ("forest", "sensitivity")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_drawn_and_the_same_each_time(kind: str, suffix: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    figure = draw(kind, first)
    draw(kind, second)
    assert_drawn(first)
    assert first.read_bytes() == second.read_bytes()
    assert any("(" in axes.get_xlabel() for axes in figure.axes)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_hides_another(kind: str, tmp_path: Path) -> None:
    assert_nothing_overlaps(draw(kind, tmp_path / "a.png"))


def test_few_rows_have_room_too(tmp_path: Path) -> None:
    assert_nothing_overlaps(forest(SUMMARY[:2], "balanced_accuracy", tmp_path / "a.png"))
    learned = ("learned", 0.79, 0.77, 0.81)
    assert_nothing_overlaps(sensitivity(FIXED[:1], learned, tmp_path / "b.png", "auc"))


def test_the_forest_shows_every_method_and_condition(tmp_path: Path) -> None:
    figure = draw("forest", tmp_path / "a.png")
    (axes,) = figure.axes
    assert rows(axes) == METHODS
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    said = texts(figure)
    assert {"clean", "simulated", "dashed: mean of 'none'"} <= set(said)
    assert "Balanced accuracy (mean over unseen domains, 95 % interval)" in said
    dots = {line.get_label(): line for line in axes.lines if len(line.get_xdata()) == 4}
    for condition, own in SUMMARY.groupby("condition"):
        np.testing.assert_allclose(dots[str(condition)].get_xdata(), own["mean"])
        assert np.argsort(dots[str(condition)].get_ydata()).tolist() == [0, 1, 2, 3]
    assert dots["clean"].get_color() != dots["simulated"].get_color()
    assert dots["clean"].get_marker() != dots["simulated"].get_marker()
    spans = [segment[:, 0] for lines in axes.collections for segment in lines.get_segments()]
    np.testing.assert_allclose(
        sorted(map(tuple, spans)), sorted(zip(SUMMARY["low"], SUMMARY["high"], strict=True))
    )


def test_tiles_are_sorted_beside_the_learned_layer(tmp_path: Path) -> None:
    figure = draw("sensitivity", tmp_path / "a.png")
    (axes,) = figure.axes
    best_first = [tile[0] for tile in sorted(FIXED, key=lambda tile: tile[1])[::-1]]
    assert rows(axes) == best_first
    said = texts(figure)
    assert "learned layer: 0.790 [0.770, 0.810]" in said
    assert "Reinhard: 0.700 to 0.810 over 12 target tiles" in said
    assert "Dice (mean over unseen domains, 95 % interval)" in said
    (line,) = [own for own in axes.lines if str(own.get_label()).startswith("learned")]
    assert set(line.get_xdata()) == {0.79}
    band = [patch for patch in axes.patches if patch.get_alpha() == 0.2]
    assert [patch.get_extents().transformed(axes.transData.inverted()).width for patch in band] == [
        pytest.approx(0.04)
    ]
    swatches = [own for own in axes.collections if own.get_offset_transform() != axes.transData]
    coloured = {
        best_first[round(own.get_offsets()[0][1])]: tuple(own.get_facecolor()[0][:3])
        for own in swatches
        if len(own.get_offsets()) == 1 and own.get_offsets()[0][0] < 0
    }
    assert coloured == {name: pytest.approx(rgb) for name, _, _, _, rgb in FIXED if rgb}


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    learned = ("learned", 0.7, 0.6, 0.8)
    with pytest.raises(ConfigError, match="no metric 'auc'"):
        forest(SUMMARY, "auc", tmp_path / "a.png")
    with pytest.raises(ConfigError, match="no target tile"):
        sensitivity([], learned, tmp_path / "a.png", "auc")
    with pytest.raises(ConfigError, match=r"a\.pdf: a figure is \.svg or \.png"):
        sensitivity(FIXED, learned, tmp_path / "a.pdf", "auc")
    assert not list(tmp_path.iterdir())


def test_no_settings_of_matplotlib_change(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    draw("forest", tmp_path / "a.png")
    assert dict(mpl.rcParams) == before


def test_pyplot_stays_out() -> None:
    code = "import sys, wsi_norm.evaluation.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
