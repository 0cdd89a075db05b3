"""Flips, colour jitter and virtual scanners on batches."""

from __future__ import annotations

import pytest
import torch

from wsi_norm.cohort.augment import augment, flip, jitter, scan
from wsi_norm.cohort.virtual_scanner import DEFAULT_RANGE, VirtualScanner
from wsi_norm.config.train import AugmentationConfig

Tensor = torch.Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiles(number: int, height: int = 12, width: int = 12) -> Tensor:
    """Smooth tissue-like colours, all of one tile."""
    one = torch.rand(3, height, width, generator=seeded(9)) * 0.4 + 0.35
    return one.expand(number, 3, height, width).clone()


UNITS = torch.tensor([0, 1, 0, 2, 1])


@pytest.mark.parametrize(("height", "width", "kinds"), [(6, 6, 8), (6, 4, 4)])
def test_flips_take_the_mask_along(height: int, width: int, kinds: int) -> None:
    image = torch.arange(height * width).float().reshape(1, 1, height, width).repeat(200, 3, 1, 1)
    mask = image[:, 0].long()
    flipped, target = flip(image, mask, seeded())
    torch.testing.assert_close(flipped[:, 1].long(), target, rtol=0, atol=0)
    assert len({tuple(tile.flatten().tolist()) for tile in target}) == kinds
    assert (flipped.flatten(2).sort().values == image.flatten(2)).all()


def test_labels_are_not_flipped() -> None:
    labels = torch.tensor([1, 0, 1])
    _, target = flip(tiles(3), labels, seeded())
    assert target is labels


@pytest.mark.parametrize("change", [jitter, scan])
def test_a_unit_shares_its_colours(change: object) -> None:
    assert callable(change)
    image = tiles(5)
    changed = change(image, UNITS, 0.5, seeded())
    assert changed.shape == image.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    torch.testing.assert_close(changed[0], changed[2])
    torch.testing.assert_close(changed[1], changed[4])
    for one, other in ((0, 1), (0, 3), (1, 3)):
        assert (changed[one] - changed[other]).abs().max() > 0.01
    assert all((changed[k] - image[k]).abs().max() > 0.005 for k in range(5))
    again = change(image, UNITS, 0.5, seeded())
    torch.testing.assert_close(changed, again, rtol=0, atol=0)
    assert (change(image, UNITS, 0.5, seeded(1)) - changed).abs().max() > 0.01


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_jitter_scales_with_its_strength(strength: float) -> None:
    image = tiles(50)
    changed = jitter(image, torch.arange(50), strength, seeded())
    assert changed.isfinite().all()
    difference = (changed - image).abs().mean()
    assert difference < 0.01 if strength == 0.01 else difference > 0.1


def test_scanners_are_those_of_the_generator() -> None:
    image = tiles(5)
    expected = VirtualScanner.draw(3, seeded(4), DEFAULT_RANGE.scaled(2.0))[UNITS](image)
    torch.testing.assert_close(scan(image, UNITS, 2.0, seeded(4)), expected)


def test_what_is_off_does_nothing() -> None:
    image, target = tiles(5), torch.arange(5)
    off = AugmentationConfig(flips=False)
    same, labels = augment(image, target, UNITS, off, seeded())
    assert same is image
    assert labels is target


def test_all_together() -> None:
    image, mask = tiles(5), torch.randint(2, (5, 12, 12), generator=seeded())
    image[:, 0] = image[:, 0] * 0.2 + mask * 0.7
    settings = AugmentationConfig(flips=True, jitter=0.1, scanners=0.5)
    changed, target = augment(image, mask, UNITS, settings, seeded(1))
    assert (changed - image).abs().max() > 0.01
    for tile, own in zip(changed, target, strict=True):  # where it was red it still is
        assert tile[0][own == 1].mean() > tile[0][own == 0].mean() + 0.2
    again, _ = augment(image, mask, UNITS, settings, seeded(1))
    torch.testing.assert_close(changed, again, rtol=0, atol=0)
