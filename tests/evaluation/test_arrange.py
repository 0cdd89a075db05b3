"""Rows in any order become arrays in one order; runs that cannot be compared are refused."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.arrange import Arranged, arrange

TILES = [("g2", "t1", 0), ("g1", "t3", 1), ("g10", "t1", 1), ("g1", "t2", 0)]
"""Group, item, label; two tiles of one name are of other groups."""


def table() -> pd.DataFrame:
    """Two methods, of which one has one seed; p1 says which run, domain and tile it is of."""
    rows = []
    runs = [("none", 3), ("none", 1), ("ours", 3)]
    for condition, (run, (method, seed)), (place, domain) in itertools.product(
        ("clean", "simulated"), enumerate(runs), enumerate("YX")
    ):
        for number, (group, item, label) in enumerate(TILES[: 4 - place]):
            p1 = (100 * run + 10 * place + number) / 1000
            where = (method, seed, condition, domain, group, item)
            rows.append((*where, label, 1 - p1, p1))
    columns = ["method", "seed", "condition", "domain", "group", "item", "label", "p0", "p1"]
    return pd.DataFrame(rows, columns=columns)


def arranged(frame: pd.DataFrame) -> list[Arranged]:
    return list(arrange(frame, ["p0", "p1"]))


def test_the_order_is_that_of_groups_and_items() -> None:
    clean, simulated = arranged(table())
    assert (clean.name, simulated.name) == ("clean", "simulated")
    assert clean.runs == (("none", 3), ("none", 1), ("ours", 3))
    assert (clean.seeds("none"), clean.seeds("ours"), clean.seeds("x")) == ([1, 3], [3], [])
    assert clean.rows("none", [1, 3]) == [1, 0]
    y, x = clean.domains
    assert (y.name, y.groups) == ("Y", ("g1", "g10", "g2"))
    assert x.groups == ("g1", "g10", "g2")
    np.testing.assert_array_equal(y.group, [0, 0, 1, 2])
    assert y.values.shape == (3, 4, 2)
    for run in range(3):
        numbers = np.rint(1000 * y.values[run, :, 1]) - 100 * run
        # within g1: t3 was named first
        assert sorted(numbers[:2]) == [1, 3]
        assert list(numbers[2:]) == [2, 0]
    labels = dict(zip(np.rint(1000 * y.values[0, :, 1]), y.labels, strict=True))
    assert labels == {0: 0, 1: 1, 2: 1, 3: 0}


def test_every_run_has_the_same_items_however_rows_are_shuffled() -> None:
    frame = table()
    tile = np.rint(1000 * frame["p1"]) % 10
    for seed in range(3):
        mixed = frame.assign(tile=tile).sample(frac=1, random_state=seed)
        for condition in arrange(mixed, ["tile"]):
            for domain in condition.domains:
                assert (domain.values == domain.values[:1]).all()


def test_a_segmentation_has_no_labels() -> None:
    frame = table().drop(columns="label")
    assert not any(domain.labels.any() for domain in arranged(frame)[0].domains)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "missing",
            r"domain Y: none with seed 1 predicts other items \(4\) than none with seed 3 ",
        ),
        ("other", "domain Y: none with seed 1 predicts other items"),
        ("domain", r"domain X: ours with seed 3 predicts other items \(0\) than none with seed 3"),
        ("twice", "domain Y: none with seed 3 predicts an item twice"),
        ("labels", "domain Y: ours with seed 3 has other labels than none with seed 3"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(what: str, message: str) -> None:
    frame = table()
    ours = frame["method"] == "ours"
    spoilt = {
        "missing": frame.drop(index=2),
        "other": frame.assign(item=frame["item"].where(frame.index != 2, "t9")),
        "domain": frame[~(ours & (frame["domain"] == "X"))],
        "twice": pd.concat([frame, frame]),
        "labels": frame.assign(label=frame["label"].where(~ours, 1 - frame["label"])),
    }
    with pytest.raises(ConfigError, match=message):
        arranged(spoilt[what])
