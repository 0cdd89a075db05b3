"""Attention whose queries and keys have one channel: the direct softmax, and the same in O(N).

With one channel, the attended value of a token depends on its query q alone:

    f(q) = sum_j exp(q k_j) v_j / sum_j exp(q k_j)

f is analytic where the denominator cannot vanish, that is for |Im q| < pi / (k_max - k_min), so its
Chebyshev interpolant converges geometrically and n nodes replace N queries (`chebyshev.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsi_norm.lstainnorm.chebyshev import chebyshev

_CHUNK = 1 << 23
"""Query-key pairs at a time: 64 MiB in float64, so that memory grows with N alone."""


def direct_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax over keys of (query x key), times value; O(N^2) time, in chunks of queries.

    Parameters
    ----------
    query, key
        (M, N): M independent sets of N tokens of one channel.
    value
        (M, C, N).

    Returns
    -------
    (M, C, N)
    """
    return _attend(query, key, value)


def linear_attention(query: Tensor, key: Tensor, value: Tensor, nodes: int) -> Tensor:
    """As `direct_attention`, interpolated between `nodes` Chebyshev nodes; O(nodes x N) time."""
    low, high = query.detach().aminmax(dim=-1, keepdim=True)
    middle = (low + high) / 2
    radius = torch.maximum(high - middle, middle - low).clamp_min(1e-6)  # |t| <= 1, rounded too
    points, to_coefficients = (query.new_tensor(array) for array in chebyshev(nodes))
    at_nodes = _attend(middle + radius * points, key, value)
    coefficients = at_nodes @ to_coefficients.T
    return coefficients @ _chebyshev_basis((query - middle) / radius, nodes)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The softmax-weighted values (M, C, n) of queries (M, n), in chunks of queries.

    Numerator and denominator are sums of one matrix product in float64: a float32 softmax loses
    2e-5 at 16,000 keys, more than the interpolation does.
    """
    exact_key = key.double()[:, None, :]
    with_one = torch.cat([value, torch.ones_like(value[:, :1])], dim=1).double()
    chunk = max(1, _CHUNK // max(1, key.numel()))
    sums = []
    for part in torch.split(query.double(), chunk, dim=-1):
        scores = part[:, :, None] * exact_key
        powers = torch.exp(scores - scores.detach().amax(dim=-1, keepdim=True))
        sums.append(with_one @ powers.transpose(-1, -2))
    total = torch.cat(sums, dim=-1)
    attended: Tensor = total[:, :-1] / total[:, -1:]
    return attended.to(value.dtype)


def _chebyshev_basis(t: Tensor, degree: int) -> Tensor:
    """T_0 ... T_{degree - 1} at t (M, N): (M, degree, N), by the three-term recurrence."""
    basis = [torch.ones_like(t), t]
    while len(basis) < degree:
        basis.append(2 * t * basis[-1] - basis[-2])
    return torch.stack(basis[:degree], dim=1)
