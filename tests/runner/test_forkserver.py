"""What workers are forked from: quiet, deaf, of one thread, and never longer there than the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver as standard
from pathlib import Path

import psutil
import pytest

from tests.faults.commands import wait_for
from wsi_norm import RunConfig
from wsi_norm.runner import forkserver
from wsi_norm.runner.cluster import workers
from wsi_norm.runner.forkserver import fork_server, serves

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has one")

CONFIG = RunConfig(workers=1, device="cpu")
DEAF = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
LIMIT_S = 60


def test_workers_are_its_children_and_are_replaced_with_it() -> None:
    with fork_server(CONFIG), workers(CONFIG) as client:
        worker = psutil.Process(client.submit(os.getpid).result(timeout=LIMIT_S))
        server = worker.parent()
        assert server is not None
        assert server.ppid() == os.getpid()
        assert server.num_threads() == 1  # else a lock may be held as it forks
        assert "forkserver" in server.cmdline()[-1]
        assert "spawn_main" in worker.cmdline()[2]
        for process in (server, worker):
            blocked = int(status(process, "SigBlk"), 16)
            assert all(blocked >> (number - 1) & 1 for number in DEAF)
        shared = client.submit(eval, "'numba' in __import__('sys').modules", pure=False)
        assert shared.result(timeout=LIMIT_S) is True
        (address,) = client.nthreads()
        server.kill()
        assert wait_for(lambda: client.nthreads().keys() - {address})
        assert client.submit(os.getpid, pure=False).result(timeout=LIMIT_S) != worker.pid
        (line,) = client.news()
        assert line.startswith("a worker process was ended with the process it was forked from")
    assert not server.is_running()
    assert standard._forkserver._forkserver_pid is None  # type: ignore[attr-defined]


def status(process: psutil.Process, name: str) -> str:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return value


def test_it_has_the_environment_that_workers_are_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "PRELOAD", ["os"])
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not serves({})
    with fork_server(CONFIG):
        assert serves({"OMP_NUM_THREADS": "3", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)})
        assert not serves({"OMP_NUM_THREADS": "1"})
        with fork_server(CONFIG):
            assert serves({})
        assert serves({})
        assert "MALLOC_TRIM_THRESHOLD_" not in os.environ
    assert not serves({})


@pytest.mark.parametrize(
    "settings", [{"workers": 0}, {"gpus": (0,)}, {"device": "cuda"}, {"scheduler": "tcp://h:1"}]
)
def test_runs_that_do_without(settings: dict[str, object]) -> None:
    with fork_server(RunConfig.model_validate(settings)):
        assert not serves({})


def test_one_of_the_caller_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard._forkserver, "_forkserver_pid", os.getpid())  # type: ignore[attr-defined]
    with fork_server(CONFIG):
        assert not serves({})


STOPPED = """
import os, signal, time
from multiprocessing import forkserver as standard
from wsi_norm import RunConfig
from wsi_norm.runner import forkserver
if __name__ == "__main__":
    with forkserver.fork_server(RunConfig(workers=1, device="cpu")):
        server = standard._forkserver._forkserver_pid
        # It asks to end with this process before it imports anything else.
        while "llvmlite" not in open(f"/proc/{server}/maps").read():
            time.sleep(0.01)
        os.kill(server, signal.SIGSTOP)
        print("it stands still", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_a_killed_run_even_if_it_stands_still(tmp_path: Path) -> None:
    """Its standard output is the run's, and closed when both are gone."""
    file = tmp_path / "run.py"
    file.write_text(STOPPED)
    done = subprocess.run([sys.executable, file], capture_output=True, timeout=LIMIT_S)
    assert (done.stdout, done.returncode) == (b"it stands still\n", -signal.SIGKILL)
