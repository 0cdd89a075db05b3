"""Whether processes can be started from here; what to say where they cannot."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile

from wsi_norm.config import RunConfig
from wsi_norm.errors import ConfigError
from wsi_norm.machine import open_files

UNGUARDED = 113
"""Exit status of a worker process that came upon `run` while it imported the calling script."""

UNKNOWN = 255
"""Exit status of a forked process whose fork server has ended."""

WORKER_NAME = "Dask Worker process"
"""How the names of dask's worker processes begin."""


class SchedulerGoneError(RuntimeError):
    """Dask's scheduler, who gives the work to workers, does not answer any more."""


class ResultLostError(RuntimeError):
    """A worker process died with the result of a task, before that was fetched."""


LEAST_FILES = 64
"""Open files without which dask does not start a worker, or says why not in many lines."""

INLINE = "set workers=0 (--workers 0), which starts none"


def starts_processes(config: RunConfig) -> bool:
    """Whether a run starts worker processes on this machine itself."""
    return not (config.scheduler or config.cluster) and (bool(config.gpus) or config.workers != 0)


def check_processes() -> None:
    """ConfigError where starting a worker process can only fail.

    A worker process imports the calling script. If that calls `run` without a main guard, `run` is
    now inside such a process, which ends here without a word: `ended` explains it to the user.
    """
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False):  # set while the script is imported
        if process.name.startswith(WORKER_NAME):
            os._exit(UNGUARDED)  # a fork server does not hand on the status of sys.exit
        raise ConfigError(_guard())
    if process.daemon:
        raise ConfigError(
            f"run() is inside the process {process.name!r} of a pool (multiprocessing, dask), "
            f"which may not start worker processes: {INLINE}, or call run() outside of the pool"
        )
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if script and getattr(main, "__spec__", None) is None and not os.path.exists(script):
        raise ConfigError(
            f"run() is called by a script that is no file ({script}), which worker processes "
            f"cannot import: save it, or {INLINE}"
        )
    files = open_files()
    if files < LEAST_FILES:
        raise ConfigError(
            f"open files are limited to {files:g} (ulimit -n), too few for worker processes: allow "
            f"{LEAST_FILES} or more, or {INLINE}"
        )
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ConfigError(
            "no folder for temporary files can be written, and worker processes need one: name "
            f"one by the environment variable TMPDIR, or {INLINE}"
        ) from error


def ended(status: int | None) -> str:
    """What a worker process's exit status at its start says, and what to do."""
    if status == UNGUARDED:
        return _guard()
    return (
        f"a worker process {how_it_ended(status)} while it started (fewer --workers, more memory, "
        "or --workers 0, which starts none)"
    )


def how_it_ended(status: int | None) -> str:
    """An exit status in words; None is that of a process that was not even started."""
    if status is None:
        return "could not be started"
    if status == UNKNOWN:
        return "was ended with the process it was forked from (out of memory?)"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name} (out of memory?)"
    return f"ended with exit status {status}"


def _guard() -> str:
    return (
        'run() starts worker processes, which import this script: call it under `if __name__ == "'
        f'__main__":`, or {INLINE}'
    )
