"""What interrupts this process, and what the processes that it starts take notice of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wsi_norm.signals import deaf_thread

SENT_TO_ALL = [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
INTERRUPTS = [signal.SIGTERM, *SENT_TO_ALL]

HIT = "import signal, sys; signal.raise_signal(int(sys.argv[1])); print('alive')"

LIMIT_S = 20

pytestmark = pytest.mark.usefixtures("signals_heard")


def child_survives(number: int) -> bool:
    """Whether a process that is started now takes no notice of a signal."""
    child = [sys.executable, "-c", HIT, str(int(number))]
    return subprocess.run(child, capture_output=True, text=True).stdout == "alive\n"


@pytest.mark.parametrize("number", SENT_TO_ALL)
def test_what_is_started_in_a_deaf_thread_is_deaf_and_this_process_is_not(
    number: signal.Signals,
) -> None:
    with deaf_thread() as thread:
        assert thread.submit(child_survives, number).result()
        assert not thread.submit(child_survives, signal.SIGTERM).result()  # by which they are ended
        assert not child_survives(number)


def test_a_deaf_thread_is_waited_for_interruptibly() -> None:
    """The command is not deaf while it starts processes: what waits for them is interrupted."""
    with deaf_thread() as thread, subprocess.Popen(["sleep", "60"]) as long:
        waiting = thread.submit(long.wait)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            with pytest.raises(KeyboardInterrupt):
                waiting.result(timeout=LIMIT_S)
        finally:
            long.kill()


def script(text: str, *, limit: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """What becomes of a script whose signals are interrupts."""
    head = (
        "import os, signal, sys, threading\n"
        "from wsi_norm.signals import *\n"
        "def end():\n    os.write(1, b'ended')\n    os._exit(130)\n"
    )
    command = [sys.executable, "-c", head + text]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit)


@pytest.mark.parametrize("number", INTERRUPTS)
def test_a_signal_is_an_interrupt_and_the_next_ones_are_nothing(number: signal.Signals) -> None:
    done = script(
        "interrupt_on_signals(end)\n"
        f"try:\n    signal.raise_signal({int(number)}); print('nothing')\n"
        "except KeyboardInterrupt:\n"
        f"    for number in {[int(n) for n in INTERRUPTS]}: os.kill(os.getpid(), number)\n"
        "    print('in order')\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("in order\n", "", 0)


DROPPING = {
    "destructor": "Spins.__del__ = spin\ndo = Spins",
    "weakref": "def do():\n    spins = Spins(); watch = weakref.ref(spins, spin)",
    "collection": "gc.callbacks.append(spin)\ndo = gc.collect",
}


@pytest.mark.parametrize("where", DROPPING)
def test_an_interrupt_that_python_drops_is_raised_anew(where: str) -> None:
    """What is raised in a destructor or a callback would be told of and forgotten."""
    done = script(
        "import gc, time, weakref\n"
        "class Spins: pass\n"
        "def spin(*_):\n"
        "    until = time.monotonic() + 0.1\n"
        "    while time.monotonic() < until: pass\n"
        f"{DROPPING[where]}\n"
        "interrupt_on_signals(end)\n"
        "threading.Timer(0.53, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "until = time.monotonic() + 3\n"
        "try:\n"
        "    while time.monotonic() < until: do(); time.sleep(0.03)\n"
        "    print('lost')\n"
        "except KeyboardInterrupt:\n    print('in order')\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("in order\n", "", 0)


def test_what_else_python_drops_is_told_of_as_ever() -> None:
    done = script(
        "class Fails:\n    def __del__(self): raise OSError('gone')\n"
        "interrupt_on_signals(end)\nFails()\n"
    )
    assert "Exception ignored in" in done.stderr
    assert "OSError: gone" in done.stderr


def test_an_interrupt_that_is_lost_ends_the_process_all_the_same() -> None:
    """As in native code that drops it, or in what hangs as it is ended."""
    done = script(
        "interrupt_on_signals(end, 0.1)\n"
        "try:\n    signal.raise_signal(signal.SIGTERM)\nexcept KeyboardInterrupt:\n    pass\n"
        "threading.Event().wait()\n"
    )
    assert (done.stdout, done.returncode) == ("ended", 130)


def test_what_nohup_ignores_stays_ignored() -> None:
    done = script(
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "interrupt_on_signals(end, 0.1)\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        "print(signal.getsignal(signal.SIGHUP).name)\n"
    )
    assert (done.stdout, done.returncode) == ("SIG_IGN\n", 0)


PARENT = """
import multiprocessing, signal, sys, threading
from wsi_norm.signals import end_with_parent

def child(pipe):
    end_with_parent()
    pipe.send(None)
    if {stopped}:
        signal.raise_signal(signal.SIGSTOP)
    threading.Event().wait()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    context.Process(target=child, args=(its,)).start()
    mine.recv()
    print("up", flush=True)
    signal.raise_signal(signal.SIGKILL)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_ends_with_its_parent_even_if_that_is_killed(
    tmp_path: Path, stopped: bool
) -> None:
    """Its standard output is the parent's, and closed when both are gone."""
    file = tmp_path / "parent.py"
    file.write_text(PARENT.format(stopped=stopped))
    if stopped and sys.platform != "linux":
        pytest.skip("only Linux ends what stands still")
    done = subprocess.run([sys.executable, file], capture_output=True, timeout=LIMIT_S)
    assert (done.stdout, done.returncode) == (b"up\n", -signal.SIGKILL)
