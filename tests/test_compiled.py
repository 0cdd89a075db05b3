"""Compiled once by many processes that start together, and all the same where that cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from wsi_norm import compiled

MODULE = """
import sys, time
from pathlib import Path
from numba.core import event
from wsi_norm.compiled import compiled, under_way

class Told(event.Listener):
    def on_start(self, told):
        print("compiling", under_way(), flush=True)
        if len(sys.argv) > 1:
            sys.stdin.readline()

    def on_end(self, told):
        pass

@compiled(nogil=True)
def twice(x):
    return 2 * x

event.register("numba:compile", Told())
print("ready", flush=True)
if len(sys.argv) == 1:
    sys.stdin.readline()
print(twice(21), under_way(), flush=True)
"""


class Process:
    """Another one, that compiles `twice`: at once and held there, or when it is told."""

    def __init__(self, folder: Path, *, held: bool = False, cache: str | None = "cache") -> None:
        (folder / "module.py").write_text(MODULE)
        self.process = subprocess.Popen(
            [sys.executable, folder / "module.py", *["held"] * held],
            env=os.environ | {"NUMBA_CACHE_DIR": str(folder / cache) if cache else ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.expect("ready")

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{line}\n"

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rest(self) -> list[str]:
        assert self.process.stdout is not None
        with self.process:
            return self.process.stdout.read().splitlines()


def test_of_two_processes_one_compiles_and_the_other_waits(tmp_path: Path) -> None:
    first, second = Process(tmp_path, held=True), Process(tmp_path)
    first.expect("compiling True")
    second.go_on()
    first.go_on()
    assert (first.rest(), second.rest()) == (["42 False"], ["42 False"])


def test_one_that_is_killed_as_it_compiles_holds_up_nobody(tmp_path: Path) -> None:
    first, second = Process(tmp_path, held=True), Process(tmp_path)
    first.expect("compiling True")
    second.go_on()
    os.kill(first.process.pid, signal.SIGKILL)
    assert second.rest() == ["compiling True", "42 False"]
    assert first.rest() == []


def test_what_was_compiled_beside_the_source_is_read_by_those_who_may_not_write_there(
    tmp_path: Path,
) -> None:
    """Numba itself looks into one folder: here another one than that of who compiled."""
    (beside := tmp_path / "__pycache__").mkdir()
    first = Process(tmp_path, held=True, cache=None)
    first.expect("compiling True")
    first.go_on()
    assert first.rest() == ["42 False"]
    assert list(beside.glob("module.twice-*.nbc"))
    second = Process(tmp_path)
    second.go_on()
    assert second.rest() == ["42 False"]
    assert not list((tmp_path / "cache").rglob("*.nbc"))


@pytest.mark.parametrize("why", ["no folder", "no lock", "too long"])
def test_where_it_cannot_wait_it_compiles_all_the_same(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    njit = numba.njit

    def no_folder(*signature: Any, **options: Any) -> Any:
        if why == "no folder" and options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*signature, **options)

    def locked(_: Any, **__: Any) -> bool:
        if why == "no lock":
            raise OSError(37, "No locks available")
        return False

    monkeypatch.setattr(numba, "njit", no_folder)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_locked", locked)
    monkeypatch.setattr(compiled, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(compiled, "_locks", set())

    @compiled.compiled(nogil=True)
    def successor(x: int) -> int:
        return x + 1

    assert successor(1) == 2


def test_importing_it_costs_nothing() -> None:
    script = "import sys, wsi_norm.compiled; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, "held"],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")},
        cwd=folder,
        input="\n\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def compile_once(folder: Path) -> None:
    process = Process(folder, held=True)
    process.expect("compiling True")
    process.go_on()
    assert process.rest() == ["42 False"]


def test_all_that_is_kept_can_be_loaded_ahead_and_nothing_is_compiled(tmp_path: Path) -> None:
    """As the process does that workers are forked from."""
    compile_once(tmp_path)
    source = (tmp_path / "module.py").read_text()
    script = (
        "import module_kept, wsi_norm.compiled as compiled\n"
        "compiled.load_kept()\n"
        "print(len(module_kept.twice.signatures), module_kept.twice.stats.cache_misses)\n"
    )
    kept = source[: source.index("event.register")]
    (tmp_path / "module_kept.py").write_text(kept)
    assert run(script, tmp_path) == "0 Counter()\n"
    run("import module_kept; module_kept.twice(21)", tmp_path)
    assert run(script, tmp_path) == "1 Counter()\n"


@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
def test_what_is_damaged_is_compiled_anew(tmp_path: Path, suffix: str) -> None:
    compile_once(tmp_path)
    (file,) = (tmp_path / "cache").rglob(f"*.{suffix}")
    file.write_bytes(file.read_bytes()[:40])
    assert run("import module", tmp_path) == "ready\ncompiling True\n42 False\n"
    assert run("import module", tmp_path) == "ready\n42 False\n"
