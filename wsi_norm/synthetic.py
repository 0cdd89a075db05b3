"""A synthetic H&E slide: tissue from two laboratories, glass and a pen mark, as an Aperio file.

It is first planned as smooth maps in µm, one node per 8 px, and a list of nuclei. Each block of
pixels is then drawn from that plan alone: stain concentrations, then Beer-Lambert light.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, product
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_norm.machine import available_cores

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]
Rng = np.random.Generator
Vector = tuple[float, float, float]

NODE_PX, BLOCK_PX, TEXTURE_PX, TILE = 8, 512, 1024, (256, 256)
NODES = BLOCK_PX // NODE_PX
FROM_NODES = np.arange(BLOCK_PX)[:, None] / NODE_PX - np.arange(NODES + 1)
LINEAR = (1 - np.abs(FROM_NODES)).clip(0).astype(np.float32)
# 4:4:4, for decoders interpolate subsampled chroma differently
JPEG: Any = {"compression": "jpeg", "compressionargs": {"level": 85}, "subsampling": (1, 1)}
PLAIN_RGB: Any = {"photometric": "rgb", "metadata": None, "software": False}
GLASS_LEVEL, INK = 243, np.array((1.75, 0.85, 0.22), dtype=np.float32)
SPINDLE, LYMPHOID, EPITHELIAL = range(3)
EPITHELIUM_UM, ANGLES, VARIANTS = 19.0, 24, 4


_blas = Lock()
"""It has threads of its own, which wait for each other busily."""


@dataclass(frozen=True)
class StainAppearance:
    """How one laboratory's H&E absorbs: optical density (natural log) by R, G, B, any length."""

    haematoxylin: Vector
    eosin: Vector
    haematoxylin_strength: float = 1.0
    eosin_strength: float = 1.0

    def densities(self) -> Floats:
        """Return optical density per concentration, float32 (2, 3): haematoxylin, eosin."""
        unit = [np.divide(v, np.linalg.norm(v)) for v in (self.haematoxylin, self.eosin)]
        strengths = np.array([[self.haematoxylin_strength], [self.eosin_strength]])
        return np.asarray(unit * strengths, dtype=np.float32)


BLUE_PURPLE = StainAppearance((0.650, 0.704, 0.286), (0.072, 0.990, 0.335), 1.0, 0.9)
"""Well stained. Vectors of Ruifrok & Johnston (2001), Anal Quant Cytol Histol 23:291-299, but for
eosin's blue: 0.105 there is violet, this is the pink of most scanners."""
PALE_BROWN = StainAppearance((0.560, 0.700, 0.440), (0.140, 0.880, 0.600), 0.65, 0.8)
"""Pale and brownish, as after fading: the same vectors turned towards blue absorption."""


class _Plan(NamedTuple):
    """All that a block is drawn from.

    `maps` (8, rows, columns): µm inside tissue, gland, gap, pen; px along, across fibres; density
    of cells; section. `nuclei` (n, 4): x px, y px, sprite, darkness. `stains` (sections, 2, 3).
    """

    maps: Floats
    nuclei: Floats
    sprites: Floats
    fibre: Floats
    grain: Floats
    stains: Floats
    seed: int


def _ramp(depth: Floats, width: float) -> Floats:
    """Return 0 to 1 as `depth` passes zero, over `width` of the same unit."""
    return (depth / width + 0.5).clip(0, 1)


def _noise(rng: Rng, shape: tuple[int, ...], *sigma: float) -> Floats:
    """Return periodic float32 noise, mean 0, variance 1, blurred by `sigma` px along (y, x)."""
    sy, sx = (min(s, size / 4) for s, size in zip(sigma, shape[-2:], strict=True))
    fy, fx = np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])
    blur = np.exp(-2 * np.pi**2 * ((fy * sy) ** 2 + (fx * sx) ** 2)).astype(np.float32)
    blur[0, 0] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape, np.float32)) * blur, shape[-2:])
    return np.asarray(noise / noise.std())


