"""Both real slides in every format, the image opened by OpenSlide and tifffile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from tests.export.conftest import image_of
from wsi_norm.choices import EXPORTS
from wsi_norm.export import export
from wsi_norm.store import TileStore


@pytest.mark.parametrize("to", EXPORTS)
def test_every_format(real_stores: list[Path], tmp_path: Path, to: str) -> None:
    outcomes = list(export(real_stores, to, tmp_path))
    assert [(outcome.status, outcome.error) for outcome in outcomes] == [("written", "")] * 2


def test_the_image_is_the_store(real_stores: list[Path], tmp_path: Path) -> None:
    for outcome in export(real_stores, "ome-tiff", tmp_path):
        store = TileStore.open(outcome.store)
        with openslide.OpenSlide(outcome.place) as slide, tifffile.TiffFile(outcome.place) as file:
            width, height = slide.dimensions
            expected = image_of(store, width, height)
            region = np.asarray(slide.read_region((0, 0), 0, (width, height)))
            np.testing.assert_array_equal(region[..., :3], expected)
            np.testing.assert_array_equal(file.series[0].asarray(), expected)
            assert len(file.series[0].levels) == slide.level_count
            facts = store.meta.slide
            assert width == round(facts.width_px * facts.mpp_um / 0.5)
            assert height == round(facts.height_px * facts.mpp_um / 0.5)
