"""Scripts that people write: a pool of processes, each reads, normalises and writes its tiles."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import Clock
from benchmarks.normalizers import CONTESTANTS, Normalize

TILE = 256
SHARD = 64
Read = Callable[[int, int], np.ndarray]

_barrier: Any = None
_work: Callable[[int, list[list[int]]], int] | None = None


def loop(
    output: str, workers: int, corners: list[list[int]], chunk: int = SHARD, **script: str | None
) -> dict[str, Any]:
    """Tiles through a script (slide, reader, normalizer, writer).

    The clock starts when every worker is ready.
    """
    starts = range(0, len(corners), chunk)
    Path(output).mkdir(parents=True)
    if script["writer"] == "zarr":
        _create(output, len(corners))
    context = multiprocessing.get_context("spawn")
    target = corners[len(corners) // 2]
    with ProcessPoolExecutor(workers, context, _take_barrier, (context.Barrier(workers),)) as pool:
        for ready in [pool.submit(_start, output, target, script) for _ in range(workers)]:
            ready.result()
        clock = Clock()
        clock.tick()
        for tiles in pool.map(_do, starts, (corners[i : i + chunk] for i in starts)):
            clock.tick(tiles)
        return clock.rate()


def wsi_patching(slide: str, output: str, box: list[int]) -> dict[str, Any]:
    """The package's own pipeline, Reinhard and WebDataset, over a box (x, y, width, height)."""
    import wsi_patching as package
    from wsi_patching.transforms.reinhard_normalizer import ReinhardNormalizer

    Path(output).mkdir(parents=True)
    boxes = package.RectROIProvider({Path(slide).stem: [tuple(box)]})
    pipeline = (
        package.WSIGrid(slides=[slide], resolution=0, unit="level")
        .then(package.AttachROIs(providers=[boxes]))
        .then(package.PatchExtractor(tile_size=TILE, stride=TILE))
        .then(ReinhardNormalizer())
        .then(package.PNGEncoder())
        .to(package.WebDatasetWriter(Path(output)))
    )
    clock = Clock()
    clock.tick()
    pipeline.materialize(num_workers=2)
    clock.tick((box[2] // TILE) * (box[3] // TILE))
    return clock.rate()


def _take_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _start(output: str, target: list[int], script: dict[str, Any]) -> None:
    global _work
    read = {"openslide": _openslide, "fastslide": _fastslide}[script["reader"]](script["slide"])
    first, name = read(*target), script["normalizer"]
    normalize = _tolerant(CONTESTANTS[name](first[None])) if name else lambda tile: tile
    write = {"zarr": _zarr, "png": _png}[script["writer"]](output)
    normalize(first)

    def work(start: int, corners: list[list[int]]) -> int:
        write(start, [normalize(read(x, y)) for x, y in corners])
        return len(corners)

    _work = work
    _barrier.wait(timeout=120)


def _tolerant(normalize: Normalize) -> Normalize:
    """A tile that the normaliser raises on (glass, for Macenko) stays as it is."""

    def tolerant(tile: np.ndarray) -> np.ndarray:
        try:
            return normalize(tile)
        except (IndexError, RuntimeError, ValueError):
            return tile

    return tolerant


def _do(start: int, corners: list[list[int]]) -> int:
    assert _work is not None
    return _work(start, corners)


def _openslide(path: str) -> Read:
    import openslide

    slide = openslide.OpenSlide(path)
    return lambda x, y: np.asarray(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))


def _fastslide(path: str) -> Read:
    import fastslide

    slide = fastslide.FastSlide.from_file_path(path)
    return lambda x, y: np.ascontiguousarray(slide.read_region((x, y), 0, (TILE, TILE)).numpy())


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
