"""Deep shadow: where it begins, going by what a slide's tissue is like."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsi_norm.lstainnorm.moments import namespace
from wsi_norm.lstainnorm.template import Statistics

LUMINANCE = (0.299, 0.587, 0.114)
"""Of R, G, B as stored (ITU-R BT.601)."""

SHADOW_BEGINS, SHADOW_DEEP = 2.0, 2.75
"""Standard deviations below the tissue's mean luminance, from where on a pixel is shadow at all,
and all shadow: darker than what the statistics were taken from, as folds and thick edges are."""

LEAST_LUMINANCE = 0.5
"""Shadow keeps at least this share of its luminance."""

RED_PART = LUMINANCE[1] / (LUMINANCE[0] + LUMINANCE[1])
GREEN_PART = 1 - RED_PART
"""How red rises and green falls so that luminance stays."""


def shadow_range(mean: Any, std: Any) -> tuple[Any, Any]:
    """Luminance at which shadow begins, and how fast it deepens, of mean and std (..., 3) of RGB.

    Returns
    -------
    start, slope: (...), of the kind of what is given, arrays or tensors; slope is 0, so that there
    is no shadow, where it would begin below black.
    """
    xp = namespace(mean)
    weights = xp.asarray(LUMINANCE, dtype=mean.dtype, device=mean.device)
    spread = (std * weights).sum(-1)
    start = (mean * weights).sum(-1) - SHADOW_BEGINS * spread
    slope = 1 / xp.clip((SHADOW_DEEP - SHADOW_BEGINS) * spread, 1e-6, None)
    return start, xp.where((start > 0) & (spread > 1e-3), slope, 0.0)


def shadow_of(statistics: Statistics) -> tuple[float, float]:
    """`shadow_range` of known statistics; without RGB in them there is no shadow."""
    if "rgb" not in statistics.mean:
        return 0.0, 0.0
    mean, std = (np.array(moments["rgb"]) for moments in (statistics.mean, statistics.std))
    start, slope = shadow_range(mean, std)
    return float(start), float(slope)
