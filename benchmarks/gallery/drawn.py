"""Subjects that the package draws: synthetic H&E with something painted in, by Beer-Lambert.

Optical densities (natural log) of what is painted take the place of the tissue's or are added to
them. The same name gives the same pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage
from scipy.spatial import cKDTree

from wsi_norm.synthetic import BLUE_PURPLE, GLASS_LEVEL, write_synthetic_slide

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Paint = Callable[[Floats, np.random.Generator], Floats]

EDGE, MPP_UM = 1024, 0.5
HAEMATOXYLIN, EOSIN = BLUE_PURPLE.densities().astype(float)
ERYTHROCYTE = np.array((0.09, 1.15, 0.85))
MELANIN = np.array((1.1, 1.45, 1.9))
MUCIN = np.array((0.14, 0.12, 0.06))
DAB = np.array((0.45, 0.95, 1.3))


def noise(random: np.random.Generator, sigma: float) -> Floats:
    """Smooth noise (EDGE, EDGE) of mean 0 and variance 1."""
    field = ndimage.gaussian_filter(random.standard_normal((EDGE, EDGE)), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def ramp(depth: Floats, width: float) -> Floats:
    """0 to 1 as depth passes zero, (EDGE, EDGE, 1)."""
    return np.asarray((depth / width + 0.5).clip(0, 1)[..., None])


def blood(density: Floats, random: np.random.Generator) -> Floats:
    """Lakes of packed red cells: strong, homogeneous eosin."""
    lake, cells = ramp(noise(random, 60) - 0.5, 0.03), noise(random, 2.5)[..., None]
    return density * (1 - lake) + lake * ERYTHROCYTE * (1 + 0.12 * cells)


def melanin(density: Floats, random: np.random.Generator) -> Floats:
    """Brown granules, in clumps the size of a cell: they absorb all light, blue most."""
    cells, grains = ramp(noise(random, 9) - 1.1, 0.2), ramp(noise(random, 1.2) - 0.2, 0.8)
    tissue = ramp(ndimage.gaussian_filter(density[..., 1], 4) - 0.2, 0.1)
    return density + tissue * cells * (0.25 + grains) * MELANIN


def fat(density: Floats, random: np.random.Generator) -> Floats:
    """Empty vacuoles behind thin pink lines."""
    centres = cKDTree(random.uniform(0, EDGE, (420, 2)))
    nearest, second = centres.query(np.indices((EDGE, EDGE)).T, k=2)[0].T
    wall = ramp(3 - (second - nearest), 3)
    lobe = ramp(noise(random, 90) + 0.1, 0.02)
    return density * (1 - lobe) + lobe * wall * EOSIN * 0.45


def mucin(density: Floats, random: np.random.Generator) -> Floats:
    """Pools of pale blue-grey with streaks."""
    pool = ramp(noise(random, 70) - 0.2, 0.03)
    streaks = np.abs(noise(random, 14))[..., None] + 0.5 * np.abs(noise(random, 4))[..., None]
    return density * (1 - pool) + pool * MUCIN * (0.4 + 0.7 * streaks)


def dab(density: Floats, random: np.random.Generator) -> Floats:
    """Immunohistochemistry: no eosin, pale blue nuclei, brown where the marker is."""
    amounts = (density @ np.linalg.pinv(np.stack([HAEMATOXYLIN, EOSIN]))).clip(0)
    marked = ramp(noise(random, 25) - 0.3, 0.4) * (0.25 * amounts[..., 1:] + 0.7 * amounts[..., :1])
    return 0.6 * amounts[..., :1] * HAEMATOXYLIN + 0.04 * amounts[..., 1:] + marked * DAB


PAINTS: dict[str, Paint] = {paint.__name__: paint for paint in (blood, melanin, fat, mucin, dab)}


def draw(name: str) -> UInt8:
    """A field of tissue at 0.5 um/px with one of PAINTS, uint8 (EDGE, EDGE, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tissue.svs"
        write_synthetic_slide(
            path, width=EDGE, height=EDGE, mpp_um=MPP_UM, levels=1, pen=False, stains=(BLUE_PURPLE,)
        )
        pixels = tifffile.imread(path, key=0)
    random = np.random.default_rng(sorted(PAINTS).index(name))
    density = np.log(GLASS_LEVEL / np.maximum(pixels, 1.0))
    light = GLASS_LEVEL * np.exp(-PAINTS[name](density, random))
    return np.asarray(np.rint(light).clip(0, 255), np.uint8)
