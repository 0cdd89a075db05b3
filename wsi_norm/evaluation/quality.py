"""Numbers that say what a stain normaliser does to images, whatever it is.

A normaliser is a function of a batch, float32 (B, 3, H, W) RGB in [0, 1], that returns a batch of
the same shape, each image normalised by itself. Images are such batches below; pairs of them of
different shape raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage import color, filters, metrics
from torch import Tensor

from wsi_norm.colorspace import CONVERSIONS
from wsi_norm.lstainnorm.background import tissue_weight, white_of
from wsi_norm.synthetic import BLUE_PURPLE

Normalize = Callable[[Tensor], Tensor]
Floats = npt.NDArray[np.float64]

# scikit-image leaves these unannotated.
_ciede2000: Callable[[Floats, Floats], Floats] = color.deltaE_ciede2000
_gaussian: Callable[..., Floats] = filters.gaussian
gradient_magnitude: Callable[[Floats], Floats] = filters.sobel
_ssim: Callable[..., float] = metrics.structural_similarity

# Wang et al., IEEE Trans. Image Process. 13:600-612, 2004: a Gaussian window of 11 px.
_WANG: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

FLAT = 1e-6
"""A gradient whose sd (of luminance in [0, 1]) is below this is rounding."""
STEP_FLOOR = 1e-4
"""Added to steps (RGB in [0, 1]; a fortieth of a grey level), so that flat images have a ratio."""
MIN_BACKGROUND_SHARE = 0.005
"""Fewer background pixels than this share of an image say nothing about its background."""

GLASS = 0.95
"""Grey of the glass in `degenerate_tiles`; as white level it makes glass of all from 0.9025 up."""
GLASS_NOISE_SD = 1.5 / 255
MIN_SIZE = 16
RANGE_TOLERANCE = 1e-4
GLASS_TOLERANCE = 10 / 255
NOISE_GAIN = 3.0
"""`robustness`: how far a value may leave [0, 1], glass may move, noise may grow."""


def cielab(images: Tensor) -> Floats:
    """CIELAB (D65) of images, clipped to [0, 1] as by a screen: float64 (B, H, W, 3).

    Raises
    ------
    ValueError
        images is not float (B, 3, H, W).
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"expected float (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")
    lab = CONVERSIONS["lab"].from_rgb(images.detach().cpu().double().clamp(0, 1))
    return np.asarray(lab.permute(0, 2, 3, 1).numpy(), dtype=np.float64)


def pair_difference(a: Tensor, b: Tensor) -> Floats:
    """Colour difference between images of the same tissue, aligned: mean CIEDE2000 over pixels.

    Returns
    -------
    float64 (B,), at least 0; 1 is about what an eye can just tell apart.

    Notes
    -----
    Sharma, Wu and Dalal, Color Res. Appl. 30:21-30, 2005; k_L = k_C = k_H = 1.
    """
    _same_shape(a, b)
    pairs = zip(cielab(a), cielab(b), strict=True)
    return np.array([_ciede2000(first, second).mean() for first, second in pairs])


def structure(before: Tensor, after: Tensor) -> tuple[Floats, Floats]:
    """Whether an image's structure survived: SSIM and correlation of gradients, on L* / 100.

    Returns
    -------
    ssim
        float64 (B,) in [-1, 1], with the window and constants of Wang et al. (2004).
    gradient_correlation
        float64 (B,) in [-1, 1]: Pearson's, of the Sobel magnitudes; blind to gain and offset. Where
        it is undefined, for want of edges: 1 if both lack them (none lost, none made), else 0.

    Raises
    ------
    ValueError
        H or W is smaller than the window of 11 px.
    """
    _same_shape(before, after)
    lights = [cielab(images)[..., 0] / 100 for images in (before, after)]
    pairs = list(zip(*lights, strict=True))
    ssim = [_ssim(x, y, data_range=1.0, **_WANG) for x, y in pairs]
    gradients = [_correlation(gradient_magnitude(x), gradient_magnitude(y)) for x, y in pairs]
    return np.array(ssim, dtype=np.float64), np.array(gradients, dtype=np.float64)


