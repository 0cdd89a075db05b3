"""Everything that needs a CUDA device: whether it is right there, and how fast.

    python -m benchmarks.gpu [STEP ...] [--seconds 240] [--output bench/gpu]

Without a device it fails. Each step is a process of its own: it says what it found at once, and one
that fails, or takes longer than it may, is a line and stops nobody else. The kernels of the CPU are
compiled, and the slide is drawn, beside the first steps. A process has been seen to take
18 s to start.

It runs from a checkout (PYTHONPATH=.), without a network. Beside Python 3.11 to 3.13, PyTorch with
CUDA, Triton, Numba, NumPy, SciPy, Pillow, scikit-image, tifffile, pytest and hypothesis it needs
these as wheels: wsi-norm itself (its metadata alone), click, dask, distributed (cloudpickle,
fsspec, importlib-metadata, locket, msgpack, partd, psutil, sortedcontainers, tblib, toolz, tornado,
zict, zipp), google-crc32c, imagecodecs, Jinja2 (MarkupSafe), kornia (kornia_rs), openslide-bin,
openslide-python, pydantic (annotated-types, pydantic_core, typing-inspection), pydicom, PyYAML,
safetensors, simplejpeg, tiffslide, tqdm, universal-pathlib, zarr (donfig, numcodecs).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks import commands, slides
from benchmarks.machine import facts

PRESETS = "density", "paper"
TOO_LONG_S = {"layer": 60, "equal": 45, "memory": 40, "two": 60, "tests": 100, "pipeline": 170}
BATCHES = (256, 4096), (1024, 256)
"""Tile edge and tiles: 0.8 GB of bytes in, and as much out."""
SLIDE_EDGE, SLIDES = 6_000, 20


def say(*words: Any) -> None:
    print("  ", *words, flush=True)


def device() -> torch.device:
    return torch.device("cuda", 0)


def layer(output: Path) -> None:
    """Tiles per second, and GB/s of bytes in and out beside what a copy within the card reaches."""
    block = torch.empty(1 << 30, dtype=torch.uint8, device=device())
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    copy = 2 * _rate(torch.empty_like(block), block)
    there, back = _rate(block[: host.numel()], host), _rate(host, block[: host.numel()])
    say(f"copy within the card {copy:.0f} GB/s, to it {there:.1f}, from it {back:.1f}")
    del block
    for preset in PRESETS:
        for edge, count in BATCHES:
            _layer(preset, edge, count, copy)


def _layer(preset: str, edge: int, count: int, copy: float) -> None:
    tiles = stained(64, edge)[np.arange(count) % 64]
    statistics = normalizer(preset, "torch", "cpu").measure(tiles[:2])
    start = time.perf_counter()
    kernel, plain = (normalizer(preset, engine, "cuda") for engine in ("kernel", "torch"))
    on_gpu = kernel._on_gpu
    parameters = on_gpu.parameters(tiles, statistics, None)[0].to(device())
    host = torch.tensor(tiles).pin_memory()
    there, back = host.to(device()), torch.empty_like(host, pin_memory=True)
    on_gpu.transform(there, parameters)
    torch.cuda.synchronize()
    say(f"{preset}, {edge} px, {count} tiles: first call {time.perf_counter() - start:.1f} s")

    def rate(what: str, tiles_of: int, work: Callable[[], Any]) -> None:
        per_s = tiles_of / _seconds(work)
        moved = per_s * 6 * edge**2 / 1e9
        say(f"  {what:38} {per_s:10,.0f} tiles/s {moved:7.1f} GB/s = {100 * moved / copy:5.1f} %")

    rate("Triton, on the device", count, lambda: on_gpu.transform(there, parameters))
    rate(
        "Triton, from pinned memory and back",
        count,
        lambda: _there_and_back(on_gpu, host, there, back, parameters),
    )
    some = max(1, 256 * 256 * 64 // edge**2)
    shard = tiles[:some]
    rate("Triton, a shard in and out", some, lambda: kernel(shard, statistics))
    rate("  of it on the host", some, lambda: _on_host(kernel, shard))
    rate("torch, on the device", some, lambda: _by_torch(plain, there[:some], statistics))
    if (preset, edge) == (PRESETS[-1], 1024):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            on_gpu.transform(there, parameters)
            torch.cuda.synchronize()
        found = sorted(profile.key_averages(), key=lambda x: -x.device_time_total)[:8]
        say("  where:", "; ".join(f"{x.key[:40]} {x.device_time_total:.0f} us" for x in found))


def _rate(target: torch.Tensor, source: torch.Tensor) -> float:
    """GB/s of a copy."""
    seconds = _seconds(lambda: target.copy_(source, non_blocking=True))
    return source.numel() / seconds / 1e9


def _there_and_back(on_gpu: Any, host: Any, there: Any, back: Any, parameters: Any) -> None:
    there.copy_(host, non_blocking=True)
    back.copy_(on_gpu.transform(there, parameters), non_blocking=True)


def _on_host(kernel: Any, tiles: np.ndarray) -> None:
    """Copies and looks for fill, by one thread: what a run's threads do beside each other."""
    host = kernel._host(tiles).numpy()
    out = host.copy()
    kernel._on_gpu.keep(host, out, np.ones(len(tiles), np.bool_))


