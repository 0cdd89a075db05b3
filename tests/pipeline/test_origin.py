"""Whether run, slide and normaliser are those of a store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.builders import refusal, store_meta
from tests.dicoms import write_slide
from wsi_norm import RunConfig
from wsi_norm.errors import UnreadableSlideError
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline.origin import files_of, is_model, run_beside
from wsi_norm.slide import fingerprint, slide_files
from wsi_norm.store import ModelMeta, SlideMeta


def said_of(file: Path, slide: Path) -> SlideMeta:
    """What a store says of a slide, `file` of it being opened."""
    facts = {
        "file_name": file.name,
        "size_bytes": file.stat().st_size,
        "sha256_first_mib": fingerprint(file),
        "sha256_samples": slide_files(slide).sha256,
    }
    return store_meta(slide=facts).slide


def test_a_slide_is_known_by_its_bytes(slide_path: Path, tmp_path: Path) -> None:
    meta = said_of(slide_path, slide_path)
    assert files_of(slide_path, meta) == slide_files(slide_path)
    renamed = Path(shutil.copy(slide_path, tmp_path / "other.svs"))
    assert files_of(renamed, meta) == slide_files(renamed)
    with renamed.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"?")
    assert files_of(renamed, meta) is None
    older = meta.model_copy(update={"sha256_samples": None})  # which does not know them
    assert files_of(slide_path, older) == slide_files(slide_path)
    with pytest.raises(UnreadableSlideError, match="no such file"):
        files_of(tmp_path / "gone.svs", meta)


def test_all_files_of_a_slide_count(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    write_slide(folder)
    files = sorted(folder.iterdir())
    meta = said_of(files[0], folder)
    found = files_of(folder, meta)
    assert found is not None
    assert len(found.files) == len(files)
    assert files_of(files[0], meta) == found
    files[-1].rename(folder / "renamed.dcm")
    assert files_of(folder, meta) is None


def test_a_normaliser_is_known_by_what_decides_its_bytes() -> None:
    loaded = Model("reinhard").load("cpu")
    meta = ModelMeta(**loaded.facts())
    assert is_model(loaded, meta.model_copy(update={"provenance": {"said": "otherwise"}}))
    assert not is_model(loaded, meta.model_copy(update={"sha256": "0" * 64}))
    assert not is_model(Model("macenko").load("cpu"), meta)


def test_a_run_says_where_a_slide_was(tmp_path: Path) -> None:
    settings = RunConfig(output=tmp_path, mpp=0.25).model_dump(mode="json")
    slides = [{"store": "/elsewhere/a.zarr", "slide": "s3://bucket/a.svs"}]
    place = tmp_path / "run.json"
    for mpp in (0.25, 0.75):  # a file that is written anew is read anew
        place.write_text(json.dumps({"settings": {**settings, "mpp": mpp}, "slides": slides}))
        slide, config = run_beside(tmp_path / "a.zarr")
        assert (str(slide), config.mpp) == ("s3://bucket/a.svs", mpp)
    assert "does not name the slide of b.zarr" in refusal(run_beside, tmp_path / "b.zarr")
