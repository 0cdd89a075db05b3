"""Predictions of a trained task on tiles it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from wsi_norm.cohort.batches import loader, whole_groups
from wsi_norm.cohort.conditions import simulate
from wsi_norm.cohort.scores import balanced_accuracy, dice_per_item, overlap
from wsi_norm.cohort.tiles import LabelledTiles

Row = dict[str, Any]

TILES_AT_ONCE = 64


@torch.inference_mode()
def judge(
    front: nn.Module, network: nn.Module, tiles: LabelledTiles, *, strength: float, seed: int
) -> list[Row]:
    """What a front and a network make of tiles.

    Parameters
    ----------
    front, network
        As in `StainTask`.
    tiles
        Not for training.
    strength
        Of the virtual scanners, one per group; 0 leaves the images as they are.
    seed
        Of the virtual scanners.

    Returns
    -------
    A row per tile (classification: item, group, domain, label, p0, p1 ...) or per image
    (segmentation: item, group, domain, dice, iou).
    """
    front.eval()
    network.eval()
    rows: list[Row] = []
    items, cells = [], []
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    for batch in loader(tiles, whole_groups(tiles, TILES_AT_ONCE)):
        image = simulate(batch, strength, seed).to(device)
        logits = network(front(image, batch.group.to(device))).cpu()
        if tiles.task == "segmentation":
            items.append(batch.item)
            cells.append(overlap(logits, batch.target))
            continue
        chances = logits.double().softmax(1).numpy()
        places = zip(batch.item.tolist(), batch.target.tolist(), chances, strict=True)
        for item, label, chance in places:
            scores = {f"p{k}": float(value) for k, value in enumerate(chance)}
            rows.append({**_facts(tiles, item, label), "label": label, **scores})
    if items:
        numbers, dice, iou = dice_per_item(torch.cat(items), torch.cat(cells))
        for item, d, i in zip(numbers.tolist(), dice.tolist(), iou.tolist(), strict=True):
            rows.append({**_facts(tiles, item), "dice": d, "iou": i})
    return rows


def mean_score(rows: list[Row]) -> float:
    """Balanced accuracy of rows of classification; mean Dice of rows of segmentation."""
    if "dice" in rows[0]:
        return float(np.mean([row["dice"] for row in rows]))
    chances = np.array([[row[f"p{k}"] for k in range(_classes(row))] for row in rows])
    return balanced_accuracy(chances.argmax(1), [row["label"] for row in rows])


def _classes(row: Row) -> int:
    return sum(key[0] == "p" and key[1:].isdigit() for key in row)


def _facts(tiles: LabelledTiles, item: int, label: int = -1) -> Row:
    image = tiles.images[item]
    view = f"#{list(tiles.data.views)[label]}" if tiles.data.views else ""
    return {"item": image.name + view, "group": image.group, "domain": image.domain}