def _scatter(rng: Rng, size_um: Floats, spacing: float) -> Floats:
    """Return points (n, 2), one at random in the middle of each square of a grid."""
    corners = np.indices(np.ceil(size_um / spacing).astype(int)).reshape(2, -1).T
    return (corners + rng.uniform(0.15, 0.85, corners.shape)) * spacing


def _sample(maps: Floats, points: Floats, step: float) -> Floats:
    """Return the values of maps (..., rows, columns) at the nodes nearest to points (n, 2)."""
    x, y = np.rint(points / step).astype(int).clip(0, np.array(maps.shape[:-3:-1]) - 1).T
    return np.asarray(maps[..., y, x])


def _blob(rng: Rng, grid: Floats, centre: Floats, axes: Floats, wave: float) -> Floats:
    """Return about how many µm the points of `grid` (2, ...) are inside a wavy ellipse."""
    u, v = ((grid.T - centre) / axes).T.astype(np.float32)
    angle, phases = np.arctan2(v, u), rng.uniform(0, 2 * np.pi, 5).tolist()
    waves = (np.cos(k * angle + phase) / (k - 1) for k, phase in enumerate(phases, start=2))
    return np.asarray((1 + wave * sum(waves) - np.hypot(u, v)) * float(axes.mean()))


def _fill(rng: Rng, grid: Floats, room: Floats, spacing: float, radius: float) -> Floats:
    """Return depths (2, ...) in the deepest and the second of blobs set where `room` is above 0."""
    depths, step = np.full_like(grid, -99), grid[0, 0, 1]
    centres = _scatter(rng, grid[:, -1, -1], spacing)
    for centre in centres[_sample(room, centres, step) > 0]:
        corners = centre + radius * np.array([[-2.5], [2.5]])
        (left, top), (right, bottom) = (corners / step).clip(0).astype(int)
        at, axes = np.s_[:, top:bottom, left:right], radius * rng.uniform(0.7, 1.3, 2)
        depths[at] = np.sort([*depths[at], _blob(rng, grid[at], centre, axes, 0.1)], axis=0)[:0:-1]
    return depths


def _draw_maps(rng: Rng, size_um: Floats, step: float, sections: int, pen: bool) -> Floats:
    """Return the maps of whole blocks, float32 (8, rows, columns), nodes `step` µm apart."""
    counts = np.ceil(size_um / (step * NODES)).astype(int) * NODES + 1
    grid = np.array(np.meshgrid(*map(np.arange, counts)), dtype=np.float32) * step
    x, y = grid

    def noise(sigma_um: float) -> Floats:
        return _noise(rng, x.shape, sigma_um / step, sigma_um / step)

    longer, small = np.eye(2)[size_um.argmax()], float(size_um.min())
    cell = size_um / np.where(longer, sections, 1)
    centres = cell * (0.5 + np.outer(np.arange(sections), longer))
    depths = np.stack([_blob(rng, grid, at, cell * (0.37, 0.4), 0.07) for at in centres])
    section = depths.argmax(axis=0)
    tissue = depths.max(axis=0) + min(1, small / 1000) * (16 * noise(45) + 4 * noise(10))

    fat_zone, gland_zone = 99 * noise(110) - 140, 99 * noise(170) + 40
    gland, _ = _fill(rng, grid, np.minimum.reduce((tissue - 42, gland_zone, -fat_zone)), 104, 40)
    fat, neighbour = _fill(rng, grid, np.minimum(tissue - 18, fat_zone), 46, 32)
    holes = np.minimum(fat, (fat - neighbour) / 2 - 1.5)
    cracks = 5 * noise(120) - 5 - 60 * np.abs(noise(45))
    lumen = gland - EPITHELIUM_UM - 1.2 * noise(4)
    gap = np.maximum(lumen, np.minimum(np.maximum(holes, cracks), -8 - gland))

    turn = rng.uniform(0, np.pi, sections).astype(np.float32)[section]
    bend = min(60, 0.05 * small) * noise(140) + 7 * noise(20)
    across = y * np.cos(turn) - x * np.sin(turn) + bend + 12 * np.exp(-np.abs(gland) / 10)
    along = x * np.cos(turn) + y * np.sin(turn) + bend
    loop = _blob(rng, grid, cell * (0.3, 0.8), small * np.array((0.2, 0.14)), 0.08)
    stroke = (min(150, 0.05 * small) if pen else -99) - np.abs(loop)
    fibres = np.stack((along, across)) * (NODE_PX / step)
    maps = (tissue, gland, gap, stroke, *fibres, noise(60), section)
    return np.stack(maps).astype(np.float32)


