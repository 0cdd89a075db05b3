"""SlidePlan: everything decided about a slide before a full-resolution pixel is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_norm import tissue
from wsi_norm.config import RunConfig
from wsi_norm.errors import ColourError, ConfigError, ResolutionError, SlideError
from wsi_norm.geometry import Box, Tile, TileGrid, compact_order
from wsi_norm.glass import glass_level, neutral_white
from wsi_norm.location import check_file
from wsi_norm.slide import Overview, Slide
from wsi_norm.slide.directories import walk
from wsi_norm.slide.readers.base import Refused
from wsi_norm.sources import SlideSource

OVERVIEW_MPP_UM = 8.0
THUMBNAIL_PX = 1024
FINEST_RATIO = 0.9
"""A target up to this much finer than the slide is served by level 0; beyond it lies invention."""


@dataclass(frozen=True)
class SlidePlan:
    """Which tiles a store will hold, and why.

    Attributes
    ----------
    grid
        Where tiles can lie.
    tiles, tissue_fraction
        The kept ones in their order in the store, and the tissue share of each, float32 (N,).
    tissue_tiles
        Those of them with enough tissue: all, unless the whole slide is kept.
    tissue_mask, mask_downsample
        bool (h, w), and level-0 px per mask px in x and y.
    thumbnail
        uint8 (h, w, 3), longest edge at most 1024 px.
    white
        RGB of the slide's clear glass, in [0, 1].
    warnings
        What a user must know, a line each.
    """

    grid: TileGrid
    tiles: tuple[Tile, ...]
    tissue_fraction: npt.NDArray[np.float32]
    tissue_tiles: tuple[Tile, ...]
    tissue_mask: npt.NDArray[np.bool_]
    mask_downsample: tuple[float, float]
    thumbnail: npt.NDArray[np.uint8]
    white: tuple[float, float, float]
    warnings: tuple[str, ...]

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(N, 2) top-left corners in level-0 px."""
        return np.array([self.grid.origin(tile) for tile in self.tiles], np.int64).reshape(-1, 2)


def plan_slide(slide: Slide, source: SlideSource, config: RunConfig) -> SlidePlan:
    """Decide on the tiles of a slide from its overview.

    Raises
    ------
    ResolutionError
        The target mpp is finer than the slide.
    ColourError
        Fluorescence, or colours that cannot be stained tissue on clear glass.
    SlideError
        The slide is smaller than one tile, or cannot be read at all.
    ConfigError
        A region or mask file is wrong, or of another slide.
    """
    grid = plan_grid(slide, config)
    overview = slide.overview(max(OVERVIEW_MPP_UM, slide.mpp_um))
    warnings = _colour_warnings(slide, overview, config) + _damage_warnings(slide, overview)
    found = tissue.tissue_mask(overview.image, overview.mpp_um, config.segmenter)
    glass = glass_level(overview.image, found)
    white = neutral_white(overview.image) if glass is None else glass
    if glass is None:
        warnings.append(f"no glass is seen: its white is taken to be {white[0]:.0%}, as is usual")
    red, green, blue = white.tolist()
    lost = tissue.amid(overview.left_out, found & ~overview.left_out)
    warnings += _left_out_warnings(slide, bool(lost.any()))
    # A tile where nothing can be read is kept: read, flagged and counted instead of passed over.
    inside, notes = _inside_regions(slide, source, config, overview)
    warnings += notes
    found = (found | ~overview.readable | lost) & inside
    shares = _tissue_shares(grid, found, overview.downsample)
    least = max(np.float32(config.min_tissue), np.finfo(np.float32).tiny)  # some, if 0 is asked for
    with_tissue = compact_order([Tile(*cell) for cell in np.argwhere(shares >= least).tolist()])
    kept = compact_order([*grid.tiles()]) if config.whole_slide else with_tissue
    if not with_tissue:
        what = "tiles are of glass alone" if config.whole_slide else "the store is empty"
        warnings.append(f"no tissue found: {what}")
    return SlidePlan(
        grid=grid,
        tiles=tuple(kept),
        tissue_fraction=np.array([shares[tile] for tile in kept], np.float32),
        tissue_tiles=tuple(with_tissue),
        tissue_mask=found,
        mask_downsample=overview.downsample,
        thumbnail=_thumbnail(slide, overview),
        white=(red, green, blue),
        warnings=tuple(warnings),
    )


