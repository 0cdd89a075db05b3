"""What a store says of itself: the group attribute `wsi_norm`.

`schema.json` beside this file is the JSON schema of `StoreMeta`; a test keeps the two equal. No
clock time and no path of the machine stands here, so equal runs give equal bytes.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from wsi_norm.choices import Background, IccChoice, Layout, StatisticsMode
from wsi_norm.config import compare
from wsi_norm.geometry import Level, TileGrid


class TileFlag(IntFlag):
    """Bits of the array `flags`. Counts, files, progress and report take the names from here.

    Attributes
    ----------
    label
        In words for people, after a number of tiles.
    """

    label: str

    UNREADABLE = 1, "unreadable"
    """The source could not be decoded; the tile is white."""
    PASSED_THROUGH = 2, "passed through"
    """There were no usable statistics; the tile is as the slide has it."""
    EDGE = 4, "at the edge"
    """The tile reaches beyond the slide; white there."""
    FILL = 8, "mostly fill"
    """More than half of the tile is padding that no scanner saw; it is as the slide has it."""

    LEFT_OUT = 16, "partly left out of the file"
    """The slide's file holds no bytes for some of the tile; white there."""

    def __new__(cls, bit: int, label: str) -> Self:
        """A bit and its label."""
        flag = int.__new__(cls, bit)
        flag._value_, flag.label = bit, label
        return flag

    @property
    def key(self) -> str:
        """In files, for programs."""
        return str(self.name).lower()


DIMENSIONS = {
    "tiles": ("tile", "y", "x", "channel"),
    "seals": ("seal", "byte"),
    "flags": ("tile",),
    "coords": ("tile", "xy"),
    "tissue_fraction": ("tile",),
    "tissue_mask": ("mask_y", "mask_x"),
    "thumbnail": ("thumbnail_y", "thumbnail_x", "channel"),
    "thumbnail_normalized": ("thumbnail_y", "thumbnail_x", "channel"),
}
"""Arrays and the names of their dimensions. A name stands for one length, as xarray wants it."""

Counts = dict[str, int]
"""Tiles in all (`tiles`), and tiles that carry each flag (by its key)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SlideMeta(_Frozen):
    """The source slide.

    `sha256_samples` is of its files' names, sizes and of samples spread over them; None in stores
    of earlier versions, and of URLs.
    """

    name: str
    file_name: str
    size_bytes: int
    sha256_first_mib: str
    sha256_samples: str | None = None
    vendor: str | None
    reader: str
    reader_version: str
    width_px: int
    height_px: int
    mpp_um: float
    mpp_source: Literal["slide", "table", "override", "default"]
    objective_power: float | None
    damage: str | None
    icc_profile: bool


class IccMeta(_Frozen):
    """What became of the slide's ICC profile before anything was measured.

    `status` is one of `slide.icc.IccStatus`; `sha256` is of the profile's bytes. Stores of earlier
    versions, which say nothing, ignored it.
    """

    status: Literal["none", "ignored", "applied", "srgb", "unusable"] = "ignored"
    description: str | None = None
    sha256: str | None = None

    @property
    def applied(self) -> bool:
        """Whether it changed pixels: nothing else of it decides a byte."""
        return self.status == "applied"

    @property
    def choice(self) -> IccChoice:
        """How the slide is opened to give these pixels."""
        return "apply" if self.applied else "ignore"


class TilingMeta(_Frozen):
    """Where the tiles lie; `coords` holds their corners.

    At 1/`reduced` JPEG tiles of the level are decoded. Stores of earlier versions, which say
    nothing, were decoded in full.
    """

    tile_size_px: int
    overlap_px: int
    mpp_um: float
    downsample: float
    level: int
    level_width_px: int
    level_height_px: int
    level_downsample: float
    tiles_per_shard: int
    reduced: int | None = None

    def grid(self, slide: SlideMeta) -> TileGrid:
        """The grid that `coords` lie on."""
        level = Level(self.level, self.level_width_px, self.level_height_px, self.level_downsample)
        return TileGrid(
            slide.width_px,
            slide.height_px,
            level,
            self.downsample,
            self.tile_size_px,
            self.overlap_px,
            self.reduced or 1,
        )


class TissueMeta(_Frozen):
    """How tissue is found; `regions_sha256` is that of the GeoJSON and mask files.

    With `whole_slide` the store has every tile of the grid; else those with `min_tissue`.
    """

    segmenter: str
    min_tissue: float
    whole_slide: bool = False
    regions_sha256: str | None


class ModelMeta(_Frozen):
    """What normalised the tiles; `sha256` and `preset` are None where it has no checkpoint."""

    normalizer: str = "lstainnorm"
    sha256: str | None
    preset: str | None
    statistics: StatisticsMode | Literal["none"]
    background: Background
    provenance: dict[str, Any]


class Settings(_Frozen):
    """All that decides the bytes of a store.

    `lossy_quality` is that of a lossy codec, 1 to 100; None: tiles are what was computed, to the
    bit.
    """

    package_version: str
    slide: SlideMeta
    icc: IccMeta = IccMeta()
    tiling: TilingMeta
    tissue: TissueMeta
    model: ModelMeta
    codec: str
    lossy_quality: int | None = None
    layout: Layout = "tiles"
    software: dict[str, str]


class StoreMeta(Settings):
    """The group attribute `wsi_norm`: the settings and what came of them.

    `white` is the RGB of the slide's clear glass in [0, 1]; `statistics` is None with tile
    statistics and where there was no tissue to measure. `tissue_share` is of the slide's area.
    `asked_sha256` is a digest of all that was asked for: who asks for the same of the same file
    need not open the slide to know that a finished store is what it wants. `arrays_sha256`,
    `identity_sha256` and `content_sha256` (of a finished store) are the digests of `store.digests`.
    Stores of earlier versions have none of these.
    """

    format_version: Literal[1] = 1
    white: tuple[float, float, float]
    statistics: dict[str, Any] | None
    warnings: tuple[str, ...]
    tissue_share: float | None = None
    asked_sha256: str | None = None
    arrays_sha256: dict[str, str] | None = None
    identity_sha256: str | None = None
    counts: Counts | None = None
    complete: bool = False
    content_sha256: str | None = None

    def settings(self) -> Settings:
        """The part that decides the bytes."""
        return Settings.model_validate(self.model_dump(include=set(Settings.model_fields)))


def differences(stored: StoreMeta, wanted: Settings) -> list[str]:
    """Settings in which a store differs from what a run would write, as `key: stored != wanted`.

    Versions count only while a store is unfinished: a finished one is not written to again. Of a
    model its digest counts, not what it says of its making. Samples of the slide count where the
    store has them, and an ICC profile where it was or would be applied. A finished store of a
    version that decoded all in full stays what it is.
    """
    versions = ("package_version", "software", "slide.reader_version") if stored.complete else ()
    samples = ("slide.sha256_samples",) if stored.slide.sha256_samples is None else ()
    icc = () if stored.icc.applied or wanted.icc.applied else ("icc",)
    in_full = stored.tiling.reduced is None and (stored.complete or wanted.tiling.reduced == 1)
    reduced = ("tiling.reduced",) if in_full else ()
    ignored = ("model.provenance", *versions, *samples, *icc, *reduced)
    return compare.differences(stored.settings().model_dump(), wanted.model_dump(), ignored)