def _draw_sprites(rng: Rng, mpp_um: float) -> Floats:
    """Return haematoxylin of nuclei, float32 (kinds * angles * variants, side, side), 0 to 3."""
    kind, turn, _ = np.indices((3, ANGLES, VARIANTS)).reshape(3, -1, 1, 1)
    half = int(7.5 / mpp_um) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32) * mpp_um
    angle = (turn * np.pi / ANGLES).astype(np.float32)
    axes_um = np.array([(5.6, 1.4), (3.0, 2.7), (4.4, 3.0)], dtype=np.float32)[kind]
    axes_um = axes_um * rng.uniform(0.82, 1.22, axes_um.shape).astype(np.float32)
    u = (x * np.cos(angle) + y * np.sin(angle)) / axes_um[..., 0]
    v = (y * np.cos(angle) - x * np.sin(angle)) / axes_um[..., 1]
    wobble, clumps = (_noise(rng, u.shape, um / mpp_um, um / mpp_um) for um in (1.6, 0.38))
    rho = np.hypot(u, v) * (1 + 0.09 * wobble)
    rim = 0.35 * np.exp(-(((rho - 0.9) / 0.14) ** 2))
    nucleolus = 0.8 * (kind == EPITHELIAL) * np.exp(-((u - 0.2) ** 2 + (v + 0.1) ** 2) / 0.05)
    chromatin = (0.82 + 0.24 * clumps + rim + nucleolus).clip(0.3, 1.7)
    darkness = np.array([1.35, 1.5, 1.0])[kind] * _ramp((1 - rho) * axes_um.min(axis=-1), 0.9)
    return np.asarray(darkness * chromatin, dtype=np.float32)


def _place_nuclei(rng: Rng, size_um: Floats, maps: Floats, step: float) -> Floats:
    """Return x and y in µm, sprite and darkness (n, 4) of spindles, lymphocytes and linings."""
    at = _scatter(rng, size_um, 7.3)
    tissue, gland, *_, cells, _ = _sample(maps, at, step)
    luck, epithelial = rng.random(len(at)), (gland > 1) & (gland < 12)
    lymphoid = luck < np.maximum(0.45 * cells - 0.36, 0.01)
    spindle = luck > 0.86 - 0.05 * cells
    kind = np.select([epithelial, lymphoid], [EPITHELIAL, LYMPHOID], SPINDLE)
    into_y, into_x = _sample(np.stack(np.gradient(maps[1], step)), at, step)
    over_y, over_x = _sample(np.stack(np.gradient(maps[5])), at, step)
    angle = np.where(epithelial, np.arctan2(into_y, into_x), np.arctan2(over_x, -over_y))
    turn = np.rint((angle + rng.normal(0, 0.12, len(at))) * ANGLES / np.pi).astype(int) % ANGLES
    move = epithelial * (7 + rng.normal(0, 1.6, len(at)) - gland)
    at = at + move[:, None] * np.column_stack((into_x, into_y))
    sprite = (kind * ANGLES + turn) * VARIANTS + rng.integers(0, VARIANTS, len(at))
    nuclei = np.column_stack((at, sprite, np.exp(rng.normal(0, 0.24, len(at)))))
    keep = epithelial | (lymphoid | spindle) & (tissue > 4) & (gland < -4)
    return np.asarray(nuclei[keep & (_sample(maps[2], at, step) < -1.5)])


