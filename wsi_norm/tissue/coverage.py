"""How much of each tile is tissue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def tissue_fraction(mask: Mask, boxes: Floats) -> npt.NDArray[np.float32]:
    """Share of each box's area that is tissue, float32 (n,) in [0, 1]; 0 for a box without area.

    Parameters
    ----------
    mask
        bool (h, w); outside it there is no tissue.
    boxes
        float64 (n, 4): x0, y0, x1, y1 in mask pixels, pixel i spanning [i, i + 1]. Edges inside
        pixels count exactly.
    """
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    table[1:, 1:] = mask
    for axis in (0, 1):
        table.cumsum(axis=axis, out=table)
    x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    tissue = _table_at(table, x1, y1) - _table_at(table, x0, y1)
    tissue += _table_at(table, x0, y0) - _table_at(table, x1, y0)
    area = np.maximum(x1 - x0, 0.0) * np.maximum(y1 - y0, 0.0)
    share = np.divide(tissue, area, out=np.zeros_like(area), where=area > 0)
    return np.asarray(np.clip(share, 0.0, 1.0), dtype=np.float32)


def _table_at(table: Floats, x: Floats, y: Floats) -> Floats:
    """Summed-area table between its nodes: bilinear is exact where pixels are uniform."""
    rows, columns = table.shape[0] - 1, table.shape[1] - 1
    x, y = np.clip(x, 0, columns), np.clip(y, 0, rows)
    i, j = y.astype(np.intp), x.astype(np.intp)
    below, right = np.minimum(i + 1, rows), np.minimum(j + 1, columns)
    v, u = y - i, x - j
    top = table[i, j] * (1 - u) + table[i, right] * u
    bottom = table[below, j] * (1 - u) + table[below, right] * u
    return np.asarray(top * (1 - v) + bottom * v, dtype=np.float64)
