"""The true downsamples of a pyramid: from the sizes of its levels, or from a look at their pixels.

Sizes lie where levels are padded to whole tiles: 2304 px under 4100 are not a downsample of 1.78
if 254 of them are padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_norm.geometry import Box, Level

ROUNDING_PX = 1.0
"""Halving again and again, each time rounded up or down, ends at most so far from the quotient."""
DRIFT = 0.001
"""What levels that are not padded may differ between the axes, beyond rounding."""

POWERS = frozenset(2.0**power for power in range(1, 11))
"""Downsamples that are expected of a padded level."""

PROBES, PROBE_PX = 6, 64
"""Probes along each axis that look for contrast, and their edge in px of the level."""
WINDOWS, WINDOW_PX = 6, 128
"""How many places are compared, and their edge in px of the level."""
FINER_PX = 2048
"""Edge of what is read at most of a finer level, to be compared with a window."""
BLUR = 4
"""Windows are compared at a quarter of their size: levels differ in sharpness."""
LEAST_CONTRAST = 2.0
"""Standard deviation, of 255, below which a window shows nothing to be compared."""
LEAST_LIKENESS = 0.8
"""Correlation from which two windows show the same: beyond 0.9 if they do, near 0 if not."""

Look = Callable[["StoredLevel", Box], npt.NDArray[np.uint8]]
"""(level, box in its px) -> uint8 (h, w, 3)."""
Gray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StoredLevel:
    """A level as a file holds it.

    Attributes
    ----------
    number
        Its place in the file, as its reader counts.
    width, height
        In px, with whatever is padding.
    downsample
        Against the first, as the sizes have it.
    tile
        (width, height) of its tiles, or None.
    marked
        Whether the file says that this is a level; what is not marked is looked at.
    """

    number: int
    width: int
    height: int
    downsample: float
    tile: tuple[int, int] | None = None
    marked: bool = True


def true_levels(stored: Sequence[StoredLevel], look: Look) -> list[tuple[StoredLevel, Level]]:
    """The levels that show the slide, finest first, with their true sizes and downsamples.

    One whose downsample neither the sizes nor the pixels tell is left out: labels, other images,
    and levels in which nothing is to be seen.

    Parameters
    ----------
    stored
        The full resolution, then all that may be its levels, finest first.
    look
        How pixels are read. Nothing is read where sizes leave no doubt.
    """
    full = stored[0]
    found = [(full, Level(0, full.width, full.height, 1.0))]
    for level in stored[1:]:
        proven = sizes_agree(full, level)
        downsample: float | None = level.downsample
        if not (proven and level.marked):
            factors = [level.downsample] if proven else possible_downsamples(full, level)
            downsample = _seen(found[-1], level, factors, look)
        if downsample is not None:
            width, height = (
                min(have, max(1, round(whole / downsample)))
                for have, whole in ((level.width, full.width), (level.height, full.height))
            )
            found.append((level, Level(len(found), width, height, downsample)))
    return found


def sizes_agree(full: StoredLevel, level: StoredLevel) -> bool:
    """Whether a level's size alone proves its downsample.

    Either a power of two explains both axes, or both axes say the same and the level does not
    end with whole tiles, so that nothing is padded.
    """
    power = 2.0 ** round(log2(level.downsample))
    if _explains(power, full, level, 0.0):
        return True
    in_tiles = level.tile is not None and not (
        level.width % level.tile[0] or level.height % level.tile[1]
    )
    return not in_tiles and _explains(level.downsample, full, level, DRIFT)


def possible_downsamples(full: StoredLevel, level: StoredLevel) -> list[float]:
    """The downsamples at which a level holds the whole slide, and padding of less than a tile.

    Beside powers of two it is that of the axis which is not padded, if one is not.
    """
    tile = level.tile or (0, 0)
    factors = {power for power in POWERS if _pads(power, full, level, tile)}
    return sorted(factors | {max(full.width / level.width, full.height / level.height)})


def _explains(factor: float, full: StoredLevel, level: StoredLevel, drift: float) -> bool:
    return all(
        abs(have - whole / factor) <= ROUNDING_PX + drift * have
        for have, whole in ((level.width, full.width), (level.height, full.height))
    )


def _pads(factor: float, full: StoredLevel, level: StoredLevel, tile: tuple[int, int]) -> bool:
    return all(
        -ROUNDING_PX <= have - whole / factor < edge
        for have, whole, edge in (
            (level.width, full.width, tile[0]),
            (level.height, full.height, tile[1]),
        )
    )


def _seen(
    finer: tuple[StoredLevel, Level], level: StoredLevel, factors: Sequence[float], look: Look
) -> float | None:
    """The downsample at which a level shows what a finer one shows; None if it does at none."""
    reference, true = finer
    windows = list(_windows(level, factors[-1], true, look))
    scores = {}
    for factor in factors:
        scale = factor / true.downsample
        likenesses = [
            _likeness(gray, _shown(reference, true, box, scale, look)) for box, gray in windows
        ]
        scores[factor] = float(np.median(likenesses)) if likenesses else 0.0
    best = max(scores, key=lambda factor: (round(scores[factor], 2), factor in POWERS))
    return best if scores[best] >= LEAST_LIKENESS else None


def _windows(
    level: StoredLevel, coarsest: float, finer: Level, look: Look
) -> Iterator[tuple[Box, Gray]]:
    """Where a level has most contrast, within what every downsample leaves of it."""
    scale = coarsest / finer.downsample
    width, height = (
        max(1, min(have, int(whole / scale)))
        for have, whole in ((level.width, finer.width), (level.height, finer.height))
    )
    probes = _spread(width, height, min(PROBE_PX, width, height))
    contrast = {probe: float(_gray(look(level, probe)).std()) for probe in probes}
    edge = max(1, min(WINDOW_PX, int(FINER_PX / scale), width, height))
    for probe in sorted(contrast, key=lambda probe: contrast[probe], reverse=True)[:WINDOWS]:
        left = min(max(probe.left + (probe.width - edge) // 2, 0), width - edge)
        top = min(max(probe.top + (probe.height - edge) // 2, 0), height - edge)
        box = Box(left, top, left + edge, top + edge)
        gray = _gray(look(level, box))
        if gray.std() >= LEAST_CONTRAST:
            yield box, gray


def _spread(width: int, height: int, edge: int) -> list[Box]:
    corners = {
        (int(x), int(y))
        for y in np.linspace(0, height - edge, PROBES)
        for x in np.linspace(0, width - edge, PROBES)
    }
    return [Box(x, y, x + edge, y + edge) for x, y in sorted(corners)]


def _shown(finer: StoredLevel, true: Level, box: Box, scale: float, look: Look) -> Gray:
    """A box of a coarser level as the finer one shows it, at the coarser one's size."""
    left, top, right, bottom = (edge * scale for edge in box)
    around = Box(
        int(left), int(top), min(int(right) + 1, true.width), min(int(bottom) + 1, true.height)
    )
    part = (
        left - around.left,
        top - around.top,
        min(right - around.left, around.width),
        min(bottom - around.top, around.height),
    )
    image = Image.fromarray(look(finer, around))
    return _gray(np.asarray(image.resize((box.width, box.height), Image.Resampling.BOX, box=part)))


def _gray(pixels: npt.NDArray[np.uint8]) -> Gray:
    gray: Gray = pixels.astype(np.float64).mean(axis=-1)
    return gray


def _likeness(one: Gray, other: Gray) -> float:
    """Correlation of two pictures, blurred."""
    height, width = (max(1, edge // BLUR) for edge in one.shape)
    small = [
        np.asarray(
            Image.fromarray(gray.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
        ).astype(np.float64)
        for gray in (one, other)
    ]
    a, b = (gray - gray.mean() for gray in small)
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0
