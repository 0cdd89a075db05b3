"""A folder of tiles as images, named by slide, position (level-0 px) and um/px."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from wsi_norm.export.base import Format, Job, read_origin, write_origin

Encode = Callable[[npt.NDArray[np.uint8]], bytes]


@dataclass(frozen=True)
class JpegOptions:
    """`quality`: 1 to 100."""

    quality: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is 1 to 100, not {self.quality}")


def _write_png(job: Job, draft: Path) -> None:
    _write(job, draft, "png", partial(imagecodecs.png_encode, level=1))


def _write_jpeg(job: Job, draft: Path) -> None:
    _write(job, draft, "jpg", partial(imagecodecs.jpeg8_encode, level=job.options.quality))


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
