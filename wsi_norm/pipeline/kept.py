"""What a worker keeps between tasks: the normaliser per process; a slide and a store per thread."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_norm.config import RunConfig
from wsi_norm.geometry import TileGrid
from wsi_norm.machine import one_thread
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline.job import SlideJob
from wsi_norm.pipeline.origin import check_pixels
from wsi_norm.slide import Slide, open_slide
from wsi_norm.store import StoreMeta, TileStore, taken_over

_loading = threading.Lock()
_normalizer: tuple[object, StainNormalizer] | None = None
_thread = threading.local()


def kept_normalizer(model: Model, config: RunConfig) -> StainNormalizer:
    """The run's normaliser, loaded once per process."""
    global _normalizer
    device = "cuda" if config.gpus else config.device  # a GPU's worker sees that GPU alone
    wanted = model, device, config.batch_size
    with _loading:
        if _normalizer is None or _normalizer[0] != wanted:
            loaded = model.load(device, config.batch_size)
            loaded.warm_up()
            _normalizer = wanted, loaded
        one_thread()
        return _normalizer[1]


def kept_slide(job: SlideJob, meta: StoreMeta) -> Slide:
    """The job's slide, open in this thread until the next slide's turn.

    It is known by what it holds, too: a scheduler's workers outlive a run, and the file may have
    been replaced since.
    """
    files = job.plan.files if job.plan is not None else None
    pixels = meta.slide, meta.icc, meta.tiling.reduced
    wanted = job.source.path, job.config.reader, pixels, job.apart, files
    held: tuple[object, Slide] | None = getattr(_thread, "slide", None)
    if held is not None and held[0] == wanted:
        return held[1]
    release_slide()
    slide = open_slide(
        job.source.path,
        job.config.reader,
        table_mpp_um=meta.slide.mpp_um,
        icc=meta.icc.choice,
        apart=job.apart,
    )
    check_pixels(slide, meta, job.store)
    _thread.slide = wanted, slide
    return slide


def check_owner(job: SlideJob, store: TileStore) -> None:
    """StoreError if a store is not the one that the job was planned for."""
    if job.plan is not None and job.plan.identity != store.identity:
        raise taken_over(job.store)


def check_files(job: SlideJob) -> None:
    """SlideError if the slide is not the one that the job was planned for."""
    if job.plan is not None:
        job.plan.files.check(job.source.path)


def release_slide() -> None:
    """Close the slide that this thread keeps open."""
    held: tuple[object, Slide] | None = getattr(_thread, "slide", None)
    if held is not None:
        held[1].close()
        _thread.slide = None


@dataclass(frozen=True)
class Layout:
    """A store that `prepare` has made, and where its tiles lie: coords (N, 2) on the grid."""

    store: TileStore
    grid: TileGrid
    coords: npt.NDArray[np.int64]


def kept_store(path: Path) -> Layout:
    """A prepared store, kept until it is written anew."""
    wanted = path, TileStore.stamp(path)
    held: tuple[object, Layout] | None = getattr(_thread, "store", None)
    if held is not None and held[0] == wanted:
        return held[1]
    store = TileStore.open(path, allow_partial=True)
    layout = Layout(store, store.meta.tiling.grid(store.meta.slide), store.coords)
    _thread.store = wanted, layout
    return layout


@contextmanager
def tidied() -> Iterator[None]:
    """Around a slide's first task: what it has left in memory is given back.

    A plan takes far more than a tile, and glibc is told to keep what is freed
    (`malloc_environment`). The exceptions of a slide that failed hold frames, and these pixels,
    until they are collected.
    """
    if getattr(_thread, "failed", False):
        gc.collect()
        _trim()
    _thread.failed = True
    yield
    _thread.failed = False
    _trim()


def _trim() -> None:
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
