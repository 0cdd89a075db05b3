"""What a layer learned, against values set by hand."""

from __future__ import annotations

import pytest
import torch

from wsi_norm import LStainNorm, Template
from wsi_norm.lstainnorm.learned import moves, space_weights

TEMPLATE = Template(
    {"rgb": (0.7, 0.5, 0.7), "lab": (60.0, 26.0, -16.0), "hsv": (5.3, 0.3, 0.7)},
    {"rgb": (0.15, 0.16, 0.12), "lab": (14.0, 8.0, 7.0), "hsv": (0.25, 0.12, 0.13)},
)


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
    assert told["lab", "L*"].target_mean == pytest.approx(60 - 0.5 * 14)
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
