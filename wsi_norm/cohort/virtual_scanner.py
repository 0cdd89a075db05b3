"""Virtual scanners: simulated differences of colour between slide scanners, seeded and documented.

A virtual scanner takes an RGB image to the colours that another, simulated device might give it:
no shift, no blur, no noise, no JPEG. It stands in for no real second scanner; images of several
real ones (MIDOG's) differ by themselves already, and there a virtual scanner comes on top.

Per image, on RGB in [0, 1] as decoded (like stain separation everywhere, not linear light):

1. Stain. Density relative to white 1 is split into amounts a of haematoxylin, eosin and a residual
   (the third vector, DAB) in the basis of `wsi_norm.colorspace`. `a' = a @ stain` scales the first
   two and turns their colours; the residual, what the basis does not explain, keeps both. Negative
   density becomes 0, as a slide adds no light. Then `t = exp(-density')`.
2. Gain, per channel: `t' = 1 - gain * (1 - t)`. A scanner is balanced on clear glass, so another
   response of detector or lamp does not show there; it shows in how much of the *absorbed* light is
   missed. Below 1 it is stray light that lifts the dark, above 1 a black level that swallows it. A
   plain product would clip all glass to 1 at any gain above 1; here glass is the fixed point.
3. Tone curve: `t'^gamma`, one for all channels; 0 and 1 stay.
4. White: `white * t'^gamma`. It comes last, so `white` is the RGB that clear glass ends up with.

Scaling amounts in this basis is the stain augmentation of Tellez et al., IEEE Trans. Med. Imaging
37:2126-2136, 2018; the rest and its sizes are this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wsi_norm.colorspace import rgb_to_hed
from wsi_norm.spaces import DARKEST, STAIN_TO_DENSITY

FARTHEST = 2.0
"""Normal draws end here, in standard deviations: no rare draw gives absurd colours."""


@dataclass(frozen=True)
class ScannerRange:
    """How far virtual scanners may lie from the real one; every value scales with `scaled`.

    Parameters
    ----------
    stain
        sd of the log amount of haematoxylin and of eosin (each its own draw).
    mixing
        sd of the four shares of the other two stains' colours that turn those of haematoxylin and
        eosin (off-diagonal entries; a colour vector keeps its length).
    gain
        sd of the log gain of R, G and B (each its own draw).
    white
        How far glass darkens at most, in [0, 1): each channel of white is uniform in 1 - white..1.
    gamma
        sd of the log exponent of the tone curve (one for all channels).

    Raises
    ------
    ValueError
        A value is negative or not finite, or `white` is not below 1.
    """

    stain: float
    mixing: float
    gain: float
    white: float
    gamma: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < (1 if name == "white" else math.inf):
                raise ValueError(f"a scanner range cannot have {name} = {value}")

    def scaled(self, strength: float) -> ScannerRange:
        """The range `strength` times as wide: 0 is no change, and white must stay below 1."""
        return ScannerRange(*(strength * value for value in vars(self).values()))


DEFAULT_RANGE = ScannerRange(stain=0.25, mixing=0.06, gain=0.06, white=0.1, gamma=0.15)
"""Chosen by eye and by colour difference; not fitted to real scanners.