def seam_step(normalize: Normalize, images: Tensor, tile: int) -> Floats:
    """How much more than before colours jump where tiles, each normalised by itself, meet.

    An image's ratio is the mean absolute step (over channels) across tile borders, divided by that
    between the neighbours one px beside the borders. Returned is ratio(after) / ratio(before), so
    that neither contrast nor an image's own edges (JPEG blocks end at tile borders) count.

    Parameters
    ----------
    normalize
        Called once per image, with all its tiles as a batch (tiles, 3, tile, tile).
    images
        H and W at least two tiles; what exceeds whole tiles, at the right and bottom, is dropped.
    tile
        Side of a tile in px, at least 2.

    Returns
    -------
    float64 (B,), above 0: 1 where no seam was added. STEP_FLOOR is added to every mean, so that a
    flat image that stays flat has 1.

    Raises
    ------
    ValueError
        An image is smaller than two tiles, or a tile than 2 px; normalize changes the shape.
    """
    rows, columns = (side // tile if tile > 1 else 0 for side in images.shape[-2:])
    if min(rows, columns) < 2:
        raise ValueError(f"images {tuple(images.shape)} must hold two tiles of {tile} px each way")
    ratios = []
    for image in images[..., : rows * tile, : columns * tile]:
        tiles = image.reshape(3, rows, tile, columns, tile).permute(1, 3, 0, 2, 4)
        batch = tiles.reshape(-1, 3, tile, tile)
        with torch.no_grad():
            done = normalize(batch)
        _same_shape(batch, done)
        after = done.reshape(tiles.shape).permute(2, 0, 3, 1, 4).reshape(image.shape)
        ratios.append(_border_ratio(after, tile) / _border_ratio(image, tile))
    return np.array(ratios, dtype=np.float64)


def background_drift(before: Tensor, after: Tensor, white: Tensor | None = None) -> Floats:
    """How far the background moved: mean absolute change of its pixels and channels.

    Background is what has no tissue weight relative to `white`.

    Parameters
    ----------
    white
        RGB of clear glass, that of the slide best: broadcastable to (B, 3, 1, 1). None takes each
        image's own 99th percentile (`white_of`); the background of an image without glass is then
        its palest tissue.

    Returns
    -------
    float64 (B,) in grey levels of 255; nan where background is below MIN_BACKGROUND_SHARE.
    """
    _same_shape(before, after)
    glass = tissue_weight(before, white_of(before) if white is None else white) == 0
    moved = 255 * (after.detach().double() - before.detach().double()).abs()
    share = glass.double().mean(dim=(1, 2, 3))
    drift = moved.where(glass, 0).mean(dim=(1, 2, 3)) / share
    known = drift.where(share >= MIN_BACKGROUND_SHARE, torch.nan)
    return np.asarray(known.cpu().numpy(), dtype=np.float64)


def degenerate_tiles(size: int = 64) -> dict[str, Tensor]:
    """Name the tiles that normalisers fail on: float32 (3, size, size), RGB in [0, 1].

    Raises
    ------
    ValueError
        size is below 16 px.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} px, not {size}")
    rng = np.random.default_rng(0)
    white = np.ones((3, size, size))
    glass = GLASS + GLASS_NOISE_SD * rng.standard_normal(white.shape)
    tissue = _tissue(rng, size)
    row, column = np.indices((size, size))
    blocks = tissue[:, 4::8, 4::8].repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    stripe = abs(row - column) < size // 8
    blood = _colour(0.75, 0.05, 0.10)
    tiles = {
        "white": white,
        "black": 0 * white,
        "mid_grey": 0.5 * white,
        "constant_pink": _colour(0.90, 0.62, 0.78) * white,
        "glass_noise": glass,
        "one_coloured_pixel": np.where(row * size + column == size, _colour(0.5, 0.1, 0.6), white),
        "speck": np.where(np.maximum(row, column) < size // 6, tissue, glass),
        "half_glass": np.where(column < size // 2, tissue, glass),
        "unscanned": np.where(column < size // 4, white, np.where(row < size // 2, tissue, glass)),
        "pale_tissue": GLASS * (tissue / GLASS) ** 0.15,
        "folded_tissue": GLASS * (tissue / GLASS) ** 4,
        "pen_blue": np.where(stripe, _colour(0.05, 0.10, 0.80), tissue),
        "pen_green": np.where(stripe, _colour(0.00, 0.55, 0.20), tissue),
        "blood": blood * (1 + 0.03 * rng.standard_normal((size, size))),
        "jpeg_blocks": np.pad(blocks, ((0, 0), (0, -size % 8), (0, -size % 8)), "edge"),
        "checkerboard": white * ((row + column) % 2),
    }
    return {
        name: torch.tensor(pixels[:, :size, :size].clip(0, 1), dtype=torch.float32)
        for name, pixels in tiles.items()
    }


def robustness(normalize: Normalize) -> dict[str, str]:
    """What a normaliser makes of each of the `degenerate_tiles`, given alone, as a batch of one.

    Returns
    -------
    Per tile "ok", or what went wrong: "raised <error>: <first 60 characters of its message>",
    "wrong shape", "not finite", or one or several, joined by "; ", of "out of range" (values
    outside [0, 1]), "coloured glass" (a pixel that was glass moved by more than 10 of 255 levels: a
    white tile that becomes black) and "noise amplified" (the sd of bare glass grew more than
    threefold in a channel).
    """
    return {name: _verdict(normalize, name, x[None]) for name, x in degenerate_tiles().items()}


def _verdict(normalize: Normalize, name: str, x: Tensor) -> str:
    try:
        with torch.no_grad():
            y = normalize(x.clone()).double()
    # Whatever a foreign normaliser raises is the finding.
    except Exception as error:  # noqa: BLE001
        return f"raised {type(error).__name__}: {' '.join(str(error).split())[:60]}"
    if y.shape != x.shape:
        return "wrong shape"
    if not y.isfinite().all():
        return "not finite"
    glass = tissue_weight(x, x.new_full((3, 1, 1), GLASS)) == 0
    moved = ((y - x).abs() * glass).amax()
    gain = (y.std(dim=(-2, -1)) / x.double().std(dim=(-2, -1))).amax()
    faults = {
        "out of range": y.amin() < -RANGE_TOLERANCE or y.amax() > 1 + RANGE_TOLERANCE,
        "coloured glass": moved > GLASS_TOLERANCE,
        "noise amplified": name == "glass_noise" and gain > NOISE_GAIN,
    }
    return "; ".join(fault for fault, found in faults.items() if found) or "ok"


def _tissue(rng: np.random.Generator, size: int) -> Floats:
    """H&E-like texture, float64 (3, size, size): Beer-Lambert light of two smooth random fields."""
    noise = rng.standard_normal((2, size, size))
    fields = [_gaussian(n, sigma, mode="wrap") for n, sigma in zip(noise, (2, 4), strict=True)]
    nuclei, fibres = (field / field.std() for field in fields)
    stains = np.stack([0.1 + (nuclei - 0.5).clip(0, 1.2), (0.6 + 0.2 * fibres).clip(0.1, None)])
    density = np.einsum("sc,sij->cij", BLUE_PURPLE.densities(), stains)
    return np.asarray(GLASS * np.exp(-density), dtype=np.float64)


def _colour(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue])[:, None, None]


def _border_ratio(image: Tensor, tile: int) -> float:
    """Mean step across tile borders over that one px beside them, of an image (3, H, W)."""
    across, beside = [], []
    for axis in (1, 2):
        steps = image.detach().double().diff(dim=axis).abs().movedim(axis, 0)
        border = torch.arange(tile - 1, len(steps), tile)
        across.append(steps[border].flatten())
        beside.append(steps[torch.cat([border - 1, border + 1])].flatten())
    at, inner = (float(torch.cat(parts).mean()) + STEP_FLOOR for parts in (across, beside))
    return at / inner


def _correlation(x: Floats, y: Floats) -> float:
    flat = [bool(values.std() < FLAT) for values in (x, y)]
    if any(flat):
        return float(all(flat))
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
