"""Work in this process: no dask, one task after the other, interrupted between two of them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wsi_norm import RunConfig
from wsi_norm.runner.inline import Inline, is_inline

CONFIG = RunConfig(workers=0, device="cpu")


@pytest.mark.parametrize(
    ("settings", "inline"),
    [
        ({"workers": 0}, True),
        ({}, False),
        ({"workers": 1}, False),
        ({"workers": 0, "scheduler": "tcp://h:1"}, False),
        ({"workers": 0, "cluster": Path("c.yaml")}, False),
        ({"workers": 0, "gpus": (1,)}, False),
    ],
)
def test_which_runs_are_inline(settings: dict[str, object], inline: bool) -> None:
    assert is_inline(RunConfig.model_validate(settings)) == inline


def test_one_thread_takes_one_task_after_the_other() -> None:
    seen: list[tuple[int, str]] = []

    def task(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        return number * number

    with Inline(CONFIG) as inline:
        assert sum(inline.nthreads().values()) == 1
        futures = [inline.submit(task, number, pure=False) for number in range(20)]
        assert [future.result() for future in futures] == [number**2 for number in range(20)]
    assert [number for number, _ in seen] == list(range(20))
    assert len({thread for _, thread in seen}) == 1
    assert threading.current_thread().name not in {thread for _, thread in seen}


def test_an_interrupt_lets_the_task_at_work_end_and_drops_the_others() -> None:
    begun, ended = [], []

    def task(number: int) -> None:
        begun.append(number)
        time.sleep(0.2)
        ended.append(number)

    def interrupted() -> None:
        with Inline(CONFIG) as inline:
            for number in range(50):
                inline.submit(task, number)
            while not begun:
                time.sleep(0.001)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert begun == ended
    assert len(ended) <= 2


def test_neither_dask_nor_torch_is_even_imported(slide_path: Path, tmp_path: Path) -> None:
    """One thread of this process, and kernels on a CPU: the second of PyTorch is saved."""
    script = (
        "import sys\n"
        "from wsi_norm import RunConfig, run\n"
        f"config = RunConfig(output={str(tmp_path)!r}, workers=0, device='cpu', mpp=0.55)\n"
        f"assert run({str(slide_path)!r}, config).exit_status == 0\n"
        "heavy = 'dask', 'distributed', 'tornado', 'torch', 'kornia'\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
