"""The door: what a run, a training, an evaluation and a report know of a normaliser.

A new one is a class of this form, a function that makes it (`Maker`), and a line in
`wsi_norm.choices.NORMALIZERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from wsi_norm.choices import StatisticsMode
from wsi_norm.lstainnorm import Statistics, Template
from wsi_norm.lstainnorm.moments import Triple
from wsi_norm.pixels import UInt8

Bools = npt.NDArray[np.bool_]


class StainNormalizer(Protocol):
    """Normalises uint8 tiles; threads may share it."""

    @property
    def name(self) -> str:
        """As in NORMALIZERS."""
        ...

    @property
    def digest(self) -> str | None:
        """SHA-256 of what decides its bytes (a checkpoint, a target); None where nothing does."""
        ...

    @property
    def statistics(self) -> StatisticsMode | Literal["none"]:
        """Whose it is given.

        "slide": `measure` is called once per slide; "tile": it measures each tile by itself;
        "none": it measures nothing.
        """
        ...

    @property
    def target(self) -> Template | None:
        """What a report draws beside a slide's colours; None where there are no such moments."""
        ...

    def measure(
        self, tiles: UInt8, tissue: Bools | None = None, white: Triple | None = None
    ) -> Statistics:
        """Statistics of the tissue in tiles of one slide, taken together.

        Parameters
        ----------
        tiles
            uint8 (N, H, W, 3).
        tissue
            bool (N, H, W): only these pixels count (of them, what is darker than glass).
        white
            RGB of the slide's clear glass in [0, 1]; None estimates it from the tiles.

        Raises
        ------
        ValueError
            There is (almost) nothing to measure; one line.
        """
        ...

    def doubts(self, statistics: Statistics) -> list[str]:
        """What the user should know of a slide with these statistics: warnings, a line each."""
        ...

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None = None, white: Triple | None = None
    ) -> tuple[UInt8, Bools]:
        """Normalised tiles, and whether each could be.

        Parameters
        ----------
        tiles
            uint8 (N, H, W, 3).
        statistics
            Of their slide; None measures every tile by itself.
        white
            RGB of the slide's clear glass; None takes that of the statistics, else estimates it.

        Returns
        -------
        uint8 (N, H, W, 3), and bool (N,): False where a tile had no usable statistics of its own
        and is as it was.
        """
        ...

    def warm_up(self) -> None:
        """Do what takes seconds once, before a tile waits for it."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a store and a run's summary say of it, in JSON's types: the fields of ModelMeta."""
        ...
