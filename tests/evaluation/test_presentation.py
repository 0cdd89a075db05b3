"""Tables, read back by their cells."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.presentation import BETTER, WORSE, domain_table, markdown, write_csv

NAN = float("nan")


def row(method: str, condition: str, metric: str = "auc", **values: float) -> dict[str, Any]:
    """A row of a summary; the difference is none unless given."""
    return {
        "method": method,
        "condition": condition,
        "metric": metric,
        "mean": 0.81249,
        "sd": 0.0104,
        "low": 0.79,
        "high": 0.8302,
        "difference": NAN,
        "difference_low": NAN,
        "difference_high": NAN,
        **values,
    }


def difference(value: float, low: float, high: float) -> dict[str, float]:
    return {"difference": value, "difference_low": low, "difference_high": high}


def cells(text: str, title: str) -> list[list[str]]:
    """Cells of the table under a title, without the ruler."""
    lines = text.split(f"**{title}**\n\n", 1)[1].split("\n\n")[0].splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert len({len(own) for own in rows}) == 1
    assert all(re.fullmatch(r"\s*:?--:?\s*", cell) for cell in rows[1])
    return [[cell.strip() for cell in own] for own in [rows[0], *rows[2:]]]


SUMMARY = pd.DataFrame(
    [
        row("none", "clean", **difference(0, 0, 0)),
        row("none", "simulated", **difference(0, 0, 0)),
        row("better", "clean", **difference(0.0214, 0.0021, 0.04)),
        row("better", "simulated", **difference(-0.0214, -0.04, -0.0021)),
        row("like", "clean", **difference(0.0214, -0.0021, 0.04)),
        row("like", "simulated", **difference(0.0214, 0.0, 0.04)),
    ]
)


def test_scores_and_differences_stand_beside_each_other() -> None:
    header, none, better, like = cells(markdown(SUMMARY, reference="none"), "AUC")
    assert header == ["Method", "clean", "clean: difference", "simulated", "simulated: difference"]
    score = "0.812 (0.010) [0.790, 0.830]"
    assert none == ["none", score, "reference", score, "reference"]
    assert better[2] == f"+0.021 [+0.002, +0.040] {BETTER}"
    assert better[4] == f"-0.021 [-0.040, -0.002] {WORSE}"
    assert like[2] == "+0.021 [-0.002, +0.040]"
    assert like[4] == "+0.021 [+0.000, +0.040]"


def test_one_table_per_metric_in_the_order_asked_for() -> None:
    summary = pd.concat([SUMMARY, SUMMARY.assign(metric="balanced_accuracy", mean=0.5)])
    assert re.findall(r"\*\*(.+)\*\*", markdown(summary)) == ["AUC", "Balanced accuracy"]
    turned = markdown(summary, ["balanced_accuracy", "auc"])
    assert re.findall(r"\*\*(.+)\*\*", turned) == ["Balanced accuracy", "AUC"]
    assert cells(turned, "Balanced accuracy")[1][1].startswith("0.500 ")
    assert "AUC" not in markdown(summary, "balanced_accuracy")
    with pytest.raises(ConfigError, match=r"no metric 'f1' in the table \(known: auc, balanced"):
        markdown(summary, "f1")


def test_what_is_not_known_is_not_shown() -> None:
    summary = pd.DataFrame(
        [row("a", "clean", sd=NAN), row("b", "clean", mean=NAN, sd=NAN, low=NAN, high=NAN)]
    )
    _, first, second = cells(markdown(summary), "AUC")
    assert first == ["a", "0.812 [0.790, 0.830]", ""]
    assert second == ["b", "n/a", ""]


def test_a_condition_that_a_method_lacks_is_empty() -> None:
    _, first, second = cells(markdown(SUMMARY.drop(index=3)), "AUC")[:3]
    assert first[3] != ""
    assert second[3:] == ["", ""]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a|b", r"a\|b"), ("a\\|b", r"a\\\|b"), ("two\nlines", "two lines"), ("*a*", r"\*a\*")],
)
def test_names_stay_in_their_cell(name: str, shown: str) -> None:
    summary = pd.DataFrame([row(name, "clean|dirty")])
    lines = markdown(summary).splitlines()
    assert lines[2] == r"| Method | clean\|dirty | clean\|dirty: difference |"
    assert lines[4].startswith(f"| {shown} | 0.812")
    scores = pd.DataFrame([[name, 0, "clean", "x|y", "auc", 0.5]], columns=SCORES)
    assert r"| Method | x\|y | mean |" in domain_table(scores)
    assert f"| {shown} | 0.500 | 0.500 |" in domain_table(scores)


SCORES = ["method", "seed", "condition", "domain", "metric", "value"]


def test_domains_are_columns_and_seeds_are_averaged() -> None:
    values = {
        ("none", 0, "B"): 0.5,
        ("none", 1, "B"): 0.7,
        ("none", 0, "A"): 0.8,
        ("none", 1, "A"): 0.8,
        ("learned", 0, "B"): 0.9,
        ("learned", 1, "B"): 0.9,
        ("learned", 0, "A"): NAN,
        ("learned", 1, "A"): NAN,
    }
    scores = pd.DataFrame(
        [
            (method, seed, "clean", domain, "dice", v)
            for (method, seed, domain), v in values.items()
        ],
        columns=SCORES,
    )
    more = pd.concat([scores, scores.assign(condition="simulated", value=0.1)])
    table = domain_table(more)
    assert cells(table, "Dice, clean") == [
        ["Method", "B", "A", "mean"],
        ["none", "0.600", "0.800", "0.700"],
        ["learned", "0.900", "n/a", "0.900"],
    ]
    assert cells(table, "Dice, simulated")[1] == ["none", "0.100", "0.100", "0.100"]
    assert domain_table(more, "dice") == table
    with pytest.raises(ConfigError, match="no metric 'iou'"):
        domain_table(more, ["iou"])


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    frame = SUMMARY.assign(mean=np.pi / 4, sd=NAN, method="=a, b\n\u00b5")
    path = write_csv(frame, tmp_path / "summary.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(frame.columns)
    assert [own["method"] for own in rows] == ["'=a, b\\n\u00b5"] * 6
    assert {own["sd"] for own in rows} == {""}
    for column in ("mean", "difference", "high"):
        assert [float(own[column]) for own in rows] == frame[column].tolist()
    assert b"\r" not in path.read_bytes()
    with pytest.raises(OSError, match="directory"):
        write_csv(frame, tmp_path / "none" / "summary.csv")
