"""The command's way in and out: one line per error on stderr, and the exit status of the contract.

Signals are taken before anything else is imported, so that they end the command in order from its
first moment to its last.
"""

from __future__ import annotations

import gc
import os
import sys

from wsi_norm.signals import ignore_signals, interrupt_on_signals

EXIT_UNFINISHED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

INTERRUPTED = "interrupted; run the same command again to go on"


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `wsi-norm`."""
    interrupt_on_signals(_end_now)
    try:
        status = _done(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        status = _interrupted()
        # Nothing more is said: reads of zarr that end half done would tell of it at length.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    ignore_signals()  # what is left to do is to end
    gc.freeze()  # to look for rubbish among all that goes now would take a third of a second
    sys.exit(status)


def exit_status(arguments: list[str]) -> int:
    """Do what a command line asks for in a process that goes on, and say what became of it."""
    try:
        return _done(arguments)
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    """Say so."""
    _said.append(INTERRUPTED)
    print(INTERRUPTED, file=sys.stderr, flush=True)
    return EXIT_INTERRUPTED


def _done(arguments: list[str]) -> int:
    """The exit status of a command that was not interrupted."""
    import io
    import traceback

    import click

    from wsi_norm.errors import ReportError, WsiNormError

    from .group import cli
    from .output import say, say_lines

    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no failure
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with cli.make_context("wsi-norm", list(arguments)) as context:  # click's `main` would
            status = cli.invoke(context)  # say more on an interrupt than one line
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        say(f"error: {error.format_message()}", err=True)
        return EXIT_USAGE
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except (WsiNormError, OSError, MemoryError, ImportError) as error:
        if not {"-v", "--verbose"}.isdisjoint(arguments):
            say_lines(traceback.format_exc(), err=True)
        said = str(error) if isinstance(error, WsiNormError) else _of_machine(error)
        say(f"error: {said}", err=True)
        usage = isinstance(error, WsiNormError) and not isinstance(error, ReportError)
        return EXIT_USAGE if usage else EXIT_UNFINISHED
    return status if isinstance(status, int) else 0


def _of_machine(error: OSError | MemoryError | ImportError) -> str:
    """What the machine refused: room on a disk, a file, memory."""
    if isinstance(error, MemoryError):
        return "out of memory; give the command more, or fewer --workers"
    if isinstance(error, ImportError):
        return f"{error} (too little memory, or a damaged installation; -v shows where)"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error} (-v shows where)"


_said: list[str] = []
"""That the command was interrupted, where that has been said."""


def _end_now() -> None:
    """End although something still holds the command; its worker processes end with it."""
    if not _said:
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(EXIT_INTERRUPTED)
