"""Predictions and scores on tiles that were not trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from wsi_norm.cohort.splits import read_splits
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.normalizers.classic import Unchanged
from wsi_norm.training.front import Front
from wsi_norm.training.judge import judge, mean_score

Cohort = Callable[..., Path]
Make = Callable[..., TrainConfig]


class Green(nn.Module):
    """Logits from the mean of green, or green per pixel."""

    def __init__(self, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.shift = nn.Parameter(torch.tensor(0.45))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.norm(image)
        green = image[:, 1] if self.dense else image[:, 1].mean((1, 2))
        return torch.stack([green - self.shift, self.shift - green], 1) * 10


class Seen(Front):
    """Keeps which groups came together."""

    def __init__(self) -> None:
        super().__init__(Unchanged())
        self.groups: list[list[int]] = []

    def forward(self, image: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        self.groups.append(group.tolist())
        return super().forward(image, group)


def tiles_of(config: TrainConfig) -> LabelledTiles:
    splits = read_splits(config.data, config.task, None, 0)
    return LabelledTiles(splits.train, config, 2, training=False)


def test_rows_of_a_classifier(cohort: Cohort, settings: Make) -> None:
    cohort()
    tiles = tiles_of(settings())
    front, network = Seen(), Green(dense=False).train()
    rows = judge(front, network, tiles, strength=0.0, seed=0)
    assert len(rows) == len(tiles) == 16
    assert [set(row) for row in rows] == [{"item", "group", "domain", "label", "p0", "p1"}] * 16
    by_item = {row["item"]: row for row in rows}
    for k, image in enumerate(tiles.images):
        row = by_item[image.name]
        assert (row["group"], row["domain"], row["label"]) == (
            image.group,
            image.domain,
            image.label,
        )
        green = tiles.pixels(k)[..., 1].mean() / 255
        assert row["p1"] == pytest.approx(1 / (1 + np.exp(-20 * (0.45 - green))), abs=1e-5)
        assert row["p0"] + row["p1"] == pytest.approx(1)
    assert not network.training
    assert not network.norm.running_mean.any()  # judging leaves no trace
    assert front.groups == [sorted(front.groups[0])]


def test_rows_of_views(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    data = {
        "columns": {"label": None},
        "views": {"in": "center", "out": "corner"},
        "tile_size": 8,
        "test": {},
        "validation": {},
    }
    rows = judge(
        Front(Unchanged()), Green(dense=False), tiles_of(settings(data=data)), strength=0.0, seed=0
    )
    assert {row["item"] for row in rows} >= {"0-0.png#in", "0-0.png#out"}
    assert {row["item"].endswith("#out") for row in rows if row["label"] == 1} == {True}


def test_rows_of_a_segmenter(cohort: Cohort, settings: Make) -> None:
    cohort(size=32, each=2)
    tiles = tiles_of(settings("segmentation", data={"tile_size": 12}))
    rows = judge(Front(Unchanged()), Green(dense=True), tiles, strength=0.0, seed=0)
    assert [row["item"] for row in rows] == [image.name for image in tiles.images]
    for k, row in enumerate(rows):
        found = tiles.pixels(k)[..., 1] / 255 < 0.45
        mask = tiles._mask(k)
        assert mask is not None
        dice = f1_score(mask.ravel(), found.ravel(), zero_division=1.0)
        assert row["dice"] == pytest.approx(dice)
        assert row["iou"] == pytest.approx(dice / (2 - dice))
        assert row["domain"] in {"X", "Y"}
    assert mean_score(rows) == pytest.approx(np.mean([row["dice"] for row in rows]))


def test_simulated_scanners(cohort: Cohort, settings: Make) -> None:
    cohort()
    tiles = tiles_of(settings())

    def chances(strength: float, seed: int) -> Any:
        rows = judge(Front(Unchanged()), Green(dense=False), tiles, strength=strength, seed=seed)
        return np.array([row["p1"] for row in rows])

    np.testing.assert_array_equal(chances(1.0, 3), chances(1.0, 3))
    assert np.abs(chances(1.0, 3) - chances(1.0, 4)).max() > 0.01
    assert np.abs(chances(1.0, 3) - chances(0.0, 3)).max() > 0.01


def test_the_score_of_a_classifier() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 50)
    chances = random.dirichlet([1, 1, 1, 1], 50)  # class 3 is predicted but never there
    rows = [
        {"item": "i", "label": int(label), **{f"p{k}": p for k, p in enumerate(chance)}}
        for label, chance in zip(labels, chances, strict=True)
    ]
    right = chances.argmax(1) == labels
    naive = np.mean([right[labels == label].mean() for label in range(3)])
    assert mean_score(rows) == pytest.approx(naive)
    two = [row for row in rows if row["label"] < 2]
    found = [int(row["p1"] > row["p0"]) for row in two]
    only = [{k: v for k, v in row.items() if k not in {"p2", "p3"}} for row in two]
    expected = balanced_accuracy_score([row["label"] for row in two], found)
    assert mean_score(only) == pytest.approx(expected)
