"""Where no worker process can be started: one line with the remedy, before or instead of dask's."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wsi_norm import RunConfig, run
from wsi_norm.errors import ConfigError
from wsi_norm.runner import cluster
from wsi_norm.runner.cluster import workers
from wsi_norm.runner.processes import ended, starts_processes

RUN = """
from wsi_norm import RunConfig, run
def go(_):
    return run({slide!r}, RunConfig(output={output!r}, workers={workers}, device="cpu")).exit_status
"""

UNGUARDED = RUN + "print(go(0))\n"

POOL = (
    RUN
    + """
from multiprocessing import get_context
if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        print(pool.map(go, [0])[0])
"""
)

REMEDY = "set workers=0 (--workers 0), which starts none"


def script(text: str, slide: Path, folder: Path, number: int, stdin: bool = False) -> list[str]:
    """Standard error of a script, line by line; it has to end with 0 if it starts no process."""
    text = text.format(slide=str(slide), output=str(folder / "out"), workers=number)
    file = folder / "script.py"
    file.write_text(text)
    told = [sys.executable, "-" if stdin else str(file)]
    done = subprocess.run(told, input=text if stdin else "", capture_output=True, text=True)
    assert done.returncode == (1 if number else 0), done.stderr
    assert number or done.stdout == "0\n"
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("text", "stdin", "words", "most_lines"),
    [
        (UNGUARDED, False, 'call it under `if __name__ == "__main__":`', 30),
        (UNGUARDED, True, "a script that is no file (<stdin>)", 10),
        (POOL, False, "inside the process 'SpawnPoolWorker-1' of a pool", 40),
    ],
    ids=["no main guard", "standard input", "a pool"],
)
def test_a_script_reads_the_remedy(
    slide_path: Path, tmp_path: Path, text: str, stdin: bool, words: str, most_lines: int
) -> None:
    """The last line of a script's traceback, which the script itself could print alone."""
    lines = script(text, slide_path, tmp_path, 2, stdin)
    assert lines[-1].startswith("wsi_norm.errors.ConfigError: run() ")
    assert words in lines[-1]
    assert REMEDY in lines[-1]
    assert len(lines) <= most_lines
    assert not any("distributed" in line for line in lines)


@pytest.mark.parametrize(("text", "stdin"), [(UNGUARDED, True), (POOL, False)])
def test_the_remedy_works(slide_path: Path, tmp_path: Path, text: str, stdin: bool) -> None:
    assert script(text, slide_path, tmp_path, 0, stdin) == []


def test_without_a_folder_for_temporary_files(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a read-only container: worker processes need one, a run without them does not."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(ConfigError, match="TMPDIR, or set workers=0"):
        run(slide_path, RunConfig(output=tmp_path, workers=1))
    assert run(slide_path, RunConfig(output=tmp_path, workers=0, device="cpu")).exit_status == 0


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os._exit(7)", "ended with exit status 7 while it started"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL (out of memory?) while it started"),
        ("raise OSError('no such library')", "worker processes cannot be started: no such library"),
    ],
)
def test_a_worker_that_does_not_start_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, words: str
) -> None:
    (tmp_path / "ends_at_once.py").write_text(f"import os\n{end}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cluster, "PRELOAD", ["ends_at_once"])
    with pytest.raises(ConfigError) as caught, workers(RunConfig(workers=2, device="cpu")):
        pass
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_few_open_files_are_said_before_dask_fails_of_them() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (32, 32))\n"
        "from wsi_norm.runner.processes import check_processes; check_processes()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ConfigError: open files are limited to 32 (ulimit -n)" in done.stderr


def test_what_a_status_means() -> None:
    assert "fewer --workers, more memory, or --workers 0" in ended(-9)
    assert "import this script" in ended(113)


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        ({}, True),
        ({"workers": 1}, True),
        ({"workers": 0}, False),
        ({"gpus": (0,)}, True),
        ({"gpus": (0,), "workers": 0}, True),
        ({"scheduler": "tcp://h:1"}, False),
        ({"cluster": Path("c.yaml")}, False),
    ],
)
def test_which_runs_start_processes_here(settings: dict[str, object], starts: bool) -> None:
    assert starts_processes(RunConfig.model_validate(settings)) == starts
