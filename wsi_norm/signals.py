"""Signals: what interrupts this process, and what the processes that it starts take notice of."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Executor

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when what started it ends."""

END_SECONDS = 3.5
"""What an interrupt has not ended in order by then is ended at once."""

LOST = bytes([0])
"""No signal has this number: an interrupt was raised where Python drops what is raised."""

AGAIN_SECONDS = 0.01
"""What dropped an interrupt is over by then."""


def interrupt_on_signals(end: Callable[[], None], limit_s: float = END_SECONDS) -> None:
    """Let Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the work in order, and resumable; within a limit.

    SLURM sends SIGTERM at the time limit, or before it what `--signal` names; a terminal sends
    SIGHUP when it goes away. What this process was told to ignore (`nohup`) stays ignored. The
    first signal raises KeyboardInterrupt in the main thread; the next ones change nothing. One that
    is raised in a destructor or a callback, where Python drops it, is raised anew behind that.

    Parameters
    ----------
    end
        Called in another thread `limit_s` after the first signal, if the process is still there:
        an interrupt can be lost in native code, and what it ends can hang.
    limit_s
        Seconds.
    """
    taken = [number for number in _interrupts() if signal.getsignal(number) != signal.SIG_IGN]

    came, told = socket.socketpair()
    told.setblocking(False)
    due, drop = True, sys.unraisablehook

    def interrupt(*_: Any) -> None:
        nonlocal due
        if due:
            due = False
            raise KeyboardInterrupt

    def dropped(what: sys.UnraisableHookArgs) -> None:
        nonlocal due
        if what.exc_type is KeyboardInterrupt:
            due = True
            told.send(LOST)
        else:
            drop(what)

    sys.unraisablehook = dropped
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(came, frozenset(taken), end, limit_s))
    watch.daemon = True
    watch.start()
    for number in taken:
        signal.signal(number, interrupt)


def ignore_signals() -> None:
    """Take no notice any more of what interrupts: the work is being ended already.

    By a handler that does nothing: Python tells of a signal that came just before SIG_IGN.
    """
    for number in _interrupts():
        signal.signal(number, lambda *_: None)


@contextmanager
def deaf_thread() -> Iterator[Executor]:
    """A thread to start processes in that take no notice of Ctrl-C, SIGHUP and SIGUSR1.

    Terminals and SLURM send these to all processes at once, while they are for this one, which
    ends the others. Processes inherit what is blocked in the thread that starts them, so they are
    deaf from their first moment; the calling thread takes signals as before. Leaving the block
    waits for what the thread is doing.
    """
    from concurrent.futures import ThreadPoolExecutor  # where it is used: commands start fast

    with ThreadPoolExecutor(1, "wsi-norm-start", _be_deaf) as thread:
        yield thread


def end_with_parent() -> None:
    """Let this process, one of multiprocessing's, end as soon as the one that started it has.

    On Linux also where it stands still, and already when the thread that started it ends.
    """
    from multiprocessing import parent_process

    killed_with_parent()
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def killed_with_parent() -> None:
    """On Linux, have this process killed as soon as the thread that started it ends."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _watch(
    came: socket.socket, taken: frozenset[signal.Signals], end: Callable[[], None], limit_s: float
) -> None:
    """End the process a while after the first signal; raise anew what is dropped until then."""
    while number := came.recv(1):
        if number[0] in taken:
            break
    else:
        return
    until = time.monotonic() + limit_s
    while (left := until - time.monotonic()) > 0:
        came.settimeout(left)
        with suppress(TimeoutError):
            if came.recv(1) == LOST:
                time.sleep(AGAIN_SECONDS)
                _thread.interrupt_main(min(taken))
    end()


def _be_deaf() -> None:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    deaf = _signals("SIGINT", "SIGHUP", "SIGUSR1")
    signal.pthread_sigmask(signal.SIG_BLOCK, deaf)
    _start_tracker()
    signal.pthread_sigmask(signal.SIG_BLOCK, deaf)  # starting that has unblocked SIGINT


def _start_tracker() -> None:
    """Start multiprocessing's process that clears up after killed ones: without a line on it."""
    from multiprocessing import resource_tracker

    before, quiet = os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"
    with changed_environment({"PYTHONWARNINGS": f"{before},{quiet}" if before else quiet}):
        resource_tracker.ensure_running()


def _interrupts() -> list[signal.Signals]:
    return _signals("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


def _signals(*names: str) -> list[signal.Signals]:
    """Those that there are on this system."""
    return [signal.Signals[name] for name in names if hasattr(signal, name)]
