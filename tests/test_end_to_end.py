"""The main job as a user runs it: the command, in its own processes, on real and made slides."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import openslide
import psutil
import pytest
import zarr

from tests.builders import tree

pytestmark = pytest.mark.usefixtures("signals_heard")

TILING = ("--tile-size", "512", "--step", "192")  # many tiles, shards of 16


def command(*arguments: object) -> list[str]:
    """`wsi-norm` with this Python, without a console script on the path."""
    return [sys.executable, "-m", "wsi_norm", *(str(argument) for argument in arguments)]


@pytest.fixture(scope="module")
def uninterrupted(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run with one worker."""
    output = tmp_path_factory.mktemp("uninterrupted")
    run = command("run", slide_path, "-o", output, "-n", 1, "--device", "cpu", "-q", *TILING)
    subprocess.run(run, check=True)
    return output / "synthetic.zarr"


@pytest.mark.parametrize(("workers", "batch"), [(2, 1), (0, 7)])
def test_workers_and_batches_do_not_change_a_byte(
    slide_path: Path, uninterrupted: Path, tmp_path: Path, workers: int, batch: int
) -> None:
    run = command("run", slide_path, "-o", tmp_path, "-n", workers, "-b", batch, "-q", *TILING)
    subprocess.run([*run, "--device", "cpu"], check=True)
    assert tree(tmp_path / "synthetic.zarr") == tree(uninterrupted)


def test_the_order_of_shards_and_slides_does_not_change_a_byte(
    slide_path: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    from wsi_norm.config import RunConfig
    from wsi_norm.pipeline import SlideJob, finish, prepare, process_shard
    from wsi_norm.runner.checks import checked_model
    from wsi_norm.sources import find_slides

    config = RunConfig(output=tmp_path, tile_size=512, overlap=320, device="cpu")
    (source,) = find_slides([str(slide_path)])
    job = SlideJob(source, tmp_path / "synthetic.zarr", config, checked_model(config)[0])
    shards = list(prepare(job).missing)
    random.Random(7).shuffle(shards)
    for shard in [*shards, shards[0]]:  # one of them twice
        process_shard(job, shard)
    finish(job)
    assert tree(tmp_path / "synthetic.zarr") == tree(uninterrupted)


@pytest.mark.parametrize(("shards_before", "workers", "then"), [(0, 1, 0), (2, 2, 0)])
def test_kill_9_in_the_middle_and_the_same_command_again(
    slide_path: Path,
    uninterrupted: Path,
    tmp_path: Path,
    shards_before: int,
    workers: int,
    then: int,
) -> None:
    """SIGKILL to the whole process group once some shards are there; then the command again."""
    run = command("run", slide_path, "-o", tmp_path, "--device", "cpu", "-q", *TILING)
    store = tmp_path / "synthetic.zarr"
    process = subprocess.Popen([*run, "-n", str(workers)], start_new_session=True)
    wait_for_shards(process, store, shards_before)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    whole = tree(uninterrupted)
    for name, content in tree(store).items():
        if name.startswith("tiles/c/") and not name.endswith(".partial"):
            assert content == whole[name], f"half a shard was left under its final name: {name}"
    subprocess.run([*run, "-n", str(then)], check=True)
    assert tree(store) == whole


def test_workers_of_a_killed_run_do_not_live_on(slide_path: Path, tmp_path: Path) -> None:
    run = command("run", slide_path, "-o", tmp_path, "-n", 2, "--device", "cpu", "-q", *TILING)
    process = subprocess.Popen(run)
    wait_for_shards(process, tmp_path / "synthetic.zarr", 1)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_sigterm_stops_with_130_and_can_be_resumed(
    slide_path: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = command("run", slide_path, "-o", tmp_path, "--device", "cpu", *TILING)
    for _ in range(3):  # on a busy machine a run may end before the signal comes
        shutil.rmtree(tmp_path)
        process = subprocess.Popen([*run, "-n", "1"], stderr=subprocess.PIPE, text=True)
        wait_for_shards(process, tmp_path / "synthetic.zarr", 1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        if process.returncode:
            break
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted; run the same command again to go on"
    subprocess.run([*run, "-n", "0", "-q"], check=True)
    assert tree(tmp_path / "synthetic.zarr") == tree(uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_what_all_processes_get_ends_the_run_in_one_line(
    slide_path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal sends Ctrl-C and its end to the process group; SLURM's --signal goes to a step."""
    run = command("run", slide_path, "-o", tmp_path, "-n", 1, "--device", "cpu", *TILING)
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_shards(process, tmp_path / "synthetic.zarr", 1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip() == "interrupted; run the same command again to go on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_workers_start_ends_the_run_and_them(
    slide_path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = command("run", slide_path, "-o", tmp_path, "-n", 2, "--device", "cpu")
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    workers = first_worker_processes(process)
    process.send_signal(number)
    process.send_signal(signal.SIGINT)  # someone is impatient
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted; run the same command again to go on\n")
    assert not psutil.wait_procs(workers, timeout=5)[1]


def first_worker_processes(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """As soon as there is one, which has hardly begun to import."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):  # one that ends just now, zombies included
            children = psutil.Process(process.pid).children(recursive=True)
            if any(child.ppid() != process.pid for child in children):  # forked by a child
                return children
        assert process.poll() is None, "the run ended before it started workers"
        time.sleep(0.01)
    pytest.fail("no worker process after two minutes")


def wait_for_shards(process: subprocess.Popen[str], store: Path, number: int) -> None:
    """Until so many shards are in (0: until the store is there), or the run has ended too early."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        shards = [path for path in store.glob("tiles/c/*/0/0/0") if path.is_file()]
        if store.exists() and len(shards) >= number:
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    pytest.fail("no shard after two minutes")


def test_both_real_slides_and_plain_zarr(real_slides: list[Path], tmp_path: Path) -> None:
    """JPEG and JPEG 2000; the stores are read by zarr alone, the slides by OpenSlide alone."""
    run = command("run", *real_slides, "--default-mpp", 0.25, "-o", tmp_path, "-n", 2, "-q")
    subprocess.run([*run, "--device", "cpu"], check=True)
    for path in real_slides:
        store = zarr.open_group(tmp_path / f"{path.stem}.zarr", mode="r")
        meta = store.attrs["wsi_norm"]
        assert meta["complete"]
        tiles, coords, flags = store["tiles"], store["coords"][:], store["flags"][:]
        assert tiles.dtype == np.uint8
        assert tiles.shape == (len(coords), 256, 256, 3)
        assert len(coords) == len(flags) > 40
        edge = round(256 * meta["tiling"]["downsample"])
        with openslide.OpenSlide(path) as slide:
            for row in range(0, len(coords), 9):
                if flags[row]:
                    continue
                x, y = coords[row].tolist()
                tile = tiles[row].astype(float).mean(axis=-1)
                here = likeness(tile, slide, x, y, edge)
                assert here > 0.85, f"{path.name}: tile {row} shows other tissue"
                for shift in (edge // 64, -edge // 64):
                    assert likeness(tile, slide, x + shift, y, edge) < here
                    assert likeness(tile, slide, x, y + shift, edge) < here


def likeness(tile: np.ndarray, slide: openslide.OpenSlide, x: int, y: int, edge: int) -> float:
    """Correlation of a tile's brightness with that of the slide's region at (x, y)."""
    source = slide.read_region((x, y), 0, (edge, edge)).convert("L").resize((256, 256))
    return float(np.corrcoef(np.asarray(source, float).ravel(), tile.ravel())[0, 1])
