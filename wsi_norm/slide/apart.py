"""A reader in a process of its own: if it crashes or never answers, that is one slide's failure.

A process serves one open slide at a time and is kept for the next, so that a run starts few. It
ends when its pipe closes, so never later than this process, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np

from wsi_norm.choices import imported
from wsi_norm.errors import UnreadableSlideError, WsiNormError
from wsi_norm.geometry import Level
from wsi_norm.location import Location
from wsi_norm.slide.diagnose import tifffile_complaints
from wsi_norm.slide.readers.base import RGB, Reader, ReducingReader

READER_SECONDS = 60.0
"""How long a reader may take to open a slide, or to read one region."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals to a whole process group that are for the process that asks: it stops in order."""


class ReaderApart:
    """A reader of `READERS` at work in another process; see `readers.base.ReducingReader`.

    Raises UnreadableSlideError where that process dies or does not answer for READER_SECONDS, be it
    on opening or on reading.

    Parameters
    ----------
    place
        Where the reader is, as `READERS.place` says.
    path
        The file.
    """

    def __init__(self, place: str, path: str) -> None:
        self._path = path
        self._process = _kept_or_new()
        try:
            facts = self._ask("open", place, path)
        except WsiNormError:
            self.close()
            raise
        self.name, self.block_px, self.version, self.metadata, self.reducible = facts

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3): a rectangle of level px that lies inside the level."""
        return self._received(self._ask("read", level, left, top, width, height))

    def reduced(
        self, level: Level, left: int, top: int, width: int, height: int, factor: int
    ) -> RGB | None:
        """See `readers.base.ReducingReader`; only of what is in `reducible`."""
        shape = self._ask("reduced", level, left, top, width, height, factor)
        return None if shape is None else self._received(shape)

    def close(self) -> None:
        """Close the file; the process waits for the next one."""
        if self._process.is_alive:
            with suppress(UnreadableSlideError):
                self._ask("close")
                _idle.append(self._process)

    def _received(self, shape: tuple[int, ...]) -> RGB:
        """The pixels that follow an answer."""
        pixels = np.empty(shape, np.uint8)
        with _crash_said(self._process, self._path):
            self._process.wait_for_answer()
            self._process.answers.recv_bytes_into(pixels.data.cast("B"))
        return pixels

    def _ask(self, *question: Any) -> Any:
        return _answered(self._process, self._path, *question)


def done_apart(do: Callable[..., Any], path: Location, *arguments: Any) -> Any:
    """What a function of this package makes of a path (and more), in a process that can be ended.

    It raises what the function raises, and UnreadableSlideError as `ReaderApart` does.
    """
    process = _kept_or_new()
    try:
        return _answered(process, str(path), "do", do, path, *arguments)
    finally:
        if process.is_alive:
            _idle.append(process)


def _answered(process: _Process, path: str, *question: Any) -> Any:
    with _crash_said(process, path):
        process.questions.send(question)
        process.wait_for_answer()
        answer = process.answers.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def _crash_said(process: _Process, path: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        process.abandon()
        raise UnreadableSlideError(
            f"{path}: its reader did not answer within {READER_SECONDS:g} s (a mount that is gone, "
            "or a damaged slide); run the same command again when the file can be read"
        ) from error
    except (EOFError, OSError) as error:  # its end of the pipes is closed
        raise UnreadableSlideError(
            f"{path}: its reader crashed ({process.end()}): the slide is damaged, "
            "or of a kind that the reader cannot bear; convert it, or leave it out"
        ) from error


class _Process:
    """A process that runs `serve`, and the pipes to it."""

    def __init__(self) -> None:
        asked, questions = os.pipe()
        answers, answered = os.pipe()
        # Not by multiprocessing, whose processes import the calling script.
        self._pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-c", "from wsi_norm.slide.apart import serve; serve()"],
            {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            file_actions=[(os.POSIX_SPAWN_DUP2, asked, 0), (os.POSIX_SPAWN_DUP2, answered, 1)],
            setsigmask=STOPS,
        )
        os.close(asked)
        os.close(answered)
        self.questions = Connection(questions, readable=False)
        self.answers = Connection(answers, writable=False)
        self._status: int | None = None
        _living.add(self)

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        self._wait(os.WNOHANG)
        return self._status is None

    def wait_for_answer(self) -> None:
        """Return when there is one; TimeoutError after READER_SECONDS."""
        if not self.answers.poll(READER_SECONDS):
            raise TimeoutError

    def abandon(self) -> None:
        """End it by force; what hangs in the kernel may not even die, and is not waited for."""
        os.kill(self._pid, signal.SIGKILL)
        self._close()
        self._status = signal.SIGKILL

    def end(self) -> str:
        """Let go of it; the words say how it ended."""
        self._close()
        self._wait()
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _close(self) -> None:
        _living.discard(self)
        self.questions.close()
        self.answers.close()

    def _wait(self, options: int = 0) -> None:
        if self._status is None:
            pid, status = os.waitpid(self._pid, options)
            self._status = status if pid else None


_living: set[_Process] = set()
"""All of them: else garbage collection may close their pipes before a slide is closed by them."""

_idle: list[_Process] = []
"""Processes that serve no slide just now."""


def end_idle() -> None:
    """End the processes that serve no slide."""
    while _idle:
        _idle.pop().end()


def _kept_or_new() -> _Process:
    with suppress(IndexError):  # another thread may be faster
        while process := _idle.pop():
            if process.is_alive:
                return process
            process.end()
    return _Process()


def serve() -> None:
    """Do as asked on standard input and answer on standard output, until there is no more."""
    questions, answers = Connection(os.dup(0)), Connection(os.dup(1))
    os.dup2(2, 1)  # what a library prints is no answer
    warnings.simplefilter("ignore")
    served = _Served()
    with suppress(EOFError):
        while True:
            question, *arguments = questions.recv()
            answer, pixels = _answer(getattr(served, question), *arguments)
            answers.send(answer)
            if pixels is not None:
                answers.send_bytes(pixels.data.cast("B"))


class _Served:
    """What can be asked for: what is to be pickled, and pixels, which are faster as they are."""

    def open(self, place: str, path: str) -> tuple[Any, None]:
        with tifffile_complaints():
            self._reader: Reader = imported(place)(path)
        facts = self._reader
        reducible = facts.reducible if isinstance(facts, ReducingReader) else {}
        return (facts.name, facts.block_px, facts.version, facts.metadata, reducible), None

    def do(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, None]:
        return function(*arguments), None

    def read(self, *region: Any) -> tuple[tuple[int, ...], RGB]:
        pixels = np.ascontiguousarray(self._reader.read(*region))
        return pixels.shape, pixels

    def reduced(self, *region: Any) -> tuple[tuple[int, ...] | None, RGB | None]:
        pixels = cast("ReducingReader", self._reader).reduced(*region)
        return None if pixels is None else pixels.shape, pixels

    def close(self) -> tuple[None, None]:
        with suppress(AttributeError):  # it was not opened
            self._reader.close()
            del self._reader
        return None, None


def _answer(do: Callable[..., tuple[Any, RGB | None]], *arguments: Any) -> tuple[Any, RGB | None]:
    """What comes of it, be it an exception: that is raised where it was asked."""
    try:
        return do(*arguments)
    except Exception as error:  # noqa: BLE001
        if not isinstance(error, WsiNormError):
            error.add_note(traceback.format_exc())
        return error, None
