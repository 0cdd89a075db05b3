"""Paths that never answer. A process that is told to pass over some stands for a dead mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsi_norm.slide import reach
from wsi_norm.slide.reach import silent


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a path with "dead" in it waits for ever."""
    look = reach.LOOK.replace(
        "        try:\n",
        "        while b'dead' in places[number]:\n"
        "            threading.Event().wait()\n"
        "        try:\n",
    )
    assert look != reach.LOOK
    monkeypatch.setattr(reach, "LOOK", look)


def test_what_answers_is_not_silent_be_it_there_or_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.svs").write_bytes(b"")
    (tmp_path / "line\nbreak").write_bytes(b"")
    places = [tmp_path, tmp_path / "gone", Path("/dev/zero"), *tmp_path.iterdir()]
    assert silent(places) == set()
    assert silent([]) == set()


@pytest.mark.usefixtures("dead")
def test_those_that_do_not_answer_are_found_among_the_others(tmp_path: Path) -> None:
    others = [tmp_path / f"{number}.svs" for number in range(5)]
    lost = [tmp_path / f"dead{number}.svs" for number in range(5)]
    assert silent([*others, *lost, *others], seconds=0.5) == set(lost)


@pytest.mark.usefixtures("dead")
def test_more_of_them_than_are_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "LOOK", reach.LOOK.replace(f"[:{reach.AT_ONCE}]", "[:3]"))
    monkeypatch.setattr(reach, "AT_ONCE", 3)
    lost = [tmp_path / f"dead{number}.svs" for number in range(7)]
    assert silent([*lost, tmp_path / "a.svs"], seconds=0.3) == set(lost)
