"""What a slide's pixels are, by OpenSlide and numpy."""

from functools import cache
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from wsi_norm.geometry import Level, Region

READERS = ("openslide", "tiffslide")
OF_JPEG = (*READERS, "direct")


@cache
def whole_level(path: Path, level: int) -> np.ndarray:
    """A level by OpenSlide in one read from its corner, so on the level's own pixel grid."""
    with openslide.OpenSlide(path) as slide:
        image = slide.read_region((0, 0), level, slide.level_dimensions[level])
    return composed(image)


def composed(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of RGBA over white, computed with numpy."""
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def oracle(path: Path, level: Level, left: int, top: int, width: int, height: int) -> np.ndarray:
    """A rectangle of level px cut from the whole level, white beyond it."""
    margin = max(width, height)
    padded = np.pad(
        whole_level(path, level.index),
        ((margin, margin), (margin, margin), (0, 0)),
        constant_values=255,
    )
    top, left = (
        min(max(v, -margin), s) + margin for v, s in ((top, level.height), (left, level.width))
    )
    return padded[top : top + height, left : left + width]


def at(level: Level, left: int, top: int, width: int, height: int) -> Region:
    """The region whose corner is a pixel of the level."""
    x, y = round(left * level.downsample), round(top * level.downsample)
    return Region(x, y, level.index, width, height)
