"""Which slides an earlier run finished: what counts, what does not, and that nothing is opened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsi_norm import RunConfig, run
from wsi_norm.config.run import NOT_IN_A_STORE
from wsi_norm.pipeline import SlideJob, finished_before
from wsi_norm.pipeline.finished import asked_sha256
from wsi_norm.runner.checks import checked_model
from wsi_norm.sources import SlideSource

SETTINGS: dict[str, Any] = {"workers": 0, "device": "cpu", "tile_size": 512}


def job_of(slide: Path, output: Path, **settings: Any) -> SlideJob:
    """What a run would give away."""
    config = RunConfig.model_validate({**SETTINGS, "output": output, **settings}).absolute()
    model, _ = checked_model(config)
    return SlideJob(SlideSource(slide, slide.stem), output / f"{slide.stem}.zarr", config, model)


@pytest.fixture(scope="module")
def output(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished")
    config = RunConfig.model_validate({**SETTINGS, "output": folder})
    assert run(slide_path, config).exit_status == 0
    return folder


def test_it_is_known_without_a_look_at_the_slide_or_zarr(
    slide_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr("wsi_norm.pipeline.slides.open_slide", opened)
    monkeypatch.setattr("zarr.open_group", opened)
    prepared = finished_before(job_of(slide_path, output))
    assert prepared is not None
    assert (prepared.finished, prepared.missing) == (True, {})
    assert prepared.counts is not None
    assert prepared.counts["tiles"] == prepared.tiles > 0


def test_a_run_of_finished_slides_starts_no_worker(
    slide_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any) -> Any:
        raise AssertionError("started")

    monkeypatch.setattr("wsi_norm.runner.entry._workers", started)
    config = RunConfig.model_validate({**SETTINGS, "output": output, "workers": None})
    (slide,) = run(slide_path, config).slides
    assert (slide.status, slide.ok) == ("skipped", True)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 2},
        {"batch_size": 3},
        {"report": False},
        {"fail_fast": True},
        {"scheduler": "tcp://h:1"},
        {"recursive": True},
    ],
)
def test_how_it_is_done_does_not_count(
    slide_path: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    there = job_of(slide_path, tmp_path)
    assert asked_sha256(job_of(slide_path, tmp_path / "other", **settings)) == asked_sha256(there)


@pytest.mark.parametrize(
    "settings",
    [
        {"mpp": 1.0},
        {"tile_size": 256},
        {"min_tissue": 0.2},
        {"segmenter": "hsv"},
        {"statistics": "tile"},
        {"background": "normalize"},
        {"normalizer": "reinhard"},
        {"normalizer": "none"},
        {"codec": "none"},
        {"reader": "openslide"},
        {"default_mpp": 0.5},
        {"colour_check": "warn"},
    ],
)
def test_what_is_asked_for_counts(
    slide_path: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    there = job_of(slide_path, tmp_path)
    assert asked_sha256(job_of(slide_path, tmp_path, **settings)) != asked_sha256(there)


def test_a_setting_counts_until_somebody_says_that_it_does_not() -> None:
    assert set(RunConfig.model_fields) >= NOT_IN_A_STORE


def test_the_file_counts_not_its_folder(slide_path: Path, tmp_path: Path) -> None:
    asked = asked_sha256(job_of(slide_path, tmp_path))
    copy = Path(shutil.copy(slide_path, tmp_path))
    assert asked_sha256(job_of(copy, tmp_path)) == asked
    data = bytearray(copy.read_bytes())
    data[1000] ^= 1
    copy.write_bytes(data)
    assert asked_sha256(job_of(copy, tmp_path)) != asked
    copy.write_bytes(slide_path.read_bytes() + b"\0")
    assert asked_sha256(job_of(copy, tmp_path)) != asked
    copy.unlink()
    assert asked_sha256(job_of(copy, tmp_path)) is None


def test_what_the_table_says_counts(slide_path: Path, tmp_path: Path) -> None:
    job = job_of(slide_path, tmp_path)
    roi = tmp_path / "roi.geojson"
    square = [[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    sources = [
        replace(job.source, mpp_um=0.5),
        replace(job.source, name="other"),
        replace(job.source, roi=roi),
        replace(job.source, mask=roi),
    ]
    asked = [asked_sha256(replace(job, source=source)) for source in sources]
    before = asked_sha256(replace(job, source=sources[2]))
    roi.write_text(roi.read_text() + " ")
    assert asked_sha256(replace(job, source=sources[2])) != before
    assert len({asked_sha256(job), *asked[:3]}) == 4


@pytest.mark.parametrize("lost", ["tiles/c/0/0/0/0", "thumbnail/c/0/0/0", "flags/zarr.json"])
def test_a_store_that_lost_something_is_looked_at(
    slide_path: Path, output: Path, tmp_path: Path, lost: str
) -> None:
    shutil.copytree(output, tmp_path / "out")
    job = job_of(slide_path, tmp_path / "out")
    assert finished_before(job) is not None
    (job.store / lost).unlink()
    assert finished_before(job) is None


def test_what_cannot_be_read_is_looked_at(slide_path: Path, output: Path, tmp_path: Path) -> None:
    """And named there, as one slide's failure."""
    job = job_of(slide_path, output)
    gone = replace(job.source, roi=tmp_path / "gone.geojson")
    assert finished_before(replace(job, source=gone)) is None


def test_stores_of_other_runs_and_of_earlier_versions_are_looked_at(
    slide_path: Path, output: Path, tmp_path: Path
) -> None:
    assert finished_before(job_of(slide_path, output, mpp=1.0)) is None
    assert finished_before(job_of(slide_path, tmp_path)) is None
    shutil.copytree(output, tmp_path / "out")
    root = tmp_path / "out" / "synthetic.zarr" / "zarr.json"
    document = json.loads(root.read_bytes())
    for name in ("asked_sha256", "tissue_share", "identity_sha256", "content_sha256"):
        del document["attributes"]["wsi_norm"][name]
    root.write_text(json.dumps(document))
    assert finished_before(job_of(slide_path, tmp_path / "out")) is None
    config = RunConfig.model_validate({**SETTINGS, "output": tmp_path / "out"})
    (slide,) = run(slide_path, config).slides
    assert (slide.status, slide.error) == ("skipped", None)
