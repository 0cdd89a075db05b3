"""The numbers of normalisers whose numbers are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wsi_norm.cohort.splits import read_splits
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import EvaluateConfig
from wsi_norm.errors import ConfigError
from wsi_norm.evaluation import profile as module
from wsi_norm.evaluation.profile import probes, profile
from wsi_norm.evaluation.quality import background_drift
from wsi_norm.normalizers.classic import Unchanged
from wsi_norm.training.front import Front
from wsi_norm.training.train import cut

Tiles = dict[str, LabelledTiles]


class Constant(Front):
    """Everything becomes one colour."""

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        return torch.full_like(image, 0.6)


class Shift(Front):
    """5 grey levels darker; beyond what can be shown at times."""

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        return image - 5 / 255


@pytest.fixture
def tiles(make: Callable[..., EvaluateConfig]) -> Tiles:
    training = make().training
    return cut(read_splits(training.data, training.task, None, 0), training)


def test_who_does_nothing(tiles: Tiles) -> None:
    found = profile(Front(Unchanged()), tiles, 1.0)
    assert found["pair_ciede2000"] == found["pair_ciede2000_before"] > 2
    assert (found["ssim"], found["gradient_correlation"], found["seam_step"]) == (1, 1, 1)
    assert found["background_drift"] == 0
    assert (found["degenerate_failures"], found["degenerate"], found["refused"]) == (0, {}, 0)
    # the four domains have colours of their own
    assert found["probe_colour"] == found["probe_rich"] == 1
    assert found["probe_chance"] == 0.25
    assert profile(Front(Unchanged()), tiles, 1.0) == found


def test_who_removes_everything(tiles: Tiles) -> None:
    found = profile(Constant(Unchanged()), tiles, 1.0)
    assert found["pair_ciede2000"] == 0
    assert found["pair_ciede2000_before"] > 2
    assert found["ssim"] < 0.5
    assert found["gradient_correlation"] == 0  # all edges are lost
    assert found["background_drift"] == pytest.approx((240 - 0.6 * 255), abs=1)
    assert found["probe_colour"] <= 0.25  # nothing is left to tell domains by
    assert found["degenerate"]["white"] == "coloured glass"
    assert found["degenerate_failures"] == len(found["degenerate"])


def test_a_shift_of_the_glass(tiles: Tiles) -> None:
    found = profile(Shift(Unchanged()), tiles, 1.0)
    assert found["background_drift"] == pytest.approx(5, abs=0.01)
    assert set(found["degenerate"].values()) == {"out of range"}  # black becomes less than black
    assert {"black", "checkerboard"} <= found["degenerate"].keys()


def test_background_is_pale_relative_to_the_groups_white(
    tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two tiles of a case only one has glass; the palest tissue of the other is none."""
    shade = np.random.default_rng(0).uniform(0.7, 1, (64, 64, 1))  # alike in all channels
    tissue = (shade * (200, 140, 180)).astype(np.uint8)
    test = tiles["test"]
    test._pixels.update(dict.fromkeys(range(1, len(test.images), 2), tissue))
    given: list[np.ndarray[Any, Any]] = []

    def watched(*arguments: Tensor) -> Any:
        given.append(background_drift(*arguments))
        return given[-1]

    monkeypatch.setattr(module.quality, "background_drift", watched)
    assert profile(Shift(Unchanged()), tiles, 1.0)["background_drift"] == pytest.approx(5, abs=0.01)
    assert sum(np.isfinite(drift).sum() for drift in given) == 6


def test_tiles_that_are_refused_are_counted_once(tiles: Tiles) -> None:
    class Refusing(Front):
        def __init__(self) -> None:
            super().__init__(Unchanged())
            self.passed_through = 1000  # of the training

        def forward(self, image: Tensor, group: Tensor) -> Tensor:
            self.passed_through += len(image)
            return image

    found = profile(Refusing(), tiles, 1.0)
    assert found["refused"] == len(tiles["test"])


def test_without_a_second_tile_there_is_no_seam(make: Callable[..., EvaluateConfig]) -> None:
    training = make(training={"data": {"tile_size": 48}}).training
    tiles = cut(read_splits(training.data, training.task, None, 0), training)
    assert profile(Front(Unchanged()), tiles, 1.0)["seam_step"] is None


def test_whole_images_are_halved_for_seams(make: Callable[..., EvaluateConfig]) -> None:
    training = make(training={"data": {"tile_size": None}}).training
    tiles = cut(read_splits(training.data, training.task, None, 0), training)
    assert module._seams(Front(Unchanged()), tiles["test"]) == 1


def test_domains_of_one_group_are_not_probed(tiles: Tiles) -> None:
    part = tiles["test"]
    nothing = {"probe_colour": None, "probe_rich": None, "probe_chance": None}
    assert probes(Front(Unchanged()), [part]) == nothing


def test_a_probe_that_cannot_be_split_is_none(
    tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uneven(*_: Any) -> float:
        raise ValueError("a fold has all groups of a domain")

    monkeypatch.setattr(module, "domain_probe", uneven)
    assert set(probes(Front(Unchanged()), [tiles["train"], tiles["test"]]).values()) == {None}


def test_an_empty_test_split(make: Callable[..., EvaluateConfig], tiles: Tiles) -> None:
    tiles["test"] = LabelledTiles([], make().training, 2, training=False)
    with pytest.raises(ConfigError, match="the test split is empty"):
        profile(Front(Unchanged()), tiles, 1.0)


def test_some_is_spread_over_whole_batches(tiles: Tiles) -> None:
    seen = [batch.item.tolist() for batch in module._some(tiles["test"], 192)]
    assert sorted(itertools.chain(*seen)) == list(range(len(tiles["test"])))
