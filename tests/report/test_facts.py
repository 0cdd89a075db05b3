"""What stores and checkpoints add, and when they are left alone."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsi_norm.lstainnorm import load_checkpoint, save_checkpoint
from wsi_norm.lstainnorm.checkpoint import sha256_of
from wsi_norm.report import RunSummary, SlideResult
from wsi_norm.report.facts import ModelFacts, read_model, read_store

MakeSummary = Callable[..., RunSummary]


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
    assert read_store(replace(stored, status=status, seconds_planning=0.0)) is None
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


def test_the_target_is_the_checkpoints(make_summary: MakeSummary, packaged: dict[str, Any]) -> None:
    facts = read_model(make_summary(model=packaged, settings={"ckpt": None}), [])
    assert facts.target == load_checkpoint().target
    assert facts.trained == "yes"


def test_another_checkpoint_of_that_name_is_not_believed(
    make_summary: MakeSummary, stored: SlideResult, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(load_checkpoint(), path, provenance={"training": "5 epochs"})
    summary = make_summary(model={"sha256": sha256_of(path)}, settings={"ckpt": str(path)})
    assert read_model(summary, []).trained == "yes"
    save_checkpoint(load_checkpoint(), path, provenance={"training": "none"})
    assert read_model(summary, []) == ModelFacts()
    path.unlink()
    assert read_model(summary, [read_store(stored), None]) == ModelFacts()


def test_a_store_knows_the_provenance_when_the_checkpoint_is_gone(
    make_summary: MakeSummary, stored: SlideResult
) -> None:
    summary = make_summary(model={"sha256": sha256_of()}, settings={"ckpt": "/gone.pt"})
    facts = read_model(summary, [None, read_store(stored)])
    assert facts == ModelFacts(None, {"training": "none: from a store"})
    assert facts.trained == "no"


def test_the_authors_state_dict_needs_its_template(
    make_summary: MakeSummary, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(load_checkpoint(), path)
    settings = {"ckpt": str(path), "template": str(tmp_path / "gone.yaml")}
    summary = make_summary(model={"sha256": sha256_of(path)}, settings=settings)
    assert read_model(summary, []).target is None
