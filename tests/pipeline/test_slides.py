"""A slide or a store that is another one by the next task: said, and nothing is mixed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import refusal, tree
from wsi_norm import RunConfig, TileStore
from wsi_norm.errors import SlideError, StoreError
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import SlideJob, finish, prepare, process_shard
from wsi_norm.pipeline import slides as slides_module
from wsi_norm.sources import find_slides
from wsi_norm.synthetic import write_synthetic_slide


@pytest.fixture(scope="module")
def other_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the size of `slide_path`, and of other tissue."""
    path = tmp_path_factory.mktemp("other") / "synthetic.svs"
    return write_synthetic_slide(path, width=2048, height=1536, mpp_um=0.5, levels=2, seed=7)


def job_of(slide: Path, output: Path, **settings: object) -> SlideJob:
    """Several shards, of tiles as they are."""
    given = {"tile_size": 512, "step": 256, "normalizer": "none", **settings}
    config = RunConfig.model_validate({"output": output, "device": "cpu", **given})
    (source,) = find_slides([str(slide)])
    return SlideJob(source, output / "s.zarr", config, Model("none"))


def planned(job: SlideJob) -> SlideJob:
    """As a run goes on with it."""
    return replace(job, plan=prepare(job).plan)


@pytest.fixture
def job(slide_path: Path, tmp_path: Path) -> SlideJob:
    """A slide that may be changed, with its store and one shard of it."""
    slide = Path(shutil.copy(slide_path, tmp_path / "case.svs"))
    job = planned(job_of(slide, tmp_path))
    process_shard(job, 0)
    return job


def moved(slide: Path, other: Path) -> None:
    shutil.copy(other, slide.with_name("copy"))
    slide.with_name("copy").replace(slide)


def copied(slide: Path, other: Path) -> None:
    slide.write_bytes(other.read_bytes())


def cut(slide: Path, other: Path) -> None:
    os.truncate(slide, slide.stat().st_size // 2)


@pytest.mark.parametrize("change", [moved, copied, cut])
def test_a_slide_that_changes_fails_before_a_shard_is_written(
    job: SlideJob, other_slide: Path, change: Callable[[Path, Path], None]
) -> None:
    before = tree(job.store)
    change(Path(job.source.path), other_slide)
    said = refusal(process_shard, job, 1, kind=SlideError)
    assert said.startswith(f"{job.source.path}: changed during the run; ")
    assert tree(job.store) == before


def test_a_slide_that_changes_while_it_is_read(
    job: SlideJob, other_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_norm.pipeline import shards

    before, read = tree(job.store), shards.read_tiles

    def changing(*arguments: object) -> object:
        result = read(*arguments)
        copied(Path(job.source.path), other_slide)
        return result

    monkeypatch.setattr(shards, "read_tiles", changing)
    assert "changed during the run" in refusal(process_shard, job, 1, kind=SlideError)
    assert tree(job.store) == before


def test_a_slide_that_changes_while_it_is_planned_leaves_no_store(
    slide_path: Path, other_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = Path(shutil.copy(slide_path, tmp_path / "case.svs"))
    plan = slides_module.plan_slide

    def changing(*arguments: object) -> object:
        copied(slide, other_slide)
        return plan(*arguments)

    monkeypatch.setattr(slides_module, "plan_slide", changing)
    assert "changed" in refusal(prepare, job_of(slide, tmp_path), kind=SlideError)
    assert [place.name for place in tmp_path.iterdir()] == ["case.svs"]


def test_a_slide_that_changes_before_the_end_is_not_finished(
    job: SlideJob, other_slide: Path
) -> None:
    for shard in TileStore.open(job.store, allow_partial=True).missing_shards():
        process_shard(job, shard)
    moved(Path(job.source.path), other_slide)
    assert "changed during the run" in refusal(finish, job, kind=SlideError)
    assert not TileStore.open(job.store, allow_partial=True).meta.complete


def test_a_touched_slide_is_the_same(job: SlideJob) -> None:
    os.utime(job.source.path, (1, 1))
    for shard in TileStore.open(job.store, allow_partial=True).missing_shards():
        process_shard(job, shard)
    assert finish(job)["tiles"] > 0


@pytest.mark.parametrize("settings", [{"codec": "none"}, {"mpp": 0.6}, {"tile_size": 256}])
def test_a_store_of_other_settings_is_left_to_the_run_that_made_it(
    job: SlideJob, settings: dict[str, object]
) -> None:
    """Also where the older run goes on after the younger has ended."""
    younger = job_of(Path(job.source.path), job.store.parent, **settings, overwrite=True)
    answer = prepare(younger)
    younger = replace(younger, plan=answer.plan)
    before = tree(job.store)
    assert "taken this store over" in refusal(process_shard, job, 1, kind=StoreError)
    assert "taken this store over" in refusal(finish, job, kind=StoreError)
    assert tree(job.store) == before
    for shard in answer.missing:
        process_shard(younger, shard)
    finish(younger)
    before = tree(job.store)
    assert refusal(process_shard, job, 0, kind=StoreError)
    assert tree(job.store) == before


def test_runs_with_the_same_settings_help_each_other(job: SlideJob) -> None:
    """The younger begins the store anew; what the older still writes into it is right."""
    number = TileStore.open(job.store, allow_partial=True).shards
    younger = planned(job_of(Path(job.source.path), job.store.parent, overwrite=True))
    assert younger.plan == job.plan
    for shard in range(number):
        process_shard(job if shard % 2 else younger, shard)
    assert finish(job) == finish(younger)
    assert TileStore.open(job.store).damage() == []