@torch.inference_mode()
def _by_torch(plain: Any, tiles: torch.Tensor, statistics: Any) -> None:
    from wsi_norm.tensors import to_levels

    x = tiles.permute(0, 3, 1, 2).float() / 255
    to_levels(plain.layer.normalize(x, statistics)[0])


def _seconds(work: Callable[[], Any], least_s: float = 0.4) -> float:
    """Median seconds of a call, the device's work included."""
    work()
    torch.cuda.synchronize()
    times: list[float] = []
    while sum(times) < least_s or len(times) < 3:
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def equal(output: Path) -> None:
    """torch and Triton on the device, the kernels of the CPU: differences in grey levels."""
    from tests.normalizers.test_fused import DEGENERATE, MODES, TILES

    tiles = [*DEGENERATE.values(), *TILES]
    for preset in PRESETS:
        cpu = normalizer(preset, "kernel", "cpu")
        kernel, plain = (normalizer(preset, engine, "cuda") for engine in ("kernel", "torch"))
        say(f"{preset}: engines", cpu.engine, kernel.engine, plain.engine)
        for mode, (statistics, white) in MODES.items():
            white = white or (statistics.white if statistics else (0.95, 0.94, 0.93))
            done = [
                [made.normalize(tile[None], statistics, white) for tile in tiles]
                for made in (cpu, kernel, plain)
            ]
            for name, one, other in (
                ("Triton - CPU", 1, 0),
                ("torch - CPU", 2, 0),
                ("Triton - torch", 1, 2),
            ):
                pairs = list(zip(done[one], done[other], strict=True))
                away = np.concatenate([np.abs(a[0].astype(int) - b[0]).ravel() for a, b in pairs])
                usable = sum((a[1] != b[1]).any() for a, b in pairs)
                say(
                    f"  {mode:18} {name:15} largest {away.max()} levels, equal "
                    f"{100 * (away == 0).mean():.4f} % of {away.size:,}, usable differs {usable}"
                )


def tests(output: Path) -> None:
    """The tests that a machine without a device skips, and the kernels' own on the device."""
    bare = ["-c", os.devnull, "--rootdir", ".", "--import-mode=importlib", "-p", "no:cacheprovider"]
    chosen = ["-q", "--no-header", "-rs", "-k", "gpu", "tests/normalizers"]
    subprocess.run([sys.executable, "-m", "pytest", *bare, *chosen], check=True)


def memory(output: Path) -> None:
    """A batch that does not fit is halved; what comes out is the same."""
    tiles = stained(48, 1024)
    for engine, preset, cap_gib in (
        ("kernel", "density", 0.1),
        ("kernel", "paper", 0.2),
        ("torch", "density", 2.0),
    ):
        made = normalizer(preset, engine, "cuda")
        statistics = made.measure(tiles[:1])
        expected = made(tiles, statistics)
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(cap_gib * 2**30 / total)
        made.batch_size = len(tiles)
        start = time.perf_counter()
        same = (made(tiles, statistics) == expected).mean()
        torch.cuda.set_per_process_memory_fraction(1.0)
        say(
            f"{engine} {preset}: {len(tiles)} tiles of 1024 px in {cap_gib} GiB: batch "
            f"{made.batch_size}, {time.perf_counter() - start:.2f} s, equal {100 * same:.4f} %"
        )
        assert made.batch_size < len(tiles), "nothing was halved"
        free = torch.cuda.mem_get_info()[0]
        filler = torch.empty(max(0, free - (3 << 29)), dtype=torch.uint8, device=device())
        made.batch_size = None
        same = (made(tiles, statistics) == expected).mean()
        say(f"  with {free - filler.numel() >> 20} MiB free: equal {100 * same:.4f} %")
        del filler
        torch.cuda.empty_cache()


def two(output: Path) -> None:
    """Two processes on one card beside one alone: arrays in and out."""
    command = [sys.executable, "-m", "benchmarks.gpu", "work", "--step"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    say("both are ready")
    for processes in (running[:1], running):
        for process in processes:
            print("go", file=process.stdin, flush=True)
        rates = [float(process.stdout.readline()) for process in processes]
        say(f"{len(rates)} processes: {sum(rates):,.0f} tiles/s", [round(rate) for rate in rates])
    for process in running:
        process.communicate()


def work(output: Path) -> None:
    """What each of them does, told to: four threads normalise 64 tiles of 256 px at a time."""
    from concurrent.futures import ThreadPoolExecutor

    tiles, made = stained(64, 256), normalizer("density", "kernel", "cuda")
    statistics = made.measure(tiles[:8])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: made(tiles, statistics), range(16)))
        print("ready", flush=True)
        for _ in sys.stdin:
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < 3:
                list(pool.map(lambda _: made(tiles, statistics), range(16)))
                done += 16 * len(tiles)
            print(done / (time.perf_counter() - start), flush=True)


