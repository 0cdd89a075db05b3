"""What commands print: a stream that cannot take it does not undo what a command has done."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

import click

from wsi_norm.text import shown


def say(text: str, err: bool = False) -> None:
    """Print a line on stdout or stderr; what would steer a terminal is shown escaped.

    A closed pipe or a full disk under it ends the printing, not the work: the stream takes nothing
    more, and a full disk is named once on stderr.
    """
    _echo(shown(text), err)


def say_lines(text: str, err: bool = False) -> None:
    """As `say`, line by line."""
    for line in text.splitlines():
        say(line, err)


def say_styled(text: str) -> None:
    """Print lines on stdout with the colours in them; foreign text in them is `shown` before."""
    _echo(text)


def _echo(text: str, err: bool = False) -> None:
    try:
        click.echo(text, err=err)
    except OSError as error:
        _give_up(sys.stderr.fileno() if err else sys.stdout.fileno())
        if not err and error.errno != errno.EPIPE:
            say(f"cannot print to standard output: {error.strerror}", err=True)


def on_terminal() -> bool:
    """Whether a person looks at stderr, where progress is shown."""
    return sys.stderr is not None and sys.stderr.isatty()


def _give_up(stream: int) -> None:
    """Let a file descriptor lead nowhere, so that what is still in its buffer harms nobody."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.closing(os.fdopen(nowhere, "wb")):
        os.dup2(nowhere, stream)
