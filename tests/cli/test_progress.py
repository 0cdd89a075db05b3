"""What is shown of a run where no terminal is: a line per slide as it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wsi_norm_cli import progress
from wsi_norm_cli.progress import Progress

from wsi_norm.report import SlideResult
from wsi_norm.runner import (
    CompilingKernels,
    ShardWritten,
    SlidePlanned,
    SlidesFound,
    WorkersBounded,
)

Lines = Callable[[], list[str]]


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the progress."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """What was printed since, all on stderr."""

    def read() -> list[str]:
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    return read


def slide(name: str, status: str, tiles: int = 0, **facts: object) -> SlideResult:
    return SlideResult(name, f"/s/{name}", f"/o/{name}", status, counts={"tiles": tiles}, **facts)  # type: ignore[arg-type]


def test_n_of_all_and_the_time_left(clock: Clock, lines: Lines) -> None:
    """Every slide that is left takes as long as those that were worked on; skipped ones do not."""
    with Progress(quiet=False, verbose=False) as show:
        show(SlidesFound(5))
        show(slide("a", "skipped", 3))
        assert lines() == ["[1/5] a: skipped, 3 tiles"]
        show(SlidePlanned("b", 7))
        show(ShardWritten("b", 7))
        assert lines() == []
        clock.now += 60
        show(slide("b", "done", 7))
        assert lines() == ["[2/5] b: done, 7 tiles; about 3 min 00 s left"]
        clock.now += 20
        show(slide("c", "failed", error="/s/c: empty; copy it again"))
        assert lines() == [
            "error: /s/c: empty; copy it again",
            "[3/5] c: failed, 0 tiles; about 1 min 20 s left",
        ]
        clock.now += 1
        show(slide("d", "damaged", 2, warnings=("damaged: a little",)))
        assert lines() == [
            "warning: /s/d: damaged: a little",
            "[4/5] d: damaged, 2 tiles; about 27.0 s left",
        ]
        show(slide("e", "empty"))
        assert lines() == ["[5/5] e: empty, 0 tiles"]


def test_an_interrupted_run_does_not_list_what_is_left(lines: Lines) -> None:
    with Progress(quiet=False, verbose=False) as show:
        show(SlidesFound(2000))
        for number in range(2000):
            show(slide(str(number), "interrupted", error="not finished; run the command again"))
    assert lines() == []


def test_quiet_is_errors_alone(lines: Lines) -> None:
    with Progress(quiet=True, verbose=False) as show:
        show(SlidesFound(2))
        show(slide("a", "done", 3))
        show(slide("b", "failed", error="/s/b: no"))
    assert lines() == ["error: /s/b: no"]


def test_a_terminal_has_a_bar_instead(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    with Progress(quiet=False, verbose=False) as show:
        show(SlidesFound(2))
        show(slide("a", "done", 3))
    assert not any("[1/2]" in line for line in lines())


def test_what_is_waited_for_and_bounded_is_a_line(lines: Lines) -> None:
    for quiet, said in (
        (False, ["[0/0] compiling kernels, once per machine (some seconds)", "2"]),
        (True, []),
    ):
        with Progress(quiet=quiet, verbose=False) as show:
            show(CompilingKernels())
            show(WorkersBounded("2"))
        assert lines() == said
