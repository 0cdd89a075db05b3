"""A profile that is applied, from the slide to its store: before anything is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests import dicoms
from tests.builders import refusal
from tests.profiles import by_imagecms, matrix_profile, srgb_profile
from wsi_norm import RunConfig, TileStore
from wsi_norm.errors import SlideError, StoreError
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import SlideJob, estimate, finish, other_tiles, prepare, process_shard
from wsi_norm.slide import icc
from wsi_norm.sources import SlideSource

PROFILE = matrix_profile()
EDGE = 768


def write(path: Path, profile: bytes | None, convert: Any = lambda pixels: pixels) -> Path:
    """Without loss; two levels, so that overview and tiles are of different ones."""
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 4):
            tiff.write(
                convert(np.asarray(Image.fromarray(dicoms.picture(EDGE)).reduce(factor))),
                tile=(128, 128),
                compression="deflate",
                photometric="rgb",
                metadata=None,
                subfiletype=int(factor > 1),
                resolution=(20000 / factor, 20000 / factor),
                resolutionunit="CENTIMETER",
                iccprofile=profile,
            )
    return path


def job_of(slide: Path, choice: str, store: str = "s.zarr", **settings: Any) -> SlideJob:
    given = {"tile_size": 128, "device": "cpu", "output": slide.parent, "icc": choice}
    config = RunConfig.model_validate({**given, **settings})
    return SlideJob(SlideSource(slide, "s"), slide.parent / store, config, Model())


def run(job: SlideJob) -> TileStore:
    for shard in prepare(job).missing:
        process_shard(job, shard)
    finish(job)
    return TileStore.open(job.store)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write(tmp_path / "a.tif", PROFILE)


def test_the_store_is_that_of_the_slide_in_srgb(tmp_path: Path, slide: Path) -> None:
    converted = write(tmp_path / "b.tif", None, lambda pixels: by_imagecms(pixels, PROFILE))
    applied, expected = run(job_of(slide, "apply")), run(job_of(converted, "apply", "b.zarr"))
    assert (applied.meta.icc.status, expected.meta.icc.status) == ("applied", "none")
    assert applied.meta.slide.icc_profile
    assert applied.meta.white == expected.meta.white
    assert applied.meta.statistics == expected.meta.statistics
    for name in ("thumbnail", "thumbnail_normalized", "tissue_mask", "coords", "flags"):
        np.testing.assert_array_equal(getattr(applied, name), getattr(expected, name))
    np.testing.assert_array_equal(applied[:], expected[:])
    ignored = run(job_of(slide, "ignore", "c.zarr"))
    assert ignored.meta.icc.status == "ignored"
    assert ignored.meta.icc.sha256 == applied.meta.icc.sha256
    assert not np.array_equal(ignored.thumbnail, applied.thumbnail)


def test_the_other_choice_is_refused(slide: Path) -> None:
    run(job_of(slide, "apply"))
    said = refusal(prepare, job_of(slide, "ignore"), kind=StoreError)
    assert "other settings (icc.status: applied != ignored)" in said
    assert not prepare(job_of(slide, "apply")).missing


@pytest.mark.parametrize("profile", [None, srgb_profile()])
def test_where_nothing_is_applied_both_choices_are_one(
    tmp_path: Path, profile: bytes | None
) -> None:
    path = write(tmp_path / "a.tif", profile)
    run(job_of(path, "ignore"))
    assert prepare(job_of(path, "apply")).finished


def test_tiles_computed_anew_follow_the_store(slide: Path) -> None:
    job = job_of(slide, "apply")
    store = run(job)
    other = replace(job, config=job.config.model_copy(update={"icc": "ignore"}))
    assert other_tiles(other, len(store)) == (len(store), [])


def test_repair_gives_the_same(slide: Path) -> None:
    job = job_of(slide, "apply", overlap=112)
    before = run(job)
    tiles = before[:]
    assert before.shards > 1
    file = job.store / "tiles" / "c" / "1" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-100])
    again = replace(job, config=job.config.model_copy(update={"repair": True}))
    np.testing.assert_array_equal(run(again)[:], tiles)


def test_a_profile_that_is_not_followed_by_a_worker(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another Pillow, say: no tile is written as it is."""
    job = job_of(slide, "apply")
    prepare(job)
    monkeypatch.setattr(icc, "_kept", {})
    monkeypatch.setattr(icc, "MAX_BYTES", 1)
    said = refusal(process_shard, job, 0, kind=SlideError)
    assert "its ICC profile is not the one" in said


def test_an_estimate_says_what_would_be_done(slide: Path) -> None:
    assert estimate(job_of(slide, "apply")).icc.status == "applied"
    assert estimate(job_of(slide, "ignore")).icc.status == "ignored"
