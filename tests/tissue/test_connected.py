"""Parts that touch by edges or corners, chosen by the share of them that is sure."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import morphology

from wsi_norm.tissue.connected import amid, connected_parts, without_small

MASK = np.array([list("##..#"), list("..#.#"), list("....#"), list("#...#")]) == "#"
"""Three parts, of 3, 4 and 1 px."""


def sure(*places: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(MASK.shape, bool)
    for place in places:
        mask[place] = True
    return mask


def test_parts_with_enough_that_is_sure() -> None:
    chosen = connected_parts(MASK, sure((0, 0), (1, 4)), 0.3)
    np.testing.assert_array_equal(np.argwhere(chosen), [(0, 0), (0, 1), (1, 2)])
    np.testing.assert_array_equal(connected_parts(MASK, sure((0, 0), (1, 4)), 0.25)[:, 4], True)


def test_a_part_without_anything_sure_is_left_out() -> None:
    np.testing.assert_array_equal(connected_parts(MASK, sure((3, 0)), 0.0), sure((3, 0)))
    assert not connected_parts(MASK, sure((2, 1)), 0.0).any()
    assert not connected_parts(np.zeros((3, 4), bool), np.zeros((3, 4), bool), 0.0).any()


def test_holes_amid_tissue_and_beside_it() -> None:
    tissue, holes = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    tissue[:, :40] = True
    holes[20:30, 10:20] = holes[40:50, 45:55] = holes[0:15, 30:80] = True  # in, beside, across
    found = amid(holes, tissue & ~holes)
    assert found[20:30, 10:20].all()
    assert found.sum() == 100
    assert not amid(np.zeros_like(holes), tissue).any()


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 0.9), st.integers(0, 60))
@settings(deadline=None)
def test_small_parts_go_as_in_scikit_image(
    height: int, width: int, share: float, most_px: int
) -> None:
    mask = np.random.default_rng(most_px).random((height, width)) < share
    expected = morphology.remove_small_objects(mask, max_size=most_px)
    assert (without_small(mask, most_px) == expected).all()
    filled = morphology.remove_small_holes(mask, max_size=most_px)
    assert (~without_small(~mask, most_px) == filled).all()
