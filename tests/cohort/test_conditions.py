"""Tiles as other scanners would have seen them."""

from __future__ import annotations

from typing import get_args

import torch

from tests.cohorts import batch_of
from wsi_norm.cohort.batches import Batch
from wsi_norm.cohort.conditions import CONDITIONS, seeded, simulate
from wsi_norm.cohort.virtual_scanner import DEFAULT_RANGE, VirtualScanner
from wsi_norm.config.evaluate import Condition


def test_the_conditions_are_those_of_the_settings() -> None:
    assert list(CONDITIONS) == list(get_args(Condition))
    assert CONDITIONS["clean"] == 0


def test_a_group_has_one_scanner_in_any_batch() -> None:
    batch = batch_of([4, 2, 4, 7])
    out = simulate(batch, 1.0, 11)
    part = Batch(*(value[[2, 3]] for value in batch))
    torch.testing.assert_close(simulate(part, 1.0, 11), out[[2, 3]])
    for place, group in enumerate([4, 2, 4, 7]):
        scanner = VirtualScanner.draw(1, seeded(11, group), DEFAULT_RANGE)
        expected = scanner(batch.image[place : place + 1].float() / 255)
        levels = (255 * expected).round() / 255  # as a file holds them
        torch.testing.assert_close(out[place : place + 1], levels)
    assert (simulate(batch, 1.0, 12) - out).abs().max() > 0.01
    torch.testing.assert_close(simulate(batch, 0.0, 11), batch.image.float() / 255)


def test_seeds_of_several_numbers() -> None:
    states = [seeded(*numbers).initial_seed() for numbers in ((0, 1), (1, 0), (0, 1, 2), (0, 2))]
    assert len({*states}) == 4
    assert seeded(2**31 - 1, 5).initial_seed() == seeded(2**31 - 1, 5).initial_seed()
