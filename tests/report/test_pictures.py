"""Thumbnails as JPEGs: size, bytes, and what is drawn in; in a page, and on a shelf beside it."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_norm.report.pictures import MAX_BYTES, Jpeg, picture, picture_with_tissue

WHITE = np.full((300, 600, 3), 255, np.uint8)


def pixels(drawn: Jpeg) -> Any:
    assert base64.b64decode(drawn.inside().uri.split("data:image/jpeg;base64,")[1]) == drawn.data
    image = Image.open(io.BytesIO(drawn.data))
    assert image.format == "JPEG"
    assert image.size == (drawn.width_px, drawn.height_px)
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((300, 600), (200, 100)),
        ((1024, 256), (50, 200)),
        ((40, 30), (30, 40)),
        ((1, 900), (200, 1)),
    ],
)
def test_the_longer_edge_is_at_most_200_px(shape: tuple[int, int], size: tuple[int, int]) -> None:
    drawn = picture(np.full((*shape, 3), 90, np.uint8))
    assert (drawn.width_px, drawn.height_px) == size
    assert abs(pixels(drawn) - 90).max() <= 3


def test_detail_is_compressed_more() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(noise[:4, :4]).resize((200, 200)))
    assert len(picture(smooth).data) <= MAX_BYTES
    coarse = np.asarray(Image.fromarray(noise[:40, :40]).resize((200, 200)))
    assert len(picture(coarse).data) <= MAX_BYTES


def test_the_outline_runs_along_the_mask_and_nowhere_else() -> None:
    tissue = np.zeros((15, 30), bool)
    tissue[3:12, 6:24] = True  # 40-160 by 20-80 px of the picture
    dark = pixels(picture_with_tissue(WHITE, tissue, [])).min(axis=2) < 120
    assert dark[50, 38:43].any()
    assert dark[18:23, 100].any()
    assert not dark[26:74, 46:154].any()
    assert not dark[:, :35].any()
    assert not (pixels(picture(WHITE)).min(axis=2) < 120).any()


def test_tissue_everywhere_is_outlined_at_the_border() -> None:
    image = pixels(picture_with_tissue(WHITE, np.ones((5, 9), bool), []))
    assert image[0, 100].min() < 120
    assert image[50, 100].min() > 200


def test_unreadable_tiles_are_red_and_stay_inside() -> None:
    boxes = [(0.25, 0.2, 0.75, 0.8), (0.9, 0.9, 1.4, 1.3), (0.1, 0.1, 0.1001, 0.1001)]
    image = pixels(picture_with_tissue(WHITE, np.zeros((5, 9), bool), boxes))
    red = image[..., 0] - image[..., 1] > 40
    assert red[50, 48:53].any()
    assert red[50, 148:153].any()
    assert red[99, 180:].any()
    assert not red[30:70, 60:140].any()