def _make_plan(
    size_um: Floats, mpp_um: float, seed: int, pen: bool, stains: Sequence[StainAppearance]
) -> _Plan:
    rng, sections = np.random.default_rng(seed), max(2, len(stains))
    maps = _draw_maps(rng, size_um, NODE_PX * mpp_um, sections, pen)
    nuclei = _place_nuclei(rng, size_um, maps, NODE_PX * mpp_um) / (mpp_um, mpp_um, 1, 1)
    fibre = _noise(rng, (TEXTURE_PX, TEXTURE_PX), 2.2 / mpp_um, 22 / mpp_um)
    fibre = 0.7 * (fibre + _noise(rng, fibre.shape, 0.5 / mpp_um, 8 / mpp_um))
    grain = _noise(rng, (BLOCK_PX, BLOCK_PX), 0.5 / mpp_um, 0.5 / mpp_um)
    densities = np.stack([stains[i % len(stains)].densities() for i in range(sections)])
    return _Plan(maps, nuclei, _draw_sprites(rng, mpp_um), fibre, grain, densities, seed)


def _stamp(plan: _Plan, top: int, left: int) -> Floats:
    """Return haematoxylin of the nuclei in a block, (512, 512); the darkest wins."""
    side = plan.sprites.shape[-1]
    block = np.zeros((BLOCK_PX + 2 * side,) * 2, dtype=np.float32)
    nuclei = plan.nuclei - (left - side + side // 2, top - side + side // 2, 0, 0)
    inside = ((nuclei[:, :2] >= 0) & (nuclei[:, :2] < BLOCK_PX + side)).all(axis=1)
    for column, row, sprite, darkness in nuclei[inside].tolist():
        view = block[int(row) : int(row) + side, int(column) : int(column) + side]
        np.maximum(view, plan.sprites[int(sprite)] * darkness, out=view)
    return block[side:-side, side:-side]


def _stain(plan: _Plan, maps: Floats, nuclei: Floats) -> Floats:
    """Return haematoxylin and eosin of a block, float32 (2, 512, 512), 0 to about 3."""
    tissue, gland, gap, _, along, across, cells, _ = maps
    u, v = (px.astype(np.int32) % TEXTURE_PX for px in (along, across))
    fibre = plan.fibre.take(v * TEXTURE_PX + u)
    cleft = _ramp(fibre + 1.75, 0.6)
    stroma = (0.5 + 0.16 * fibre + 0.06 * plan.grain) * cleft
    cytoplasm = _ramp(gland + 0.4 * plan.grain, 1.5)
    basal = 0.3 - 0.008 * gland.clip(0, EPITHELIUM_UM) + 0.05 * plan.grain
    haze = (0.04 + 0.03 * cells.clip(0, 3)) * cleft + cytoplasm * basal
    eosin = stroma + cytoplasm * (0.44 + 0.07 * plan.grain - stroma)
    solid = _ramp(tissue + 0.4 * plan.grain, 2) * _ramp(-gap - 0.3 * plan.grain, 1.6)
    return np.stack((haze + nuclei, np.maximum(eosin, 0.35 * nuclei))).clip(0) * solid


def _draw_block(plan: _Plan, top: int, left: int) -> Pixels:
    """Return the block whose corner is (`left`, `top`) px, uint8 (512, 512, 3 or, of glass, 1)."""
    maps = plan.maps[:, top // NODE_PX :, left // NODE_PX :][:, : NODES + 1, : NODES + 1]
    shot = np.random.default_rng((plan.seed, top, left)).standard_normal((BLOCK_PX,) * 2, "f4")
    shot *= np.float32(1.1)
    light = np.full((1, BLOCK_PX, BLOCK_PX), GLASS_LEVEL, dtype=np.float32)
    if maps[[0, 3]].max() > -9:
        with _blas:
            maps = LINEAR @ maps @ LINEAR.T
        (haematoxylin, eosin), of = _stain(plan, maps, _stamp(plan, top, left)), plan.stains
        section = np.rint(maps[7]).astype(int)
        streaks = 0.8 + 0.06 * np.cos(maps[3] / 3) * np.cos(maps[3] / 7.3)
        ink = _ramp(maps[3] + 0.3 * plan.grain, 4) * streaks
        light = np.empty((3, BLOCK_PX, BLOCK_PX), dtype=np.float32)
        for channel, density in enumerate(light):
            np.multiply(haematoxylin, of[:, 0, channel].take(section), out=density)
            density += eosin * of[:, 1, channel].take(section)
            density += ink * INK[channel]
        np.exp(np.negative(light, out=light), out=light)
        light *= GLASS_LEVEL
    light += shot
    levels = np.rint(light, out=light).clip(0, 255, out=light).astype(np.uint8)
    return levels.transpose(1, 2, 0)


def _shrink(pixels: Pixels) -> Pixels:
    """Return the means of squares of 4 px; rows and columns left over are dropped."""
    height, width = (length // 4 for length in pixels.shape[:2])
    rows = pixels[: height * 4, : width * 4].reshape(height, 4, width * 4, 3)
    columns = rows.sum(axis=1, dtype=np.uint16).reshape(height, width, 4, 3)
    total = sum(columns[:, :, place] for place in range(4))
    return np.asarray(np.rint(total / np.float32(16)), dtype=np.uint8)


def write_synthetic_slide(
    path: Path,
    *,
    width: int = 8192,
    height: int = 8192,
    mpp_um: float = 0.25,
    seed: int = 0,
    pen: bool = True,
    levels: int = 3,
    stains: Sequence[StainAppearance] = (BLUE_PURPLE, PALE_BROWN),
) -> Path:
    """Write a plausible H&E slide that OpenSlide and TiffSlide read as Aperio; return `path`.

    The same arguments give the same bytes.

    Parameters
    ----------
    width, height : int
        Size of level 0 in px; each of the other `levels` is 4 times smaller than the last.
    mpp_um : float
        Level 0's µm per px. Nuclei, glands, fat and fibres keep their size in µm.
    pen : bool
        Whether a blue felt pen has circled an edge of the first section.
    stains : sequence of StainAppearance
        Of the sections in turn: as many, and at least two.

    Raises
    ------
    ValueError
        If the slide is too small for its levels, or there is no `mpp_um` or no stain.
    """
    if levels < 1 or min(width, height) < 4 ** (levels + 1) or mpp_um <= 0 or not stains:
        given = f"{width} x {height} px, {levels} levels, {mpp_um} µm/px, {len(stains)} stains"
        raise ValueError(f"{path}: cannot draw {given}; ask for more pixels or fewer levels")
    plan = _make_plan(np.array((width, height)) * mpp_um, mpp_um, seed, pen, stains)
    image = np.empty((height, width, 3), dtype=np.uint8)
    quarter = np.empty((height // 4, width // 4, 3), dtype=np.uint8)

    def draw(corner: tuple[int, int]) -> None:
        top, left = corner
        part = image[top : top + BLOCK_PX, left : left + BLOCK_PX]
        part[:] = _draw_block(plan, top, left)[: part.shape[0], : part.shape[1]]
        small = _shrink(part)
        quarter[top // 4 :, left // 4 :][: small.shape[0], : small.shape[1]] = small

    with ThreadPoolExecutor(available_cores()) as threads:
        corners = product(range(0, height, BLOCK_PX), range(0, width, BLOCK_PX))
        list(threads.map(draw, corners))
    shrunk = accumulate(range(1, levels), lambda level, _: _shrink(level), initial=quarter)
    *pyramid, thumbnail = shrunk
    facts = f"Aperio synthetic\r\n{width}x{height}|AppMag = {10 / mpp_um:g}|MPP = {mpp_um:.4f}"
    with tifffile.TiffWriter(path) as tiff:
        for page, tile in ((image, TILE), (thumbnail, None), *((p, TILE) for p in pyramid)):
            tiff.write(page, tile=tile, description=facts, **PLAIN_RGB, **JPEG)
    return path
