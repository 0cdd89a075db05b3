"""WebDataset: a folder of tar files of tiles, each tile with a JSON side-car.

A sample's key is `SLIDE_X_Y` (level-0 px). Keys end at their first dot, so dots in a slide's name
are underscores there; the side-car has the name as it is.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from wsi_norm.export.base import (
    Format,
    Job,
    checked_quality,
    read_origin,
    write_origin,
)
from wsi_norm.export.images import Encode, jpeg, png

Encoding = Literal["png", "jpeg", "npy"]

SUFFIX = {"png": "png", "jpeg": "jpg", "npy": "npy"}
"""Of tiles in a tar file; `webdataset` decodes by it."""


@dataclass(frozen=True)
class WebDatasetOptions:
    """`encoding` of tiles; `quality` of JPEG, 1 to 100; `shard_mib`: of a tar file, about."""

    encoding: Encoding = "png"
    quality: int | None = None
    shard_mib: int = 256

    def __post_init__(self) -> None:
        if self.encoding not in get_args(Encoding):
            known = ", ".join(get_args(Encoding))
            raise ValueError(f"encoding is one of {known}, not {self.encoding!r}")
        if self.encoding == "jpeg":
            object.__setattr__(self, "quality", checked_quality(self.quality))
        elif self.quality is not None:
            raise ValueError("quality is for encoding jpeg alone")
        if self.shard_mib < 1:
            raise ValueError(f"shard_mib is 1 or more, not {self.shard_mib}")


def write(job: Job, draft: Path) -> None:
    """Write the folder; memory for one shard of the store."""
    draft.mkdir()
    samples = _samples(job)
    for number in count():
        first = next(samples, None)
        if first is None:
            break
        with tarfile.open(draft / f"{job.store.meta.slide.name}-{number:06}.tar", "x:") as tar:
            for sample in chain([first], samples):
                for name, data in sample.items():
                    _add(tar, name, data)
                if tar.offset >= job.options.shard_mib << 20:
                    break
    write_origin(draft, job.origin)


def _samples(job: Job) -> Iterator[dict[str, bytes]]:
    """For each tile its files, by name."""
    store, encode = job.store, _encoder(job.options)
    slide, suffix = store.meta.slide.name, SUFFIX[job.options.encoding]
    rows = zip(
        store.coords.tolist(), store.flags.tolist(), store.tissue_fraction, store, strict=True
    )
    for row, ((x, y), flags, tissue, tile) in enumerate(rows):
        facts = {
            "slide": slide,
            "row": row,
            "x": x,
            "y": y,
            "mpp": store.meta.tiling.mpp_um,
            "flags": flags,
            "tissue_fraction": round(float(tissue), 6),
            "model_sha256": store.meta.model.sha256,
        }
        key = f"{slide.replace('.', '_')}_{x}_{y}"
        yield {f"{key}.{suffix}": encode(tile), f"{key}.json": json.dumps(facts).encode()}
        job.advance(1)


def _encoder(options: WebDatasetOptions) -> Encode:
    if options.encoding == "jpeg":
        return partial(jpeg, quality=checked_quality(options.quality))
    return png if options.encoding == "png" else _npy


def _npy(tile: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, tile)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """As nobody's file of 1970, so that equal tiles make equal tar files."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


WEBDATASET = Format("_webdataset", write, read_origin, WebDatasetOptions)
