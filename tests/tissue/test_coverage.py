"""The share of a tile that is tissue, against a loop over pixels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_norm.tissue import tissue_fraction

edges = st.floats(-4, 14, allow_nan=False, width=32)


def naive_fraction(mask: np.ndarray, box) -> float:
    x0, y0, x1, y1 = map(float, box)
    covered = 0.0
    for row, column in np.argwhere(mask):
        width = max(0.0, min(x1, column + 1) - max(x0, column))
        height = max(0.0, min(y1, row + 1) - max(y0, row))
        covered += width * height
    area = max(0.0, x1 - x0) * max(0.0, y1 - y0)
    return covered / area if area else 0.0


@settings(deadline=None, max_examples=150, database=None)
@given(
    bits=st.lists(st.booleans(), min_size=77, max_size=77),
    boxes=st.lists(st.tuples(edges, edges, edges, edges), max_size=6),
)
def test_tissue_fraction_equals_a_loop_over_pixels(bits, boxes):
    mask = np.asarray(bits).reshape(7, 11)
    # Float32 shares of slivers thinner than this mean nothing.
    boxes = [b for b in boxes if not (0 < b[2] - b[0] < 1e-4 or 0 < b[3] - b[1] < 1e-4)]
    got = tissue_fraction(mask, np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    assert got.dtype == np.float32
    assert got.shape == (len(boxes),)
    np.testing.assert_allclose(got, [naive_fraction(mask, box) for box in boxes], atol=1e-5)


def test_tissue_fraction_by_hand():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    boxes = [[0, 0, 4, 4], [1, 1, 3, 3], [0.5, 1, 1.5, 2], [-4, 0, 4, 4], [9, 9, 10, 10], [2] * 4]
    assert tissue_fraction(mask, np.asarray(boxes, float)).tolist() == [0.25, 1, 0.5, 0.125, 0, 0]
