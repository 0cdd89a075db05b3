"""What an earlier run left beside its stores says what it would be given to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import refusal
from wsi_norm import RunConfig
from wsi_norm.lstainnorm.checkpoint import open_checkpoint
from wsi_norm.runner.earlier import job_of


def write(folder: Path, **changes: Any) -> None:
    settings = RunConfig(output=folder, mpp=0.25, ckpt=Path("paper")).model_dump(mode="json")
    slides = [{"store": f"/elsewhere/{name}.zarr", "slide": f"/s/{name}.svs"} for name in "ab"]
    document = {"settings": settings, "slides": slides, **changes}
    (folder / "run.json").write_text(json.dumps(document))


def test_slide_settings_and_model_are_those_of_the_run(tmp_path: Path) -> None:
    write(tmp_path)
    job = job_of(tmp_path / "b.zarr")
    assert (job.source.path, job.store) == (Path("/s/b.svs"), tmp_path / "b.zarr")
    assert job.config.mpp == 0.25
    assert job.model.sha256 == open_checkpoint("paper").sha256
    assert job.apart


def test_a_store_that_it_does_not_name(tmp_path: Path) -> None:
    write(tmp_path)
    assert "does not name the slide of c.zarr" in refusal(job_of, tmp_path / "c.zarr")


@pytest.mark.parametrize(
    "changes", [{"slides": [{}]}, {"slides": 3}, {"settings": {"mpp": -1}}, {"settings": None}]
)
def test_what_is_no_run_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert "cannot be read" in refusal(job_of, tmp_path / "a.zarr")
    write(tmp_path, **changes)
    assert "cannot be read" in refusal(job_of, tmp_path / "a.zarr")
