"""A slide before and after its shards: plan it, create its store, close its store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from wsi_norm.choices import HOMES
from wsi_norm.errors import SlideError, StoreError, UnreadableSlideError
from wsi_norm.geometry import TileGrid
from wsi_norm.location import exists, free_bytes
from wsi_norm.machine import package_version, versions
from wsi_norm.pipeline.finished import asked_sha256
from wsi_norm.pipeline.job import Estimate, Planned, Prepared, SlideJob
from wsi_norm.pipeline.kept import check_files, check_owner, kept_normalizer, tidied
from wsi_norm.pipeline.tiles import measure_slide, read_tiles, spread
from wsi_norm.plan import plan_grid, plan_slide, regions_sha256
from wsi_norm.slide import Slide, SlideFiles, open_slide, slide_files
from wsi_norm.stages import Seconds, Stage
from wsi_norm.store import (
    PYRAMID_RATIO,
    REMEDY,
    Codec,
    Counts,
    IccMeta,
    ModelMeta,
    Settings,
    SlideMeta,
    StoreMeta,
    TileFlag,
    TileStore,
    TilingMeta,
    TissueMeta,
    codec_of,
    differences,
    taken_over,
    tiles_per_shard,
)

SOFTWARE = (
    "torch",
    "kornia",
    "numba",
    "numpy",
    "zarr",
    "numcodecs",
    "imagecodecs",
    "pillow",
    "scikit-image",
)
"""Packages whose version can change a byte of the result."""


def prepare(job: SlideJob) -> Prepared:
    """Plan a slide and create its store, or find out what an earlier run left of it to do.

    Raises
    ------
    SlideError, ConfigError, StoreError, CheckpointError
        Each with one line that names the file, the cause and the remedy.
    """
    seconds = Seconds()
    with tidied(), seconds.spent(Stage.PLANNING), ThreadPoolExecutor(1) as beside:
        files = _files(job)  # seen before the slide is opened
        with _open(job) as slide:
            beside.submit(kept_normalizer, job.model, job.config)  # loads while it is planned
            try:
                store, missing = _to_do(job, slide, files)
            except SlideError:
                files.check(job.source.path)  # if it changed meanwhile, that is what to say
                raise
    return Prepared(
        tiles=len(store),
        missing={shard: store.rows(shard).stop - store.rows(shard).start for shard in missing},
        finished=store.meta.complete,
        damaged=store.meta.slide.damage is not None,
        warnings=store.meta.warnings,
        seconds=seconds,
        counts=store.meta.counts if store.meta.complete else None,
        plan=Planned(store.identity, files),
    )


def finish(job: SlideJob) -> Counts:
    """Check a store whose shards are all written and mark it complete.

    Raises
    ------
    StoreError
        A shard is missing or damaged, or the store is another run's by now.
    SlideError
        The slide is not the one that was planned.
    UnreadableSlideError
        More tiles than `max_unreadable` could not be read; the store stays incomplete.
    """
    store = TileStore.open(job.store, allow_partial=True)
    check_owner(job, store)
    check_files(job)
    if store.meta.complete and store.meta.counts is not None:
        return store.meta.counts
    counts = store.count()
    tiles, unreadable = counts["tiles"], counts[TileFlag.UNREADABLE.key]
    if unreadable > job.config.max_unreadable * tiles:
        raise UnreadableSlideError(
            f"{job.source.path}: {unreadable} of {tiles} tiles cannot be read; "
            "copy the slide again, or accept it with --max-unreadable"
        )
    store.finish()
    return counts


def estimate(job: SlideJob) -> Estimate:
    """Plan a slide without writing, and time a few of its tiles; errors as those of `prepare`."""
    start = time.perf_counter()
    with _open(job) as slide:
        plan = plan_slide(slide, job.source, job.config)
        planning = time.perf_counter() - start
        normalizer = kept_normalizer(job.model, job.config)
        worked_on = len(plan.tiles) if HOMES[job.config.layout] else 0
        sample = spread(plan.tiles, min(8, worked_on))
        start = time.perf_counter()
        pixels, _ = read_tiles(slide, plan.grid, sample)
        normalizer.normalize(pixels, None, plan.white)
        per_tile = (time.perf_counter() - start) / max(1, len(sample))
    return Estimate(
        tiles=len(plan.tiles),
        bytes=_expected_bytes(job, len(plan.tiles)),
        seconds=planning + per_tile * worked_on,
        warnings=plan.warnings,
        icc=_icc_meta(slide),
    )


def _open(job: SlideJob) -> Slide:
    return open_slide(
        job.source.path,
        job.config.reader,
        table_mpp_um=job.source.mpp_um,
        override_mpp_um=job.config.override_mpp,
        default_mpp_um=job.config.default_mpp,
        icc=job.config.icc,
        apart=job.apart,
    )


def _files(job: SlideJob) -> SlideFiles:
    try:
        return slide_files(job.source.path)
    except OSError as error:
        raise UnreadableSlideError(
            f"{error.filename or job.source.path}: cannot be read: {error.strerror or error}; "
            "check the file, its folder and its disk"
        ) from error


def _to_do(job: SlideJob, slide: Slide, files: SlideFiles) -> tuple[TileStore, list[int]]:
    """The slide's store, and the shards that are still to be written."""
    replacing = job.config.overwrite and not _made_since(job)
    if replacing or not exists(job.store):
        store = _create(job, slide, files, "replace" if replacing else "keep")
        return store, _unwritten(store)
    wanted = _settings(job, slide, files, plan_grid(slide, job.config))
    if job.config.repair:
        return _repaired(job, slide, files, wanted)
    store = TileStore.open(job.store, allow_partial=True)
    if problem := store.changed_attribute():
        raise StoreError(f"{job.store}: {problem}; {REMEDY}")
    if job.config.overwrite and differences(store.meta, wanted):
        raise taken_over(job.store)
    _check_settings(job, store.meta, wanted)
    if store.meta.complete and not store.is_whole:
        _check_settings(job, _unfinished(store.meta), wanted)
        store.reopen()
    store.sweep()
    return store, _unwritten(store)


