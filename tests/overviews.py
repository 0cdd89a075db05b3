"""Overviews of real slides, photographs of artefacts, fields of H&E, and glass that is drawn."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from tests.builders import CMU, TCGA

GLASS_ONLY = ["almost-white-1", "almost-white-ihc", "no-tissue", "no-tissue-line"]
PEN_ONLY = ["no-tissue-green-pen", "no-tissue-red-pen"]
REAL = [(CMU, 16), (CMU, 32), (TCGA, 32), (TCGA, 64)]
"""Real slides, and by how much to downsample them for 8 and 16 um/px."""
TINTS = [(240, 225, 205), (215, 225, 243), (205, 205, 205)]
GLASSES = [(243, 243, 243), (240, 225, 205), (225, 232, 245), (180, 180, 180)]


@cache
def read_rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def artefact(data_dir: Path, name: str) -> np.ndarray:
    return read_rgb(data_dir / "slides" / "artefacts" / f"{name}.png")


@cache
def overview(path: Path, downsample: float) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        size = (int(width / downsample), int(height / downsample))
        return np.asarray(slide.get_thumbnail(size).convert("RGB"))


def as_jpeg(rgb: np.ndarray, quality: int = 40) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def glass(colour=(243, 243, 243), shape=(200, 240), noise=1.5, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.asarray(colour) + rng.normal(0, noise, (*shape, 3))
    return np.clip(values, 0, 254).round().astype(np.uint8)


def shaded_glass(colour, shading: float) -> np.ndarray:
    """Glass that darkens to the right by `shading`, as a JPEG of low quality."""
    ramp = 1 - shading * np.linspace(0, 1, 240)[None, :, None]
    return as_jpeg((glass(colour) * ramp).astype(np.uint8))


def tinted(rgb: np.ndarray, tint) -> np.ndarray:
    """As under a lamp that makes grey 245 this colour."""
    return np.clip(rgb * (np.asarray(tint) / 245), 0, 255).astype(np.uint8)


def fields(data_dir: Path) -> list[Path]:
    """All samples, all MoNuSeg fields, every 29th mitosis patch."""
    tiles = data_dir / "tiles"
    mitosis = sorted((tiles / "mitosis").glob("*/*.png"))[::29]
    monuseg = sorted((tiles / "monuseg" / "images").glob("*.webp"))
    assert len(monuseg) == 24
    assert len(mitosis) > 50
    return [*sorted((tiles / "samples").iterdir()), *monuseg, *mitosis]
