"""How good predictions are: the one balanced accuracy, the one Dice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.cohort.tiles import IGNORE
from wsi_norm.lstainnorm.sums import numbered

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def balanced_accuracy(found: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean recall of the classes that there are.

    Parameters
    ----------
    found, labels
        (n,): numbers of the predicted and the true classes; n is at least 1.
    """
    classes = np.asarray(labels)
    group, once = np.zeros(len(classes), np.int64), np.ones((1, 1))
    return float(drawn_balanced_accuracy(np.asarray(found)[None], classes, group, once)[0, 0])


def drawn_balanced_accuracy(found: Int, labels: Int, group: Int, multiplicity: Float) -> Float:
    """Balanced accuracy of several runs, if items count as often as their group is drawn.

    Parameters
    ----------
    found
        (runs, n).
    labels, group
        (n,); `group` is an index into the columns of `multiplicity`.
    multiplicity
        (resamples, G).

    Returns
    -------
    (runs, resamples); a class of which nothing is drawn is left out, and NaN where nothing is.
    """
    groups, classes = multiplicity.shape[1], int(labels.max()) + 1
    cell = group * classes + labels

    def per_cell(weights: Float | None = None) -> Float:
        counts = np.bincount(cell, weights, groups * classes)
        return counts.reshape(groups, classes).astype(float)

    drawn = multiplicity @ per_cell()
    right = multiplicity @ np.stack([per_cell((own == labels).astype(float)) for own in found])
    recall = right / np.where(drawn > 0, drawn, np.nan)
    return nanmean(recall, axis=2)


def nanmean(values: Float, axis: int) -> Float:
    """Mean of what is not NaN; NaN, and no warning, where nothing is."""
    known = ~np.isnan(values)
    count, total = known.sum(axis=axis), np.where(known, values, 0).sum(axis=axis)
    mean: Float = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def overlap(logits: Tensor, mask: Tensor) -> Tensor:
    """(B, 3): pixels found and true, found only, missed; classes above 0 are foreground."""
    counted = mask != IGNORE
    found, true = (logits.argmax(1) > 0) & counted, (mask > 0) & counted
    cells = (found & true, found & ~true, ~found & true)
    return torch.stack([cell.sum(dim=(-2, -1)) for cell in cells], dim=1)


def dice_per_item(item: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Items, their Dice and IoU, from overlaps (N, 3) of their tiles; 1 where both are empty."""
    items, place = numbered(item)
    total = torch.zeros(len(items), 3, dtype=torch.double, device=cells.device)
    hit, extra, missed = total.index_add(0, place, cells.double()).unbind(1)
    union = hit + extra + missed
    dice = torch.where(union > 0, 2 * hit / (union + hit).clamp_min(1), 1.0)
    return items, dice, torch.where(union > 0, hit / union.clamp_min(1), 1.0)
