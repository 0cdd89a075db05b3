"""The campaign's own judges: they have to see what they are there to see."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.builders import written_store
from tests.faults import mutants, subjects
from tests.faults.commands import Command, complaint, wait_for
from tests.faults.outcomes import Outcome, rows
from tests.faults.trials import Say, tried
from tests.faults.truth import held, tiles_of


def test_a_table_counts_outcomes() -> None:
    found = [
        Outcome("a", survived=True),
        Outcome("b", survived=False, lost=3, hang=True),
        Outcome("a", survived=False, duplicated=2, silent=True),
    ]
    assert rows(found) == [
        ("a", "2", "1", "0", "2", "1", "0"),
        ("b", "1", "0", "3", "0", "0", "1"),
        ("**all**", "3", "1", "3", "2", "1", "1"),
    ]
    assert [outcome.held for outcome in found] == [True, False, False]


def test_stores_are_held_to_the_truth(tmp_path: Path) -> None:
    written_store(tmp_path / "first.zarr", 10)
    right = {"first": tiles_of(tmp_path / "first.zarr")}
    assert held(tmp_path, right, whole=True).held
    group = zarr.open_group(tmp_path / "first.zarr")
    tiles = group["tiles"][:]
    group["tiles"][3] = 255 - tiles[3]
    assert held(tmp_path, right, whole=True).silent
    assert not held(tmp_path, right, whole=False).silent
    flags = group["flags"][:]
    flags[3] = 1
    group["flags"][:] = flags
    assert held(tmp_path, right, whole=True).held, "what is flagged is said"
    coords = group["coords"][:]
    coords[4] = coords[5]
    group["coords"][:] = coords
    outcome = held(tmp_path, right, whole=True)
    assert (outcome.lost, outcome.duplicated) == (1, 1)
    shutil.rmtree(tmp_path / "first.zarr")
    assert held(tmp_path, right, whole=True).lost == 10


def well(say: Say) -> int:
    say("a word")
    return 7


def badly(say: Say) -> None:
    raise ZeroDivisionError("oops")


def never(say: Say) -> None:
    wait_for(lambda: False, 1e9)


def dead(say: Say) -> None:
    os.abort()


def test_children_are_heard_and_ended() -> None:
    good = tried(well, limit=60)
    assert (good.said, good.value, good.good) == (["a word"], 7, True)
    assert good.peak_mb > 10
    assert "ZeroDivisionError: oops" in tried(badly, limit=60).error
    assert "died" in tried(dead, limit=60).error
    assert tried(never, limit=1).hang


def test_a_command_and_its_children_are_found_and_killed(tmp_path: Path) -> None:
    wait = "import time; time.sleep(600)"
    sleeper = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {wait!r}])"
    with Command(program=("-c", sleeper), folder=tmp_path) as command:
        assert command.wait_for(lambda: len(command.processes()) == 2)
        assert not command.are_gone(0.1)
    assert command.processes() == []
    with Command(program=("-c", "import sys; sys.exit('a word')"), folder=tmp_path) as command:
        assert command.status() == 1
    assert command.lines == ["a word"]
    assert complaint(["error: one", "warning: w"], 1) == ""
    assert complaint(["error: one", "error: two"], 1)
    assert complaint(["Traceback (most recent call last):"], 3)


@pytest.mark.parametrize("subject", subjects.SUBJECTS, ids=lambda subject: subject.name)
def test_mutants_differ_from_what_they_are_of(subject: subjects.Subject, tmp_path: Path) -> None:
    whole = subject.write(tmp_path)
    data, rng = whole.read_bytes(), np.random.default_rng(0)
    fields, tiles = subject.fields(whole), subject.tiles(whole)
    assert all(0 < start < start + length <= len(data) for start, length in tiles)
    for make in (subjects.header_mutant, subjects.tile_mutant):
        harmed = [make(data, subject, fields, tiles, rng) for _ in range(20)]
        assert all(len(mutant) == len(data) for mutant in harmed)
        assert sum(mutant != data for mutant in harmed) > 15
    assert len([*subjects.zero_lengths(whole)]) in {0, 9}


def test_a_wrong_tile_of_a_mutant_is_seen(tmp_path: Path) -> None:
    whole = subjects.write_svs(tmp_path)
    written_store(tmp_path / "store.zarr", 4)
    known = {corner: pixels for corner, (pixels, _) in mutants.stored(tmp_path / "store.zarr")}
    mutant = mutants.Mutant("fault", whole, whole)
    witness = mutants.Witness(whole)
    store = tmp_path / "store.zarr"
    assert mutants.wrong_of(mutant, store, False, known, witness) == ""
    zarr.open_group(store)["tiles"][2] = 7
    assert "not by OpenSlide" in mutants.wrong_of(mutant, store, False, known, witness)
    assert mutants.wrong_of(mutant, store, True, known, witness) == ""
    zarr.open_group(store)["tiles"][2] = 255
    assert "white" in mutants.wrong_of(mutant, store, False, known, witness)
