"""Folders of tiles, read back by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.export.conftest import Made
from wsi_norm.export import export


def test_png_tiles_are_the_stores(make: Made, tmp_path: Path) -> None:
    store = make(downsample=1.25)
    (outcome,) = export([store.path], "png")
    names = {file.name for file in outcome.place.iterdir()}
    expected = {f"case_x{x}_y{y}_mpp0.625.png": i for i, (x, y) in enumerate(store.coords.tolist())}
    assert names == {*expected, "wsi_norm.json"}
    for name, index in expected.items():
        with Image.open(outcome.place / name) as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), store[index])


def test_jpeg_tiles_are_as_good_as_asked(make: Made, tmp_path: Path) -> None:
    store = make(tile=64)
    errors = []
    for quality in (30, 95):
        (outcome,) = export([store.path], "jpeg", tmp_path / str(quality), quality=quality)
        x, y = store.coords[0].tolist()
        with Image.open(outcome.place / f"case_x{x}_y{y}_mpp0.5.jpg") as image:
            assert (image.format, image.size) == ("JPEG", (64, 64))
            errors.append(np.abs(np.asarray(image).astype(int) - store[0]).mean())
    assert errors[1] < errors[0]
