"""What this process may use, by files of the kernel as containers have them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from wsi_norm import machine
from wsi_norm.errors import ConfigError
from wsi_norm.machine import (
    COMMAND_BYTES,
    WORKER_BYTES,
    available_cores,
    default_workers,
    gpu_threads,
    malloc_environment,
    memory_bytes,
    peak_memory_bytes,
    resolve_device,
    versions,
)


def kernel(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root with `proc/self/cgroup` and what lies below `sys/fs/cgroup`."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def quota_v1(group: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": str(quota), f"{group}/cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("", {}, 8),
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/\n", {"cpu.max": "350000 100000"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000"}, 8),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "40000 20000"}, 2),
        ("0::/job/step\n", {"job/step/cpu.max": "100000 50000", "job/cpu.max": "50000 10000"}, 2),
        ("0::/job\n", {"other/cpu.max": "100000 100000"}, 8),
        ("4:cpu,cpuacct:/docker/1f\n1:name=systemd:/\n", quota_v1("cpu/docker/1f", 400_000), 4),
        ("4:cpu,cpuacct:/docker/1f\n", quota_v1("cpu", 200_000), 2),
        ("4:cpu:/\n", quota_v1("cpu", -1), 8),
        ("3:cpuacct:/\n", quota_v1("cpu", 200_000), 8),
        ("5:memory:/a\n4:cpu:/a\n0::/\n", quota_v1("cpu/a", 150_000, 50_000), 3),
    ],
)
def test_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], cores: int
) -> None:
    """Of eight that the scheduler gives."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2, 10)), raising=False)
    assert available_cores(kernel(tmp_path, groups, files)) == cores


def test_cores_without_a_scheduler_that_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, cores in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert available_cores(tmp_path) == cores


def test_cores_here() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


GIB = 1 << 30
MACHINE = "MemTotal: 16777216 kB\nMemFree: 99 kB\n"
UNLIMITED_V1 = "9223372036854771712"  # what version 1 says where there is no limit


@pytest.mark.parametrize(
    ("groups", "files", "gib"),
    [
        ("", {}, 16),
        ("0::/\n", {"memory.max": "max"}, 16),
        ("0::/\n", {"memory.max": str(8 * GIB)}, 8),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(2 * GIB)}, 2),
        ("0::/\n", {"memory.max": str(64 * GIB)}, 16),
        ("7:memory:/a\n", {"memory/a/memory.limit_in_bytes": str(4 * GIB)}, 4),
        ("7:memory:/a\n", {"memory/memory.limit_in_bytes": str(4 * GIB)}, 4),
        ("7:memory:/a\n", {"memory/a/memory.limit_in_bytes": UNLIMITED_V1}, 16),
        ("7:cpu:/a\n", {"memory/a/memory.limit_in_bytes": str(4 * GIB)}, 16),
    ],
)
def test_memory(tmp_path: Path, groups: str, files: dict[str, str], gib: int) -> None:
    """Of a machine with 16 GiB."""
    root = kernel(tmp_path, groups, files)
    (root / "proc" / "meminfo").write_text(MACHINE)
    assert memory_bytes(root) == gib * GIB


def test_memory_here(tmp_path: Path) -> None:
    assert memory_bytes() <= psutil.virtual_memory().total
    assert memory_bytes(tmp_path) == np.inf


@pytest.mark.parametrize(
    ("cores", "memory", "workers"),
    [
        (4, 8 * GIB, 4),
        (4, COMMAND_BYTES + 4 * WORKER_BYTES, 4),
        (4, COMMAND_BYTES + 4 * WORKER_BYTES - 1, 3),
        (64, 16 * GIB, (16 * GIB - COMMAND_BYTES) // WORKER_BYTES),
        (64, GIB // 2, 1),
        (1, GIB // 2, 1),
    ],
)
def test_workers_are_as_many_as_cores_where_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, workers: int
) -> None:
    monkeypatch.setattr("wsi_norm.machine.available_cores", lambda _: cores)
    number, why = default_workers(kernel(tmp_path, "0::/\n", {"memory.max": str(memory)}))
    assert number == workers
    assert (why is None) == (number == cores)
    if why is not None:
        assert f"{workers} worker process" in why
        assert f"for {cores} cores: {memory / GIB:.1f} GiB" in why
        assert "--workers" in why


def test_the_peak_is_at_least_what_is_held() -> None:
    held = np.ones(32 << 20, np.uint8)
    assert held.nbytes < psutil.Process().memory_info().rss <= peak_memory_bytes() * 1.01
    assert peak_memory_bytes() < psutil.virtual_memory().total


# --- devices


def test_the_cpu_is_there_always() -> None:
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:1", "", "CUDA", "mps", "0"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_without_cuda_the_error_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"'{name}'.*--device cpu"):
        resolve_device(name)
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)
def test_cuda_devices_by_index(monkeypatch: pytest.MonkeyPatch, name: str, index: int) -> None:
    monkeypatch.setattr(machine, "_may_have_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device(name) == f"cuda:{index}"
    with pytest.raises(ConfigError, match="only 2 CUDA"):
        resolve_device("cuda:2")


@pytest.mark.skipif(sys.platform != "linux", reason="devices have no files")
@pytest.mark.parametrize(
    ("node", "may_be"),
    [("nvidia0", True), ("nvidiactl", True), ("dxg", True), ("kfd", True), ("nvme0n1", False)],
)
def test_without_a_drivers_device_torch_is_not_asked(
    tmp_path: Path, node: str, may_be: bool
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / node).touch()
    assert machine._may_have_cuda(tmp_path) == may_be


@pytest.mark.parametrize(
    ("cores", "gpus", "threads"), [(1, 1, 4), (16, 1, 32), (16, 4, 8), (2, 8, 4), (128, 2, 32)]
)
def test_a_gpus_worker_has_twice_its_share_of_the_cores(
    cores: int, gpus: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_norm.machine.available_cores", lambda: cores)
    assert gpu_threads(gpus) == threads


# --- what is installed, and what is set


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert versions(("numpy", "no-such-package")) == {
        "numpy": np.__version__,
        "no-such-package": "absent",
    }


def test_freed_memory_is_kept_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the names of mallopt(3)."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert malloc_environment().keys() == {"MALLOC_TRIM_THRESHOLD_"}
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    found = malloc_environment()
    assert found.keys() == {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"}
    assert all(int(value) >= 1 << 28 for value in found.values())


def test_importing_it_costs_nothing() -> None:
    script = (
        "import sys, wsi_norm.machine\n"
        "loaded = {'torch', 'numpy', 'psutil', 'dask', 'zarr'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