def _made_since(job: SlideJob) -> bool:
    """Whether the store was made since the run began: by another, or by an earlier try."""
    made = TileStore.made_ns(job.store)
    return made is not None and job.began_ns is not None and made > job.began_ns


def _unwritten(store: TileStore) -> list[int]:
    return [] if store.meta.complete else store.missing_shards(unreadable_too=True)


def _repaired(
    job: SlideJob, slide: Slide, files: SlideFiles, wanted: Settings
) -> tuple[TileStore, list[int]]:
    """A store without what was damaged in it, and the shards that are to be written for it."""
    try:
        store = TileStore.open(job.store, allow_partial=True)
        mended = bool(store.changed())
    except StoreError:
        mended = True
    if mended:
        store = _create(job, slide, files, "mend")
    _check_settings(job, store.meta, wanted)
    was_complete = store.meta.complete
    damaged, levels, beside = (
        store.damaged_shards(),
        store.damaged_levels(),
        store.damaged_beside(),
    )
    if beside and not store.is_sealed:
        raise StoreError(
            f"{job.store}: {beside[0]}; it has no digests to repair it by: use --overwrite"
        )
    again = was_complete and (damaged or levels or beside)
    if again:
        _check_settings(job, _unfinished(store.meta), wanted)
    store.drop([*damaged, *levels])  # first: what is interrupted here lost nothing that was whole
    store.remove_strays()
    if again:
        store.reopen()
    store.sweep()
    return store, sorted(damaged) if was_complete or mended else _unwritten(store)


def _unfinished(meta: StoreMeta) -> StoreMeta:
    """What a finished store says once it is taken up again: then versions count, too."""
    return meta.model_copy(update={"complete": False})


def _check_settings(job: SlideJob, meta: StoreMeta, wanted: Settings) -> None:
    """StoreError if a store is not what the job would write."""
    found = differences(meta, wanted)
    if found:
        raise StoreError(
            f"{job.store}: written with other settings ({'; '.join(found)}); "
            "use --overwrite, or another --output"
        )


