"""Signals: what interrupts this process, and what the processes that it starts take notice of."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Executor

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when what started it ends."""

END_SECONDS = 3.5
"""What an interrupt has not ended in order by then is ended at once."""


def interrupt_on_signals(end: Callable[[], None], limit_s: float = END_SECONDS) -> None:
    """Let Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the work in order, and resumable; within a limit.

    SLURM sends SIGTERM at the time limit, or before it what `--signal` names; a terminal sends
    SIGHUP when it goes away. What this process was told to ignore (`nohup`) stays ignored. The
    first signal raises KeyboardInterrupt in the main thread; the next ones change nothing.

    Parameters
    ----------
    end
        Called in another thread `limit_s` after the first signal, if the process is still there:
        an interrupt can be lost (in a destructor, in native code), and what it ends can hang.
    limit_s
        Seconds.
    """
    taken = [number for number in _interrupts() if signal.getsignal(number) != signal.SIG_IGN]

    def interrupt(*_: Any) -> None:
        ignore_signals()
        raise KeyboardInterrupt

    came, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.detach(), warn_on_full_buffer=False)
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
    came: socket.socket, taken: frozenset[int], end: Callable[[], None], limit_s: float
) -> None:
    while number := came.recv(1):
        if number[0] in taken:
            threading.Event().wait(limit_s)
            end()
            return


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
