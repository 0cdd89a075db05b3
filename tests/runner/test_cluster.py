"""Where workers come from: processes, GPUs, a running scheduler, a described cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import psutil
import pytest
import torch
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker

from wsi_norm import RunConfig, run
from wsi_norm.errors import ConfigError
from wsi_norm.machine import available_cores, default_workers, gpu_threads
from wsi_norm.runner.cluster import (
    Workers,
    described_cluster,
    gpu_cluster,
    local_cluster,
    workers,
)
from wsi_norm.runner.crew import Crew
from wsi_norm.runner.processes import ResultLostError

LIMIT_S = 60


# Workers are asked through the standard library: they need not import this file.
def test_local_workers_have_one_compute_thread_and_keep_freed_memory() -> None:
    with workers(RunConfig(workers=1, device="cpu")) as client:
        assert sum(client.nthreads().values()) == 1
        assert client.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
        trim = client.submit(os.getenv, "MALLOC_TRIM_THRESHOLD_").result()
        imported = client.submit(eval, "'wsi_norm.pipeline' in __import__('sys').modules")
        assert imported.result() is True
    assert int(str(trim)) >= 1 << 24


@pytest.mark.parametrize("failed", [KilledWorker("prepare", None, 0), ConfigError("no")])
def test_a_result_whose_worker_died_is_lost(failed: Exception) -> None:
    """It was there; asked for, it is computed again, which kills that worker, or fails."""

    class Future:
        def result(self, timeout: float) -> None:
            raise failed

    with pytest.raises(ResultLostError):
        Workers(cast("Client", None)).result(Future(), 1)


def test_a_worker_process_that_stands_still_is_replaced_and_deaths_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsi_norm.runner.cluster.PRELOAD", [])  # it has nothing to do
    with workers(RunConfig(workers=1, device="cpu")) as client:
        first = client.submit(os.getpid).result()
        still = client.submit(signal.raise_signal, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(first).status() == psutil.STATUS_STOPPED)
        (address,) = client.nthreads()
        assert client.given() == {address: {still.key}}
        client.restart(address)
        wait_until(lambda: bool(client.nthreads().keys() - {address}))
        second = client.submit(os.getpid, pure=False).result(timeout=LIMIT_S)
        assert second != first
        assert client.news() == []  # who ordered it knows it
        (address,) = client.nthreads()
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: bool(client.nthreads().keys() - {address}))
        assert client.submit(os.getpid, pure=False).result(timeout=LIMIT_S) not in {first, second}
        (line,) = client.news()
        assert line.startswith("a worker process was ended by SIGKILL (out of memory?)")
        assert client.lost() is None


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_default_is_a_process_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    import wsi_norm.runner.cluster as module

    asked = {}
    monkeypatch.setattr(module, "LocalCluster", lambda **settings: asked.update(settings))
    local_cluster(RunConfig(device="cpu"), Crew())
    assert asked["n_workers"] == default_workers()[0] <= available_cores()
    assert asked["threads_per_worker"] == 1


def test_every_gpu_has_a_process_that_sees_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the workers is checked; no GPU is: there is none here."""
    monkeypatch.setattr("wsi_norm.runner.cluster.PRELOAD", [])  # they have nothing to do
    with gpu_cluster((0, 3), Crew()) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        threads = set(client.nthreads().values())
    assert sorted(seen.values()) == ["0", "3"]
    assert threads == {gpu_threads(2)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpus_that_are_not_there_are_an_error_and_no_fallback() -> None:
    with (
        pytest.raises(ConfigError, match="no CUDA device; use --device cpu"),
        workers(RunConfig(gpus=(0, 1))),
    ):
        pass


def test_a_running_scheduler_is_used(slide_path: Path, tmp_path: Path) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        settings = RunConfig(scheduler=cluster.scheduler_address, output=tmp_path, device="cpu")
        assert run([slide_path], settings).exit_status == 0


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import wsi_norm.runner.cluster as module

    monkeypatch.setattr(module, "CONNECT_SECONDS", 1)
    with (
        pytest.raises(ConfigError, match=r"tcp://127.0.0.1:9: no dask scheduler answers"),
        workers(RunConfig(scheduler="tcp://127.0.0.1:9")),
    ):
        pass


def test_a_scheduler_that_wants_a_certificate() -> None:
    """Where dask's configuration names none, that is one line."""
    with (
        pytest.raises(ConfigError, match=r"tls://127.0.0.1:9: no dask scheduler answers there"),
        workers(RunConfig(scheduler="tls://127.0.0.1:9")),
    ):
        pass


def test_a_cluster_can_be_described(slide_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "class: distributed.LocalCluster\n"
        "arguments: {n_workers: 1, threads_per_worker: 1, processes: false, "
        "dashboard_address: ':0'}\n"
    )
    settings = RunConfig(cluster=file, output=tmp_path / "out", device="cpu")
    assert run([slide_path], settings).exit_status == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class: nowhere.Cluster\n", "nowhere.Cluster cannot be imported"),
        ("class: distributed.NoSuch\n", "NoSuch cannot be imported"),
        ("classs: x\n", "unknown key 'classs'"),
        ("class: datetime.timedelta\narguments: {bogus_argument: 1}\n", "cannot be started"),
    ],
)
def test_a_wrong_description(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        described_cluster(file)
    assert str(file) in str(caught.value)


def listening() -> set[str]:
    """Addresses at which this process and those it started take connections."""
    own = psutil.Process()
    connections = [c for p in (own, *own.children(recursive=True)) for c in p.net_connections()]
    return {str(c.laddr.ip) for c in connections if c.status == psutil.CONN_LISTEN}


def test_nothing_listens_but_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches dask's ports can run code; neither its pages nor a GPU's workers are open."""
    before = listening()
    monkeypatch.setattr("wsi_norm.runner.cluster.gpu_threads", lambda gpus: 1)
    ours = local_cluster(RunConfig(workers=1, device="cpu"), Crew())
    with ours, gpu_cluster((0,), Crew()):
        assert listening() - before <= {"127.0.0.1"}
