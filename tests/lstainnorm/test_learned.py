"""What a layer learned, against values set by hand."""

from __future__ import annotations

import pytest
import torch

from tests.builders import TEMPLATE
from wsi_norm import LStainNorm
from wsi_norm.lstainnorm.learned import moves, space_weights


def test_an_untrained_layer_has_not_moved() -> None:
    for move in moves(LStainNorm("paper", template=TEMPLATE)):
        assert move.in_std == 0
        assert move.times == 1
        assert move.target_mean == move.template_mean


def test_a_move_is_told_in_units_and_in_template_std() -> None:
    layer = LStainNorm("mean", template=TEMPLATE)
    with torch.no_grad():
        layer.normalization.mean_offset[1, 0] = -0.5  # L*, half a std darker
        layer.normalization.std_offset[1, 1] = 0.25
    told = {(move.space, move.channel): move for move in moves(layer)}
    assert len(told) == 9
    assert told["lab", "L*"].target_mean == pytest.approx(59 - 0.5 * 15)
    assert told["lab", "L*"].in_std == pytest.approx(-0.5)
    assert told["lab", "a*"].times == pytest.approx(1.25)
    assert told["rgb", "R"].in_std == 0


def test_space_weights_of_each_preset() -> None:
    mean = LStainNorm("mean", template=TEMPLATE)
    product = LStainNorm("product", template=TEMPLATE)
    paper = LStainNorm("paper", template=TEMPLATE)
    with torch.no_grad():
        mean.fusion.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        product.fusion.logits.copy_(torch.tensor([0.0, 0.0, 1.0]).log_softmax(0))
        paper.fusion.shift.copy_(torch.tensor([1.0, 0.0, 0.0]))
    assert space_weights(mean)["lab"] == pytest.approx(2 / 3.001)
    assert space_weights(mean)["hsv"] == pytest.approx(0.001 / 3.001)  # the bound of R_s
    assert space_weights(product)["hsv"] == pytest.approx(2.718281828 / 4.718281828)
    assert space_weights(paper)["rgb"] == pytest.approx((1 / 3 + 1) / 2)
    assert space_weights(LStainNorm("single:lab", template=TEMPLATE)) == {"lab": 1.0}
    for layer in (mean, product, paper):
        assert sum(space_weights(layer).values()) == pytest.approx(1)
