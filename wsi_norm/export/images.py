"""A folder of tiles as images, named by slide, corner (level-0 px) and um/px."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg

from wsi_norm.export.base import (
    QUALITY,
    Format,
    Job,
    checked_quality,
    read_origin,
    write_origin,
)

Encode = Callable[[npt.NDArray[np.uint8]], bytes]


@dataclass(frozen=True)
class JpegOptions:
    """`quality`: 1 to 100."""

    quality: int = QUALITY

    def __post_init__(self) -> None:
        checked_quality(self.quality)


def png(tile: npt.NDArray[np.uint8]) -> bytes:
    """Runs alone: faster than what is usual, and of tissue no larger."""
    return bytes(imagecodecs.png_encode(tile, level=1, strategy=imagecodecs.PNG.STRATEGY.RLE))


def jpeg(tile: npt.NDArray[np.uint8], quality: int) -> bytes:
    """With half the colour's resolution, as slides are scanned."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(tile), quality, "RGB", "420"))


def _write_png(job: Job, draft: Path) -> None:
    _write(job, draft, "png", png)


def _write_jpeg(job: Job, draft: Path) -> None:
    _write(job, draft, "jpg", partial(jpeg, quality=job.options.quality))


def _write(job: Job, draft: Path, suffix: str, encode: Encode) -> None:
    draft.mkdir()
    meta = job.store.meta
    for (x, y), tile in zip(job.store.coords.tolist(), job.store, strict=True):
        name = f"{meta.slide.name}_x{x}_y{y}_mpp{meta.tiling.mpp_um:g}.{suffix}"
        (draft / name).write_bytes(encode(tile))
        job.advance(1)
    write_origin(draft, job.origin)


PNG = Format("_png", _write_png, read_origin)
JPEG = Format("_jpeg", _write_jpeg, read_origin, JpegOptions)
