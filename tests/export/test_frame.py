"""Where tiles lie on the slide, and on the image of their normalised pixels."""

import numpy as np
import pytest

from tests.builders import refusal
from tests.export.conftest import Made
from wsi_norm.errors import ExportError
from wsi_norm.export.frame import ImageOptions, frame


def test_on_the_slide_tiles_lie_where_the_store_says(make: Made) -> None:
    store = make(downsample=1.25)
    where = frame(store, "slide")
    np.testing.assert_array_equal(where.coords, store.coords)
    assert (where.width, where.height, where.mpp_um) == (320, 240, 0.5)
    assert (where.downsample, where.edge) == (1.25, 20)


def test_on_the_pyramid_they_lie_edge_to_edge(make: Made) -> None:
    store = make(downsample=1.3, size=(333, 240))
    where = frame(store, "pyramid")
    columns, rows = where.coords[:, 0], where.coords[:, 1]
    assert not (where.coords % 16).any()
    np.testing.assert_array_equal(np.floor(columns * 1.3 + 0.5), store.coords[:, 0])
    np.testing.assert_array_equal(np.floor(rows * 1.3 + 0.5), store.coords[:, 1])
    assert (where.width, where.height) == (256, 185)  # 333 / 1.3, 240 / 1.3
    assert (where.mpp_um, where.edge, where.level) == (0.65, 16, 0)
    assert where.has_resolution


def test_a_level_counts_for_the_tiles_within_half_a_percent(make: Made) -> None:
    assert frame(make(downsample=1.004), "slide").has_resolution
    assert not frame(make(downsample=1.006), "slide").has_resolution


def test_tiles_that_overlap_have_no_place_in_a_pyramid(make: Made) -> None:
    assert "overlap" in refusal(frame, make(overlap=4), "pyramid", kind=ExportError)


def test_there_are_two_images() -> None:
    with pytest.raises(ValueError, match="image is slide or pyramid, not 'thumbnail'"):
        ImageOptions("thumbnail")  # type: ignore[arg-type]
