"""Means and standard deviations per colour space: a template (aimed at), statistics (measured)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from wsi_norm.lstainnorm.moments import Triple, triple
from wsi_norm.pixels import UInt8
from wsi_norm.spaces import SPACES, Space


@dataclass(frozen=True)
class Template:
    """What the layer aims at: mean and std of every channel of every colour space.

    Units are the channel's own: RGB, S, V in [0, 1], L* in [0, 100], a*, b* about +-128, hue in
    radians (circular mean and circular standard deviation). Density (`od`, natural logarithm,
    relative to glass) has the tissue's median in place of the mean, and how far its 95th percentile
    lies above in place of the std; see `wsi_norm.lstainnorm.density`.
    """

    mean: Mapping[Space, Triple]
    std: Mapping[Space, Triple]

    def __post_init__(self) -> None:
        for space, values in [*self.mean.items(), *self.std.items()]:
            if not np.isfinite(values).all():
                raise ValueError(f"the template of {space} holds NaN or infinity")

    @classmethod
    def fit(
        cls, tiles: UInt8 | Iterable[UInt8 | Sequence[UInt8]], *, within_tiles: bool = False
    ) -> Template:
        """Mean and std over the tissue pixels of tiles, all pixels pooled.

        Density is measured tile by tile, for each has its own white: the target is the mean of the
        medians and the root mean square of the spreads.

        Parameters
        ----------
        tiles
            uint8 (N, H, W, 3), or an iterable of such arrays (or of single (H, W, 3) tiles), which
            may differ in size and are read once. A list of (H, W, 3) tiles in it is one slide:
            they are measured together, as if they were one tile.
        within_tiles
            Let std be that within tiles: without the differences between them, which would make a
            target of tiles from many slides more colourful than any slide.

        Raises
        ------
        ValueError
            The tiles hold (almost) no tissue, or an array has another dtype or shape.
        """
        from wsi_norm.lstainnorm.fitting import fit  # in PyTorch

        return cls(*fit(tiles, within_tiles))

    def to_dict(self) -> dict[str, Any]:
        """JSON form: {"mean": {space: [3 numbers]}, "std": ...}."""
        return {"mean": _lists(self.mean), "std": _lists(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError if it is not of that form."""
        return cls(_triples(data, "mean"), _triples(data, "std"))


@dataclass(frozen=True)
class Statistics:
    """What a slide or a tile has: mean and std per colour space, and the colour of its glass.

    Attributes
    ----------
    mean, std
        As in `Template`, over tissue pixels.
    white
        RGB of clear glass in [0, 1]; tissue is what is darker than that.
    tissue_pixels
        How many (weighted) pixels they rest on.
    own
        What a normaliser measures beside these, in JSON's types: Macenko's stain vectors.
    """

    mean: Mapping[Space, Triple]
    std: Mapping[Space, Triple]
    white: Triple
    tissue_pixels: int
    own: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, spaces: Iterable[Space]) -> tuple[list[Triple], list[Triple]]:
        """Mean and std of some spaces, in their order.

        Raises
        ------
        ValueError
            One was not measured.
        """
        spaces = tuple(spaces)
        if missing := [space for space in spaces if space not in self.mean]:
            raise ValueError(f"the statistics lack colour space {missing[0]!r}: measure them anew")
        return [self.mean[space] for space in spaces], [self.std[space] for space in spaces]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "mean": _lists(self.mean),
            "std": _lists(self.std),
            "white": list(self.white),
            "tissue_pixels": self.tissue_pixels,
            **({"own": dict(self.own)} if self.own else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError if it is not of that form."""
        try:
            white, pixels = triple(data["white"]), int(data["tissue_pixels"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not statistics: {error!r}") from error
        own = data.get("own", {})
        return cls(_triples(data, "mean"), _triples(data, "std"), white, pixels, own)


def _lists(moments: Mapping[Space, Triple]) -> dict[str, list[float]]:
    return {space: list(values) for space, values in moments.items()}


def _triples(data: Mapping[str, Any], key: str) -> dict[Space, Triple]:
    try:
        moments = {space: triple(values) for space, values in data[key].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no three numbers per colour space under {key!r}: {error!r}") from error
    unknown = set(moments) - set(SPACES)
    if unknown:
        raise ValueError(f"unknown colour space {min(unknown)!r} (known: {', '.join(SPACES)})")
    return moments
