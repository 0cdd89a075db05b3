"""What stores add, and when they are left alone."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsi_norm.report import SlideResult
from wsi_norm.report.facts import read_store
from wsi_norm.stages import Seconds


def test_a_store_gives_its_facts(stored: SlideResult) -> None:
    facts = read_store(stored)
    assert facts is not None
    assert facts.planned_tiles == 30
    assert facts.tissue_share == 20 * 15 / 1200
    assert facts.unreadable_at == tuple((32 * i, 4000) for i in range(25))
    assert facts.before != facts.after


@pytest.mark.parametrize("status", ["failed", "interrupted", "planned"])
def test_the_store_of_another_run_is_left_alone(stored: SlideResult, status: Any) -> None:
    """A slide that failed before its plan may share its name with another's store."""
    assert read_store(replace(stored, status=status, spent=Seconds())) is None
    assert read_store(replace(stored, status=status)) is not None


@pytest.mark.parametrize(
    "array", ["thumbnail", "thumbnail_normalized", "tissue_mask", "coords", "flags", "tiles"]
)
def test_a_damaged_store_gives_nothing(stored: SlideResult, store_path: Path, array: str) -> None:
    (store_path / array / "zarr.json").write_text("{")
    assert read_store(stored) is None


def test_a_bug_is_no_damaged_store(stored: SlideResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr("wsi_norm.report.facts.picture", wrong)
    with pytest.raises(ValueError, match="a bug"):
        read_store(stored)


def test_no_store_gives_nothing(stored: SlideResult, store_path: Path) -> None:
    shutil.rmtree(store_path)
    assert read_store(stored) is None
    store_path.write_text("a file")
    assert read_store(stored) is None
    assert read_store(replace(stored, store="")) is None
