"""Chebyshev interpolation of attention: how many nodes, and where.

Trefethen, Approximation Theory and Approximation Practice, theorem 8.2; see `attention.py`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""Largest interpolation error of an attention map with values in [0, 1]."""


def nodes_of(query_weight: npt.ArrayLike, key_weight: npt.ArrayLike) -> int:
    """Chebyshev nodes that the weights (S, 3) of queries and keys ask for.

    Branches lie in [0, 1], so a score spans at most the sum of its weights' magnitudes.
    """
    radii = [np.abs(np.asarray(w, np.float64)).sum(axis=1) / 2 for w in (query_weight, key_weight)]
    return nodes_needed(float((radii[0] * radii[1]).max()), 1.0)


def nodes_needed(query_radius: float, key_radius: float, tolerance: float = TOLERANCE) -> int:
    """Chebyshev nodes that keep the error of `linear_attention` under `tolerance`.

    Parameters
    ----------
    query_radius, key_radius
        Half the range that queries and keys can take.
    tolerance
        For values in [0, 1].

    Notes
    -----
    Inside the Bernstein ellipse of parameter rho = b + sqrt(b^2 + 1), b = phi / z and
    z = query_radius * key_radius, the terms of the denominator stay within an angle of 2 phi < pi,
    hence |f - 1/2| <= 1 / (2 cos phi), and the error is at most 4 / (2 cos phi) rho^(1 - n) /
    (rho - 1). The best phi is searched for.
    """
    z = max(query_radius * key_radius, 1e-9)

    def needed(phi: float) -> float:
        b = phi / z
        rho = b + math.hypot(b, 1.0)
        return 1 + math.log(2 / (math.cos(phi) * (rho - 1) * tolerance)) / math.log(rho)

    return max(2, math.ceil(min(needed(0.02 * step * math.pi / 2) for step in range(1, 50))))


@lru_cache
def chebyshev(nodes: int) -> tuple[Floats, Floats]:
    """Nodes of the first kind (n,), and the (n, n) matrix from values there to coefficients."""
    angles = (np.arange(nodes) + 0.5) * (np.pi / nodes)
    matrix = np.cos(np.arange(nodes)[:, None] * angles) * (2 / nodes)
    matrix[0] /= 2
    return np.cos(angles), matrix
