"""Tiles per second that a DataLoader gives, from stores and plans and from what others write.

Every form holds the same normalised tiles of one slide: `prepare` writes them once.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import statistics
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks import slides
from benchmarks.machine import Clock, child
from benchmarks.scale import Scale

BATCH = 64
PER_TAR = 128
WORKERS = (1, 2)
REFERENCE = "PNG folder, random"


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """Median over rounds of each form, in turn within a round."""
    folder = output / "loading" / str(scale.slide_edge)
    slide = slides.slide(output, scale.slide_edge)
    asked = child("benchmarks.loading:prepare", 1800, slide=str(slide), output=str(folder))
    if "failed" in asked:
        raise SystemExit(f"loading: {asked['failed']}")
    answers: dict[tuple[str, int], list[dict[str, Any]]] = {}
    missing = {}
    for _ in range(scale.pipeline_rounds):
        for name in FORMS:
            for workers in WORKERS:
                answer = child(
                    "benchmarks.loading:load",
                    name=name,
                    folder=str(folder),
                    workers=workers,
                    seconds=scale.loading_s,
                )
                if "failed" in answer:
                    missing[name] = answer["failed"]
                    break
                answers.setdefault((name, workers), []).append(answer)
                print(f"{name}, {workers} worker(s): {answer['tiles_per_s']:.0f}/s", flush=True)
    rows: dict[str, Any] = {}
    for (name, workers), found in answers.items():
        row = {key: statistics.median(a[key] for a in found) for key in KEPT}
        rows.setdefault(name, {"bytes": asked["bytes"][FORMS[name][0]]})[str(workers)] = row
    return {
        "tiles": asked["tiles"],
        "rounds": scale.pipeline_rounds,
        "rows": rows,
        "reference": REFERENCE,
        "missing": missing,
    }


KEPT = ("tiles_per_s", "cpu_ms_per_tile")


# --- in child processes


def prepare(slide: str, output: str) -> dict[str, Any]:
    """The same tiles in every form; bytes a tile of each."""
    from wsi_norm import RunConfig, TileStore, run

    folder = Path(output)
    stores = {layout: folder / layout / f"{Path(slide).stem}.zarr" for layout in LAYOUTS}
    for layout, store in stores.items():
        if not store.exists():
            settings = {"output": store.parent, "layout": layout, "mpp": slides.MPP_UM}
            run(
                slide,
                RunConfig.model_validate({**settings, "workers": 0, "report": layout == "plan"}),
            )
    tiles = TileStore.open(stores["tiles"])
    sizes = {layout: _bytes(store) / len(tiles) for layout, store in stores.items()}
    for name, write in WRITERS.items():
        done = folder / name
        if not done.exists() and (name != "h5" or importlib.util.find_spec("h5py")):
            draft = folder / f"{name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            write(draft, tiles)
            draft.rename(done)
        sizes[name] = _bytes(done) / len(tiles)
    return {"tiles": len(tiles), "bytes": sizes}


def load(name: str, folder: str, workers: int, seconds: float) -> dict[str, Any]:
    """Epoch after epoch of a form, for some seconds; the clock starts with the first batch."""
    form, make = FORMS[name]
    loader = make(
        Path(folder, form),
        {"num_workers": workers, "persistent_workers": True, "batch_size": BATCH},
    )
    clock = Clock()
    for batch in _endless(loader):
        assert (batch.dtype, batch.shape[1:]) == (torch.uint8, (3, 256, 256))
        clock.tick(len(batch) if clock.ticks else 0)
        if clock.ticks[-1][0] - clock.ticks[0][0] > seconds:
            return clock.rate()
    raise AssertionError


def _endless(loader: DataLoader[Any]) -> Iterator[torch.Tensor]:
    while True:
        yield from loader


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- forms


def _random(folder: Path, options: dict[str, Any]) -> DataLoader[Any]:
    from wsi_norm import TileDataset

    return DataLoader(TileDataset(folder.glob("*.zarr")), shuffle=True, **options)


def _by_shard(folder: Path, options: dict[str, Any]) -> DataLoader[Any]:
    from wsi_norm import ShardSampler, TileDataset

    dataset = TileDataset(folder.glob("*.zarr"))
    return DataLoader(dataset, sampler=ShardSampler(dataset), **options)


def _stream(folder: Path, options: dict[str, Any]) -> DataLoader[Any]:
    from wsi_norm import TileDataset, TileStream

    return DataLoader(TileStream(TileDataset(folder.glob("*.zarr")), shuffle=True), **options)


class _Folder(Dataset[torch.Tensor]):
    """A folder of PNG files."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return _tensor(np.asarray(Image.open(self.files[index]).convert("RGB")))


class _H5(Dataset[torch.Tensor]):
    """A file of HDF5 that each worker opens for itself."""

    def __init__(self, folder: Path) -> None:
        import h5py

        self.path, self.tiles = folder / "tiles.h5", None
        with h5py.File(self.path) as file:
            self.number = len(file["tiles"])

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> torch.Tensor:
        import h5py

        if self.tiles is None:
            self.tiles = h5py.File(self.path)["tiles"]
        return _tensor(self.tiles[index])


def _files(
    kind: Callable[[Path], Dataset[torch.Tensor]], folder: Path, options: dict[str, Any]
) -> DataLoader[Any]:
    return DataLoader(kind(folder), shuffle=True, **options)


def _webdataset(folder: Path, options: dict[str, Any]) -> DataLoader[Any]:
    import webdataset

    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(8 * BATCH)
    return DataLoader(
        samples.decode("torchrgb8").to_tuple("png").map(lambda sample: sample[0]), **options
    )


def _tensor(tile: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))


def _write_png(folder: Path, tiles: Any) -> None:
    for number, tile in enumerate(tiles):
        Image.fromarray(tile).save(folder / f"{number:06}.png")


def _write_h5(folder: Path, tiles: Any) -> None:
    import h5py

    with h5py.File(folder / "tiles.h5", "w") as file:
        shape = len(tiles), *tiles[0].shape
        data = file.create_dataset("tiles", shape, np.uint8, chunks=(1, *shape[1:]))
        for number, tile in enumerate(tiles):
            data[number] = tile


def _write_tars(folder: Path, tiles: Any) -> None:
    for first in range(0, len(tiles), PER_TAR):
        with tarfile.open(folder / f"{first:06}.tar", "w") as tar:
            for number, tile in enumerate(tiles[first : first + PER_TAR], first):
                data = io.BytesIO()
                Image.fromarray(tile).save(data, "PNG")
                info = tarfile.TarInfo(f"{number:06}.png")
                info.size = data.tell()
                tar.addfile(info, io.BytesIO(data.getvalue()))


LAYOUTS = ("tiles", "plan")
WRITERS = {"png": _write_png, "h5": _write_h5, "tar": _write_tars}
FORMS: dict[str, tuple[str, Callable[[Path, dict[str, Any]], DataLoader[Any]]]] = {
    "wsi-norm store, TileStream": ("tiles", _stream),
    "wsi-norm store, ShardSampler": ("tiles", _by_shard),
    "wsi-norm store, random": ("tiles", _random),
    "wsi-norm plan, TileStream": ("plan", _stream),
    "wsi-norm plan, ShardSampler": ("plan", _by_shard),
    "wsi-norm plan, random": ("plan", _random),
    "h5py, not compressed, random": ("h5", partial(_files, _H5)),
    "WebDataset, PNG in tar, shuffled": ("tar", _webdataset),
    REFERENCE: ("png", partial(_files, _Folder)),
}
