"""The loop around a device: while it computes, other threads read and write."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from wsi_norm.choices import NORMALIZERS
from wsi_norm.config import RunConfig
from wsi_norm.normalizers.classic import Unchanged
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import SlideJob, prepare, process_shard
from wsi_norm.sources import find_slides

SHARDS = 4
PATIENCE_SECONDS = 20
"""After which what has not come never comes."""


class Device(Unchanged):
    """A device that stays at the shard it is `busy` with until all others are done."""

    name = "device"

    def __init__(self) -> None:
        self.busy, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.others_came = False

    def normalize(self, tiles: np.ndarray, *_: object) -> tuple[np.ndarray, np.ndarray]:
        if self.busy.acquire(blocking=False):
            others = range(SHARDS - 1)
            self.others_came = all(self.done.acquire(timeout=PATIENCE_SECONDS) for _ in others)
        return super().normalize(tiles)


@pytest.fixture
def device() -> Iterator[Device]:
    """As a normaliser of one's own."""
    device = Device()
    NORMALIZERS.add("device", lambda *_: device)
    yield device
    NORMALIZERS.remove("device")


@pytest.fixture
def job(device: Device, slide_path: Path, tmp_path: Path) -> SlideJob:
    settings = {"tile_size": 512, "step": 192, "segmenter": "none", "min_tissue": 0.0}
    config = RunConfig.model_validate({"output": tmp_path, "normalizer": "device", **settings})
    (source,) = find_slides([str(slide_path)])
    job = SlideJob(source, tmp_path / "s.zarr", config, Model("device"))
    assert len(prepare(job).missing) >= SHARDS
    device.busy.release()  # with the next that comes
    return job


def test_a_device_keeps_no_other_thread_from_reading_and_writing(
    job: SlideJob, device: Device
) -> None:
    """Of two threads one is at the device; the other takes shard after shard from end to end."""

    def work(shard: int) -> None:
        process_shard(job, shard)
        device.done.release()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(SHARDS)))
    assert device.others_came
