"""What is printed where nothing can be: the work and its exit status stay as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wsi_norm_cli.output import say

SAY = """
import sys
from wsi_norm_cli.output import say
for number in range(3):
    say(f"line {number}")
    say(f"note {number}", err=True)
sys.exit(3)
"""

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def test_lines_go_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    say("a")
    say("b", err=True)
    assert capsys.readouterr() == ("a\n", "b\n")


@needs_full
def test_a_full_disk_is_named_once() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SAY], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    told = done.stderr.splitlines()
    assert told == [
        "cannot print to standard output: No space left on device",
        *(f"note {number}" for number in range(3)),
    ]


@needs_full
def test_where_nothing_can_be_printed_at_all() -> None:
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-c", SAY], stdout=full, stderr=full)
    assert done.returncode == 3


def test_a_closed_pipe_is_not_worth_a_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", SAY], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [b"note 0", b"note 1", b"note 2"]


@needs_full
@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_finished_run_stays_one(slide_path: Path, tmp_path: Path, stderr_too: bool) -> None:
    run = ["run", str(slide_path), "-o", str(tmp_path), "-n", "0", "--device", "cpu"]
    with FULL.open("w") as full:
        stderr = full if stderr_too else subprocess.PIPE
        command = [sys.executable, "-m", "wsi_norm", *run]
        done = subprocess.run(command, stdout=full, stderr=stderr, text=True)
    assert done.returncode == 0
    assert (tmp_path / "run.json").exists()
    if not stderr_too:
        told = done.stderr.splitlines()[-2:]  # before them, kernels may have been compiled
        assert [line.split()[0] for line in told] == ["[1/1]", "cannot"]


def test_a_line_is_one_line_that_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\x9b1m\nerror: c\rd\u202ee\u2028f\x07\x7f ä 漢")
    assert capsys.readouterr().out == (
        r"a\x1b[2Jb\x9b1m\nerror: c\rd\u202ee\u2028f\x07\x7f ä 漢" + "\n"
    )
