"""Model: a normaliser by name, small enough to travel in place of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsi_norm.choices import NORMALIZERS, Background, IccChoice, StatisticsMode
from wsi_norm.config import RunConfig, read_yaml
from wsi_norm.errors import CheckpointError
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.pixels import UInt8
from wsi_norm.slide import read_image


@dataclass(frozen=True)
class Model:
    """Which normaliser, from which files, set to what.

    Attributes
    ----------
    normalizer
        A name of NORMALIZERS.
    path, template
        The checkpoint (None: the default one); the template of an authors' one, which lacks it.
    target
        Image that a classic normaliser aims at, a file or uint8 (H, W, 3); None: what is built in.
    statistics, background
        None: as the checkpoint was trained.
    icc
        Whether the target's ICC profile is applied: as to the slides.
    sha256
        Digest of what was loaded first, so that every worker works with the same; None: any.
    """

    normalizer: str = "lstainnorm"
    path: Path | None = None
    template: Mapping[str, Any] | None = None
    target: Path | UInt8 | None = None
    statistics: StatisticsMode | None = None
    background: Background | None = None
    icc: IccChoice = "ignore"
    sha256: str | None = None

    @classmethod
    def of(cls, config: RunConfig) -> Model:
        """The one that a run's settings name."""
        return cls(
            config.normalizer,
            config.ckpt,
            read_yaml(config.template) if config.template is not None else None,
            config.target,
            config.statistics,
            config.background,
            config.icc,
        )

    def load(self, device: str = "auto", batch_size: int | None = None) -> StainNormalizer:
        """The normaliser at work; its files are read and digested once.

        Raises
        ------
        CheckpointError
            A file is missing or damaged, or is not the one that was loaded first.
        ConfigError
            The settings, the target or the device do not fit.
        """
        make: Maker = NORMALIZERS[self.normalizer]
        made = make(self, device, batch_size)
        if self.sha256 not in (None, made.digest):
            raise CheckpointError(f"{self.file}: it changed during the run; start the run again")
        return made

    def fixed(self, loaded: StainNormalizer) -> Model:
        """The model bound to the digest of what was loaded."""
        return replace(self, sha256=loaded.digest)

    @property
    def file(self) -> str:
        """What an error calls it."""
        target = self.target if isinstance(self.target, Path) else None
        return str(self.path or target or f"{self.normalizer}'s own target")

    def target_pixels(self) -> UInt8 | None:
        """uint8 (H, W, 3) of the target; UnreadableSlideError if its file is no image."""
        if isinstance(self.target, Path):
            return read_image(self.target, self.icc)
        return self.target


Maker = Callable[[Model, str, int | None], StainNormalizer]
"""(model, device, batch_size) -> normaliser: what NORMALIZERS holds."""