def _create(
    job: SlideJob,
    slide: Slide,
    files: SlideFiles,
    existing: Literal["replace", "keep", "mend"],
) -> TileStore:
    plan = plan_slide(slide, job.source, job.config)
    needed, free = _expected_bytes(job, len(plan.tiles)), free_bytes(job.store.parent)
    if needed > free:
        raise StoreError(
            f"{job.store}: needs about {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; "
            "make room, or choose another --output"
        )
    normalizer = kept_normalizer(job.model, job.config)
    statistics, warnings, after = None, list(plan.warnings), plan.thumbnail
    if plan.tissue_tiles and normalizer.statistics == "slide":
        statistics, problem = measure_slide(slide, plan, normalizer)
        warnings += [problem] if problem else []
        warnings += normalizer.doubts(statistics) if statistics is not None else []
    if plan.tiles and not (statistics is None and normalizer.statistics == "slide"):
        after = normalizer.normalize(plan.thumbnail[None], statistics, plan.white)[0][0]
    meta = StoreMeta(
        **dict(_settings(job, slide, files, plan.grid)),
        white=plan.white,
        statistics=statistics.to_dict() if statistics is not None else None,
        warnings=tuple(warnings),
        tissue_share=float(plan.tissue_mask.mean()),
        asked_sha256=asked_sha256(replace(job, model=job.model.fixed(normalizer))),
    )
    files.check(job.source.path)  # all of the plan is of one slide
    store = TileStore.create(
        job.store,
        meta,
        coords=plan.coords,
        tissue_fraction=plan.tissue_fraction,
        tissue_mask=plan.tissue_mask,
        mask_downsample=plan.mask_downsample,
        thumbnail=plan.thumbnail,
        thumbnail_normalized=after,
        existing=existing,
    )
    _check_settings(job, store.meta, meta.settings())  # another run may have been faster
    return store


def _expected_bytes(job: SlideJob, tiles: int) -> int:
    """Of pixels; a plan has none."""
    raw = tiles * 3 * job.config.tile_size**2
    ratios = {"tiles": _codec(job).ratio, "pyramid": PYRAMID_RATIO}
    return int(sum(raw / ratios[home] for home in HOMES[job.config.layout]))


def _codec(job: SlideJob) -> Codec:
    return codec_of(job.config.codec, job.config.quality)


def _settings(job: SlideJob, slide: Slide, files: SlideFiles, grid: TileGrid) -> Settings:
    return Settings(
        package_version=package_version(),
        slide=_slide_meta(job, slide, files),
        icc=_icc_meta(slide),
        tiling=_tiling_meta(job, grid),
        tissue=TissueMeta(
            segmenter=job.config.segmenter,
            min_tissue=job.config.min_tissue,
            whole_slide=job.config.whole_slide,
            regions_sha256=regions_sha256(job.source, job.config),
        ),
        model=ModelMeta(**kept_normalizer(job.model, job.config).facts()),
        codec=job.config.codec,
        lossy_quality=_codec(job).quality,
        layout=job.config.layout,
        software=versions(SOFTWARE),
    )


def _slide_meta(job: SlideJob, slide: Slide, files: SlideFiles) -> SlideMeta:
    width, height = slide.dimensions
    return SlideMeta(
        name=job.source.name,
        file_name=slide.path.name,
        size_bytes=slide.path.stat().st_size,
        sha256_first_mib=slide.fingerprint(),
        sha256_samples=files.sha256,
        vendor=slide.metadata.vendor,
        reader=slide.reader,
        reader_version=slide.reader_version,
        width_px=width,
        height_px=height,
        mpp_um=slide.mpp_um,
        mpp_source=slide.mpp_source,
        objective_power=slide.metadata.objective_power,
        damage=slide.damage,
        icc_profile=slide.metadata.icc_profile is not None,
    )


def _icc_meta(slide: Slide) -> IccMeta:
    return IccMeta(
        status=slide.icc.status, description=slide.icc.description, sha256=slide.icc.sha256
    )


def _tiling_meta(job: SlideJob, grid: TileGrid) -> TilingMeta:
    return TilingMeta(
        tile_size_px=grid.tile_size,
        overlap_px=grid.overlap,
        mpp_um=job.config.mpp,
        downsample=grid.downsample,
        level=grid.level.index,
        level_width_px=grid.level.width,
        level_height_px=grid.level.height,
        level_downsample=grid.level.downsample,
        tiles_per_shard=tiles_per_shard(grid.tile_size),
        reduced=grid.reduced,
    )
