"""Scripts that people write: a pool of processes, each reads, normalises and writes its tiles."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.normalizers import CONTESTANTS, Normalize

TILE = 256
SHARD = 64
Read = Callable[[int, int], np.ndarray]

_work: Callable[[int, list[list[int]]], None] | None = None


def loop(
    output: str, workers: int, corners: list[list[int]], chunk: int = SHARD, **script: Any
) -> dict[str, Any]:
    """Tiles through a script: slide, reader, shrink, normalizer, writer.

    `shrink`: how often a tile's px are read, in each direction.
    """
    starts = range(0, len(corners), chunk)
    Path(output).mkdir(parents=True)
    if script["writer"] == "zarr":
        _create(output, len(corners))
    target = corners[len(corners) // 2]
    with ProcessPoolExecutor(
        workers, initializer=_start, initargs=(output, target, script)
    ) as pool:
        list(pool.map(_do, starts, (corners[i : i + chunk] for i in starts)))
    return {}


def wsi_patching(slide: str, output: str, box: list[int], mpp_um: float) -> dict[str, Any]:
    """The package's own pipeline, Reinhard and WebDataset, over a box (x, y, width, height) of px.

    It writes at the end, so it says itself from when to when it worked.
    """
    import wsi_patching as package
    from wsi_patching.transforms.reinhard_normalizer import ReinhardNormalizer

    Path(output).mkdir(parents=True)
    boxes = package.RectROIProvider({Path(slide).stem: [tuple(box)]})
    grid = package.WSIGrid(
        slides=[slide],
        resolution=mpp_um,
        unit="mpp",
        fallback_mode="resample",
        resample_interpolation="area",
    )
    pipeline = (
        grid.then(package.AttachROIs(providers=[boxes]))
        .then(package.PatchExtractor(tile_size=TILE, stride=TILE))
        .then(ReinhardNormalizer())
        .then(package.PNGEncoder())
        .to(package.WebDatasetWriter(Path(output)))
    )
    start = time.time()
    pipeline.materialize(num_workers=2)
    tiles = (box[2] // TILE) * (box[3] // TILE)
    return {"written": [[start, 0], [time.time(), tiles]]}


def _start(output: str, target: list[int], script: dict[str, Any]) -> None:
    """In every process, once."""
    global _work
    source = {"openslide": _openslide, "fastslide": _fastslide}[script["reader"]](script["slide"])
    read, name = partial(_shrunk, source, script["shrink"]), script["normalizer"]
    normalize = _tolerant(CONTESTANTS[name](read(*target)[None])) if name else lambda tile: tile
    write = {"zarr": _zarr, "png": _png}[script["writer"]](output)

    def work(start: int, corners: list[list[int]]) -> None:
        write(start, [normalize(read(x, y)) for x, y in corners])

    _work = work


def _tolerant(normalize: Normalize) -> Normalize:
    """A tile that the normaliser raises on (glass, for Macenko) stays as it is."""

    def tolerant(tile: np.ndarray) -> np.ndarray:
        try:
            return normalize(tile)
        except (IndexError, RuntimeError, ValueError):
            return tile

    return tolerant


def _do(start: int, corners: list[list[int]]) -> None:
    assert _work is not None
    _work(start, corners)


def _shrunk(
    source: Callable[[int, int, int], np.ndarray], times: int, x: int, y: int
) -> np.ndarray:
    """The tile at a corner: so many times its px in each direction, as their mean."""
    pixels = source(x, y, times * TILE)
    if times == 1:
        return pixels
    import cv2

    cv2.setNumThreads(1)
    return cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA)


def _openslide(path: str) -> Callable[[int, int, int], np.ndarray]:
    import openslide

    slide = openslide.OpenSlide(path)
    return lambda x, y, edge: np.asarray(slide.read_region((x, y), 0, (edge, edge)).convert("RGB"))


def _fastslide(path: str) -> Callable[[int, int, int], np.ndarray]:
    import fastslide

    slide = fastslide.FastSlide.from_file_path(path)
    return lambda x, y, edge: np.ascontiguousarray(
        slide.read_region((x, y), 0, (edge, edge)).numpy()
    )


def _create(output: str, tiles: int) -> None:
    import zarr
    from zarr.codecs import ZstdCodec

    zarr.create_array(
        f"{output}/tiles.zarr",
        shape=(tiles, TILE, TILE, 3),
        chunks=(1, TILE, TILE, 3),
        shards=(SHARD, TILE, TILE, 3),
        dtype=np.uint8,
        compressors=ZstdCodec(level=1),
    )


def _zarr(output: str) -> Callable[[int, list[np.ndarray]], None]:
    import zarr

    array = zarr.open_array(f"{output}/tiles.zarr", mode="r+")

    def write(first: int, tiles: list[np.ndarray]) -> None:
        array[first : first + len(tiles)] = np.stack(tiles)

    return write


def _png(output: str) -> Callable[[int, list[np.ndarray]], None]:
    from PIL import Image

    def write(first: int, tiles: list[np.ndarray]) -> None:
        for index, tile in enumerate(tiles, first):
            Image.fromarray(tile).save(f"{output}/{index}.png")

    return write
