"""The conditions that tiles are judged under: as scanned, and as from simulated scanners."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsi_norm.cohort.augment import scan
from wsi_norm.cohort.batches import Batch
from wsi_norm.lstainnorm.sums import numbered

CONDITIONS = {"clean": 0.0, "simulated": 1.0}
"""Each condition's name, and how strong its virtual scanners are."""


def simulate(batch: Batch, strength: float, seed: int) -> Tensor:
    """Float images of a batch, each group as from its own virtual scanner; strength 0: as it is.

    A group's scanner depends on the seed and the group's number alone, not on the batch. What it
    gives are whole grey levels, as a scanner's file holds them.
    """
    image = batch.image.float() / 255
    if strength == 0:
        return image
    numbers, unit = numbered(batch.group)
    result = torch.empty_like(image)
    for place, number in enumerate(numbers.tolist()):
        own = unit == place
        one = torch.zeros(int(own.sum()), dtype=torch.long)
        scanned = scan(image[own], one, strength, seeded(seed, number))
        result[own] = (scanned * 255).round() / 255
    return result


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on all the numbers (torch's own seed keeps 32 bits)."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1)
    return torch.Generator().manual_seed(int(state))