def plan_grid(slide: Slide, config: RunConfig) -> TileGrid:
    """The tile grid of a slide at the target mpp; see `plan_slide` for the errors."""
    downsample = config.mpp / slide.mpp_um
    if downsample < FINEST_RATIO:
        raise ResolutionError(
            f"{slide.path}: asked for {config.mpp:g} um/px, but the slide has only "
            f"{slide.mpp_um:g}; choose --mpp {slide.mpp_um:g} or more"
        )
    grid = TileGrid.over(slide.levels, downsample, config.tile_size, config.overlap)
    if not grid.fits:
        raise SlideError(
            f"{slide.path}: at {config.mpp:g} um/px the slide is {grid.width:.0f} x "
            f"{grid.height:.0f} px, smaller than one tile of {config.tile_size}; "
            "choose a smaller --tile-size"
        )
    if config.resample == "exact":
        return grid
    factors = slide.reducible.get(grid.level.index, frozenset())
    return replace(grid, reduced=max(filter(grid.divides, factors), default=1))


def regions_sha256(source: SlideSource, config: RunConfig) -> str | None:
    """Digest of the region and mask files that restrict a slide's tissue; None without them."""
    paths = [path for path in (source.roi or config.roi, source.mask) if path is not None]
    if not paths:
        return None
    try:
        digests = [_digest(path) for path in paths]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot read the region: {error.strerror}") from error
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest(path: Path) -> bytes:
    check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _tissue_shares(
    grid: TileGrid, found: npt.NDArray[np.bool_], downsample: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """How much of every tile of the grid is tissue, (rows, columns)."""
    shape = grid.rows, grid.columns
    boxes = grid.level0_boxes(np.argwhere(np.ones(shape, np.bool_)))
    return tissue.tissue_fraction(found, boxes / np.array([*downsample, *downsample])).reshape(
        shape
    )


def _colour_warnings(slide: Slide, overview: Overview, config: RunConfig) -> list[str]:
    if tissue.is_fluorescence(overview.image):
        problem: str | None = "a fluorescence image (light on dark), not brightfield"
        remedy = "stain normalisation does not apply: leave it out,"
    else:
        problem = tissue.colour_problem(overview.image)
        remedy = (
            "its colours may be decoded wrongly (YCbCr as RGB?): look at it, convert it, "
            "try another --reader,"
        )
    if problem is None:
        return []
    if config.colour_check == "warn":
        return [f"colours: {problem}"]
    raise ColourError(f"{slide.path}: {problem}; {remedy} or accept it with --colour-check warn")


def _damage_warnings(slide: Slide, overview: Overview) -> list[str]:
    warnings = [*slide.warnings]
    if slide.damage is not None:
        warnings.append(f"damaged: {slide.damage}")
    if not overview.readable.all():
        lost = np.mean(~overview.readable)
        warnings.append(f"damaged: {lost:.1%} of the slide's area cannot be read")
    return warnings


def _left_out_warnings(slide: Slide, amid_tissue: bool) -> list[str]:
    """What the file holds no pixels for: by design, or because it was not written to its end."""
    lacking = [
        f"{np.count_nonzero(level.tiles)} of {level.tiles.size} tiles of level {index}"
        for index, level in slide.metadata.left_out.items()
    ]
    if not lacking:
        return []
    amid = ", also amid tissue: compare it with its original" if amid_tissue else ""
    return [f"left out: the file holds no bytes for {', '.join(lacking)} (white, flag 16){amid}"]


def _inside_regions(
    slide: Slide, source: SlideSource, config: RunConfig, overview: Overview
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Where tissue counts, and what a user has to know of how regions were placed."""
    shape = overview.image.shape[0], overview.image.shape[1]
    inside = np.ones(shape, np.bool_)
    notes: list[str] = []
    roi = source.roi or config.roi
    if roi is not None:
        scanned = slide.metadata.bounds or Box(0, 0, *slide.dimensions)
        regions, notes = tissue.placed(tissue.read_geojson(roi), scanned)
        inside &= tissue.regions_mask(regions, shape, overview.downsample)
    if source.mask is not None:
        _check_mask(source.mask)
        inside &= tissue.read_mask_image(source.mask, shape, slide.dimensions)
    return inside, notes


def _check_mask(path: Path) -> None:
    try:
        walk(path)
    except Refused as error:
        raise ConfigError(f"{path}: damaged TIFF: {error}; export the mask again") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the mask image: {error.strerror}") from error


def _thumbnail(slide: Slide, overview: Overview) -> npt.NDArray[np.uint8]:
    """The overview at most 1024 px wide and high; a small slide is read again, finer."""
    edge = max(overview.image.shape)
    if edge < THUMBNAIL_PX and overview.mpp_um > slide.mpp_um:
        overview = slide.overview(max(overview.mpp_um * edge / THUMBNAIL_PX, slide.mpp_um))
    small = Image.fromarray(overview.image)
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(small)
