"""Scores beside scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, jaccard_score
from torch import nn

from wsi_norm.cohort.scores import (
    balanced_accuracy,
    dice_per_item,
    drawn_balanced_accuracy,
    overlap,
)
from wsi_norm.cohort.tiles import IGNORE

classes = st.integers(0, 3)
items = st.lists(st.tuples(classes, classes, st.integers(0, 2)), min_size=1, max_size=30)


def scikit_learns(found: np.ndarray, labels: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")  # it says that some class is only predicted, or alone
        return float(balanced_accuracy_score(labels, found))


@given(items)
def test_balanced_accuracy(drawn: list[tuple[int, int, int]]) -> None:
    found, labels, _ = np.array(drawn).T
    expected = scikit_learns(found, labels)
    assert balanced_accuracy(found, labels) == pytest.approx(expected)
    assert balanced_accuracy(torch.tensor(found), labels.tolist()) == pytest.approx(expected)


@given(items, st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=4))
def test_items_count_as_often_as_their_group(
    drawn: list[tuple[int, int, int]], multiplicity: list[list[int]]
) -> None:
    found, labels, group = np.array(drawn).T
    runs = np.stack([found, 3 - found])
    values = drawn_balanced_accuracy(runs, labels, group, np.array(multiplicity, float))
    assert values.shape == (2, len(multiplicity))
    for run, own in zip(runs, values, strict=True):
        for counts, value in zip(multiplicity, own, strict=True):
            again = np.repeat(np.arange(len(group)), np.array(counts)[group])
            if len(again):
                assert value == pytest.approx(scikit_learns(run[again], labels[again]))
            else:
                assert np.isnan(value)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_dice_and_iou_per_item() -> None:
    found = torch.randint(2, (5, 8, 8), generator=random(3))
    true = torch.randint(2, (5, 8, 8), generator=random(4))
    true[1, :3] = IGNORE
    found[4], true[4] = 0, 0
    item = torch.tensor([7, 2, 7, 2, 9])
    logits = nn.functional.one_hot(found, 2).permute(0, 3, 1, 2).float()
    items, dice, iou = dice_per_item(item, overlap(logits, true))
    assert items.tolist() == [2, 7, 9]
    for number, d, i in zip(items.tolist(), dice.tolist(), iou.tolist(), strict=True):
        own = item == number
        counted = true[own] != IGNORE
        f, t = found[own][counted].numpy(), true[own][counted].numpy()
        assert d == pytest.approx(f1_score(t, f, zero_division=1.0))
        assert i == pytest.approx(jaccard_score(t, f, zero_division=1.0))


def test_masks_that_hold_nothing() -> None:
    cells = torch.tensor([[0, 0, 0], [0, 3, 0], [0, 0, 2]])
    _, dice, iou = dice_per_item(torch.arange(3), cells)
    assert dice.tolist() == iou.tolist() == [1, 0, 0]


def test_classes_above_zero_are_foreground() -> None:
    logits = nn.functional.one_hot(torch.tensor([[[0, 1, 2, 2]]]), 3).permute(0, 3, 1, 2).float()
    cells = overlap(logits, torch.tensor([[[1, 2, 0, 2]]]))
    assert cells.tolist() == [[2, 1, 1]]
