"""Seconds by stage, by a clock of the test's own."""

from types import SimpleNamespace

import pytest

from wsi_norm.stages import Seconds, Stage


def test_the_stages_in_their_order() -> None:
    assert list(Stage) == ["planning", "reading", "computing", "writing"]
    assert [f"{stage}" for stage in Stage] == list(Stage)


def clocks(monkeypatch: pytest.MonkeyPatch, wall: list[float], cpu: list[float]) -> None:
    """Let the clocks show these in turn."""
    shown = SimpleNamespace(perf_counter=iter(wall).__next__, thread_time=iter(cpu).__next__)
    monkeypatch.setattr("wsi_norm.stages.time", shown)


def test_time_is_added_to_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks(monkeypatch, wall=[10, 12, 20, 25, 30, 31], cpu=[1, 2, 5, 5.5, 6, 6.25])
    seconds = Seconds()
    with seconds.spent(Stage.READING):
        pass
    with seconds.spent(Stage.WRITING):
        pass
    with seconds.spent(Stage.READING):
        pass
    assert seconds == Seconds(
        {Stage.READING: 3, Stage.WRITING: 5}, {"reading": 1.25, "writing": 0.5}
    )


def test_time_counts_up_to_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks(monkeypatch, wall=[0, 4], cpu=[0, 3])
    seconds = Seconds()
    with pytest.raises(ZeroDivisionError), seconds.spent(Stage.COMPUTING):
        raise ZeroDivisionError
    assert seconds == Seconds({Stage.COMPUTING: 4}, {Stage.COMPUTING: 3})


def test_other_tasks_are_added_and_stay_as_they_are() -> None:
    own, other = Seconds({Stage.READING: 1}), Seconds({Stage.READING: 2, Stage.WRITING: 3}, {})
    own.add(other)
    own.add(Seconds(cpu={Stage.WRITING: 1}))
    assert own == Seconds({Stage.READING: 3, Stage.WRITING: 3}, {Stage.WRITING: 1})
    assert other == Seconds({Stage.READING: 2, Stage.WRITING: 3})