Two of these scanners give one tile colours that differ by 8.6 CIEDE2000 on average (5th to 95th
percentile of pairs: 3.5 to 16; 12 public H&E tiles, 40 pairs each, over a grid of their pixels).
Each value alone: stain 4.3, mixing 1.5, gain 3.7, white 3.8, gamma 3.8. Scaled by 0.5: 4.3; by 2:
17, and some no longer look like H&E. Glass of 1 stays at 0.9 or above in every channel. On average
0.2 % of a tile's pixels (at most 0.5 %) are black in some channel, most of them by a gain above 1.
"""


@dataclass(frozen=True, eq=False)  # tensors have no single truth value to compare by
class VirtualScanner:
    """n virtual scanners, one per image.

    Parameters
    ----------
    stain
        (n, 3, 3): amounts (H, E, residual) as a row vector times this are the new amounts.
    gain
        (n, 3), positive: of absorbed light, per channel.
    white
        (n, 3) in (0, 1]: RGB of clear glass.
    gamma
        (n,), positive: exponent of the tone curve; above 1 darkens.

    All float32, on the CPU.
    """

    stain: Tensor
    gain: Tensor
    white: Tensor
    gamma: Tensor

    @classmethod
    def draw(
        cls,
        n: int,
        generator: torch.Generator,
        range: ScannerRange = DEFAULT_RANGE,  # noqa: A002
    ) -> VirtualScanner:
        """n random scanners; the same state of `generator` (a CPU one), n and range give the same.

        The first k of n scanners need not be those of `draw(k, ...)`.
        """
        normal = torch.randn(n, 10, generator=generator, dtype=torch.float32)
        uniform = torch.rand(n, 3, generator=generator, dtype=torch.float32)
        normal = normal.clamp(-FARTHEST, FARTHEST)
        amount, turn = torch.exp(range.stain * normal[:, :2]), range.mixing * normal[:, 2:6]
        return cls(
            stain=_stain_matrix(amount, turn),
            gain=torch.exp(range.gain * normal[:, 6:9]),
            white=1 - range.white * uniform,
            gamma=torch.exp(range.gamma * normal[:, 9]),
        )

    @classmethod
    def identity(cls, n: int) -> VirtualScanner:
        """n scanners that change nothing."""
        return cls(torch.eye(3).repeat(n, 1, 1), torch.ones(n, 3), torch.ones(n, 3), torch.ones(n))

    def __len__(self) -> int:
        return len(self.gamma)

    def __getitem__(self, index: Tensor) -> VirtualScanner:
        """The scanners at `index`, (m,) long; one per slide is so expanded to one per tile."""
        at = torch.as_tensor(index, device="cpu").reshape(-1)
        return VirtualScanner(self.stain[at], self.gain[at], self.white[at], self.gamma[at])

    def __call__(self, x: Tensor) -> Tensor:
        """The images as these scanners would have given them.

        Parameters
        ----------
        x
            (B, 3, H, W) in [0, 1], float32 or float64; B is `len(self)`, or any if that is 1.

        Returns
        -------
        The same shape, dtype and device, in [0, 1]; differentiable, with gradient 0 where a value
        is clipped (x below 1e-6, density below 0, black by a gain).

        Raises
        ------
        ValueError
            x has another shape or is not of floats, or B does not fit.
        """
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(f"expected floats (B, 3, H, W), got {x.dtype} {tuple(x.shape)}")
        if len(self) not in (1, len(x)):
            raise ValueError(f"{len(self)} virtual scanners cannot take {len(x)} images")
        gain, white, gamma = (
            value.to(x)[..., None, None] for value in (self.gain, self.white, self.gamma[:, None])
        )
        basis = torch.tensor(STAIN_TO_DENSITY, dtype=x.dtype, device=x.device)
        mixed = (self.stain.to(x) @ basis).mT @ rgb_to_hed(x).flatten(2)
        # bounded before the exponential, so that no overflow makes the gradient NaN
        density = mixed.reshape(x.shape).clamp_min(0)
        seen = 1 - gain * (1 - torch.exp(density * math.log(DARKEST)))
        # floored before the power, whose slope at 0 is infinite for gamma below 1
        return (white * seen.clamp_min(DARKEST) ** gamma).clamp(0, 1)


def _stain_matrix(amount: Tensor, turn: Tensor) -> Tensor:
    """Factors (n, 2) of H and E, and shares (n, 4) of E, DAB in H and of H, DAB in E, as (n, 3, 3).

    A turned colour vector is brought back to its old length, so that only `amount` makes a stain
    darker or paler as a whole.
    """
    colours = torch.tensor(STAIN_TO_DENSITY, dtype=torch.float32)
    matrix = torch.eye(3).repeat(len(turn), 1, 1)
    matrix[:, 0, 1:] = turn[:, :2]
    matrix[:, 1, ::2] = turn[:, 2:]
    length = colours.norm(dim=1) / (matrix @ colours).norm(dim=2)
    matrix[:, :2] *= (amount * length[:, :2])[..., None]
    return matrix