def pipeline(output: Path) -> None:
    """The whole run over a synthetic slide, several times."""
    slide = output / "slides" / f"{SLIDE_EDGE}.svs"
    waited = time.perf_counter()
    while not slide.exists():
        if time.perf_counter() - waited > 30:
            raise RuntimeError("the slide is not drawn yet")
        time.sleep(0.2)
    cores = facts()["cores"]
    for where, workers, settings in (
        ("cuda", None, {}),
        ("cpu", cores, {}),
        ("cpu", cores, {"normalizer": "none"}),
    ):
        answer = commands.run(
            slides.copies(slide, SLIDES),
            output / "stores",
            workers,
            timeout_s=45,
            device=where,
            mpp=slides.MPP_UM,
            **settings,
        )
        what = f"run --device {where} {settings or ''}"
        if "failed" in answer:
            say(f"{what}: {answer['failed']}")
            continue
        say(
            f"{what}: {answer['tiles']} tiles, {answer['tiles_per_s']:,.0f} tiles/s steady, "
            f"{answer['whole_tiles_per_s']:,.0f} of the whole, {answer['cpu_ms_per_tile']:.2f} ms "
            f"of CPU a tile, first tiles after {answer['start_s']:.1f} s, "
            f"{answer['worker_mb']:.0f} MB a worker"
        )


STEPS = {step.__name__: step for step in (layer, equal, tests, memory, two, pipeline)}


def prepare(output: Path) -> None:
    """Beside the first steps: compile the kernels of the CPU, draw the slide."""
    start = time.perf_counter()
    drawing = threading.Thread(target=slides.slide, args=(output, SLIDE_EDGE))
    drawing.start()
    for preset in PRESETS:
        normalizer(preset, "kernel", "cpu").warm_up()
    say(f"CPU kernels ready in {time.perf_counter() - start:.1f} s")
    drawing.join()
    say(f"slide drawn in {time.perf_counter() - start:.1f} s")


def stained(count: int, edge: int) -> np.ndarray:
    """Haematoxylin and eosin beside glass, uint8 (count, edge, edge, 3)."""
    rng = np.random.default_rng(0)
    few = min(count, 4)
    amount = rng.random((few, edge, edge, 1), np.float32)
    colour = np.array([70, 40, 110]) * amount + np.array([215, 150, 190]) * (1 - amount)
    tiles = (colour + 12 * rng.standard_normal(colour.shape, np.float32)).clip(0, 255)
    glass = np.array([242, 240, 238]) + rng.integers(-1, 2, tiles[:, : edge // 5].shape)
    tiles[:, : edge // 5] = glass  # a scanner's: an edge of one colour would be taken for padding
    return tiles.astype(np.uint8)[np.arange(count) % few]


def normalizer(preset: str, engine: Any, where: str) -> Any:
    from wsi_norm.lstainnorm.checkpoint import load_checkpoint
    from wsi_norm.normalizers.engine import Normalizer

    return Normalizer(load_checkpoint(preset), where, engine=engine)


def _go(name: str, output: Path, limit_s: float) -> bool:
    print(f"== {name}", flush=True)
    start = time.perf_counter()
    step = _started(name, output)
    try:
        status = step.wait(limit_s)
        failed = f"failed with status {status}" if status else ""
    except subprocess.TimeoutExpired:
        failed = f"not done in {limit_s:.0f} s"
    finally:
        _end(step)
    print(f"== {name}: {failed or 'done'}, {time.perf_counter() - start:.1f} s", flush=True)
    return not failed


def _started(name: str, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.gpu", name, "--step", "--output", str(output)]
    return subprocess.Popen(command)


def _end(step: subprocess.Popen[bytes]) -> None:
    """With all that it started: none may hold the device, or speak, after it."""
    if step.poll() is not None:
        return
    started = psutil.Process(step.pid)
    for process in (*started.children(recursive=True), started):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    step.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}; all")
    parser.add_argument("--seconds", type=float, default=240, help="for all steps together")
    parser.add_argument("--output", type=Path, default=Path("bench/gpu"))
    parser.add_argument("--step", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hidden = {"prepare": prepare, "work": work}
    if unknown := set(arguments.steps) - set(STEPS) - set(hidden):
        parser.error(f"no step {sorted(unknown)[0]!r} (known: {', '.join(STEPS)})")
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device, and PyTorch built for it: none here")
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    if arguments.step:
        (STEPS | hidden)[arguments.steps[0]](output)
        return
    start = time.perf_counter()
    print(torch.cuda.get_device_name(), json.dumps(facts()), flush=True)
    beside = _started("prepare", output)
    good = True
    for name in arguments.steps or STEPS:
        left = arguments.seconds - (time.perf_counter() - start)
        if left < 3:
            print(f"== {name}: no time left", flush=True)
            good = False
            continue
        good &= _go(name, output, min(left, TOO_LONG_S[name]))
    _end(beside)
    print(f"== {'all done' if good else 'NOT ALL DONE'}, {time.perf_counter() - start:.0f} s")
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
