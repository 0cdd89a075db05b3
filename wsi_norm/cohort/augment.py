"""What happens to training tiles before the normaliser: all seeded, all on the tiles' device."""

from __future__ import annotations

import math

import torch
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from torch import Tensor

from wsi_norm.cohort.virtual_scanner import DEFAULT_RANGE, VirtualScanner
from wsi_norm.config.train import AugmentationConfig

HUE_TURNS = 0.2
"""Hue moves at most by this share of a full turn, times the jitter's strength."""


def augment(
    image: Tensor,
    target: Tensor,
    unit: Tensor,
    settings: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Flipped, jittered and re-scanned tiles.

    Parameters
    ----------
    image
        float (B, 3, H, W), RGB in [0, 1].
    target
        long (B,), or masks (B, H, W), which are flipped with their images.
    unit
        long (B,): tiles with equal numbers get the same colours (a slide has one scanner).
    settings
        What, and how strong.
    generator
        CPU generator of all draws.
    """
    if settings.flips:
        image, target = flip(image, target, generator)
    if settings.jitter:
        image = jitter(image, unit, settings.jitter, generator)
    if settings.scanners:
        image = scan(image, unit, settings.scanners, generator)
    return image, target


def flip(image: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each tile in one of its eight orientations (four, if it is not square)."""
    square = image.shape[-1] == image.shape[-2]
    turns = torch.randint(4, (len(image),), generator=generator) if square else None
    mirrored = torch.randint(2, (len(image), 2), generator=generator).bool()
    images, targets = [], []
    for index in range(len(image)):
        tile = image[index]
        mask = target[index] if target.ndim == 3 else None
        axes = [axis for axis, on in zip((-1, -2), mirrored[index].tolist(), strict=True) if on]
        turn = 0 if turns is None else int(turns[index])
        images.append(tile.flip(axes).rot90(turn, (-2, -1)))
        if mask is not None:
            targets.append(mask.flip(axes).rot90(turn, (-2, -1)))
    return torch.stack(images), torch.stack(targets) if targets else target


def jitter(image: Tensor, unit: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation by factors in 1 +- strength; hue by a part of a turn."""
    draws = torch.rand(int(unit.max()) + 1, 4, generator=generator) * 2 - 1
    own = (draws * strength).to(image)[unit.to(image.device)]
    factors = 1 + own[:, :3]
    image = adjust_brightness_accumulative(image, factors[:, 0])
    image = adjust_contrast_with_mean_subtraction(image, factors[:, 1])
    image = adjust_saturation_with_gray_subtraction(image, factors[:, 2])
    return adjust_hue(image, own[:, 3] * HUE_TURNS * math.tau).clamp(0, 1)


def scan(image: Tensor, unit: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """As if each unit came from a random virtual scanner."""
    scanners = VirtualScanner.draw(int(unit.max()) + 1, generator, DEFAULT_RANGE.scaled(strength))
    return scanners[unit.cpu()](image)
