"""The numbers of a normaliser itself, on the tiles of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.cohort.batches import Batch, loader, whole_groups
from wsi_norm.cohort.conditions import simulate
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.errors import ConfigError
from wsi_norm.evaluation import quality
from wsi_norm.evaluation.probe import colour_features, domain_probe, rich_features
from wsi_norm.lstainnorm.background import white_of
from wsi_norm.training.front import Front

Floats = npt.NDArray[np.float64]

TILES = 192
"""Tiles of the test split that are looked at, in whole groups."""
PROBED = 300
"""Tiles per domain that the probe sees at most."""
SEAM_IMAGES = 24


@torch.inference_mode()
def profile(front: Front, tiles: dict[str, LabelledTiles], strength: float) -> dict[str, Any]:
    """What a normaliser does to images.

    Parameters
    ----------
    front
        As in `wsi_norm.training.front`.
    tiles
        The splits of a training.
    strength
        Of the virtual scanners whose scans are compared.

    Returns
    -------
    pair_ciede2000 (between two virtual scans), pair_ciede2000_before; ssim, gradient_correlation
    (of luminance, before and after); seam_step (1: none added; None where no image holds two tiles
    each way); background_drift (grey levels of 255, of what is pale relative to the group's white;
    None where there is no background); degenerate_failures and what they are; probe_colour and
    probe_rich (balanced accuracy of telling domains apart; None where there are too few groups),
    probe_chance; refused (tiles passed through for want of usable statistics, of those as scanned).

    Raises
    ------
    ConfigError
        The test split is empty.
    """
    test = tiles["test"]
    if not len(test):
        raise ConfigError("the test split is empty: there is nothing to look at")
    front.eval()
    pairs, before, ssim, gradients, drifts = [], [], [], [], []
    refused = 0
    for batch in _some(test, TILES):
        scans = [simulate(batch, strength, seed) for seed in (1, 2)]
        plain = simulate(batch, 0.0, 0)
        earlier = front.passed_through
        after = front(plain, batch.group)
        refused += front.passed_through - earlier
        pairs.append(quality.pair_difference(*(front(scan, batch.group) for scan in scans)))
        before.append(quality.pair_difference(*scans))
        similarity, correlation = quality.structure(plain, after)
        ssim.append(similarity)
        gradients.append(correlation)
        drifts.append(quality.background_drift(plain, after, white_of(plain, batch.group)))
    drift = np.concatenate(drifts)
    verdicts = quality.robustness(_alone(front))
    failures = {name: verdict for name, verdict in verdicts.items() if verdict != "ok"}
    return {
        "pair_ciede2000": _mean(pairs),
        "pair_ciede2000_before": _mean(before),
        "ssim": _mean(ssim),
        "gradient_correlation": _mean(gradients),
        "seam_step": _seams(front, test),
        "background_drift": None if np.isnan(drift).all() else round(float(np.nanmean(drift)), 3),
        "degenerate_failures": len(failures),
        "degenerate": failures,
        "refused": refused,
        **probes(front, [tiles[name] for name in ("train", "validation", "test")]),
    }


def probes(front: Front, parts: list[LabelledTiles]) -> dict[str, float | None]:
    """The domain probe with six colour numbers and with richer features, over several splits."""
    colour, rich, domain, group = [], [], [], []
    seen: Counter[str] = Counter()
    for part in parts:
        for batch in loader(part, whole_groups(part, 64)):
            names = [part.images[item] for item in batch.item.tolist()]
            if seen[names[0].domain] >= PROBED:
                continue
            seen.update(image.domain for image in names)
            after = front(simulate(batch, 0.0, 0), batch.group)
            colour.append(colour_features(after))
            rich.append(rich_features(after))
            domain += [image.domain for image in names]
            group += [image.group for image in names]
    domains, groups = np.array(domain), np.array(group)
    told = [name for name in set(domain) if len(set(groups[domains == name])) > 1]
    enough = np.isin(domains, told)
    unknown = dict.fromkeys(("probe_colour", "probe_rich", "probe_chance"))
    if len(told) < 2:
        return unknown
    try:
        scores = [
            domain_probe(np.concatenate(features)[enough], domains[enough], groups[enough])
            for features in (colour, rich)
        ]
    except ValueError:  # groups so uneven that a fold lacks a domain
        return unknown
    colour_score, rich_score = (round(score, 3) for score in scores)
    chance = round(1 / len(told), 3)
    return {"probe_colour": colour_score, "probe_rich": rich_score, "probe_chance": chance}


def _some(tiles: LabelledTiles, limit: int) -> Iterator[Batch]:
    """Batches of whole groups, spread over the split, of `limit` tiles in all."""
    batches = whole_groups(tiles, 32)
    step = max(1, sum(map(len, batches)) // limit)
    yield from loader(tiles, batches[::step])


def _seams(front: Front, tiles: LabelledTiles) -> float | None:
    """Steps where tiles meet; tiles of an image count as one group, as they are of one slide."""
    size = tiles.data.tile_size
    steps = []
    for index in range(0, len(tiles.images), max(1, len(tiles.images) // SEAM_IMAGES)):
        image = torch.from_numpy(tiles.pixels(index).transpose(2, 0, 1).copy()).float() / 255
        edge = size or min(image.shape[1:]) // 2
        height, width = (length // edge * edge for length in image.shape[1:])
        if min(height, width) < 2 * edge:
            continue
        steps.append(quality.seam_step(_alone(front), image[None, :, :height, :width], edge))
    return _mean(steps) if steps else None


def _alone(front: Front) -> Callable[[Tensor], Tensor]:
    """A front on tiles of one group."""
    return lambda images: front(images, torch.zeros(len(images), dtype=torch.long))


def _mean(values: list[Floats]) -> float:
    return round(float(np.concatenate(values).mean()), 4)
