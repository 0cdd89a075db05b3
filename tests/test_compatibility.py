"""A store of version 0.1.0 (see tests/data/README.md): read as before, continued or refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import zarr

from tests.builders import tree
from wsi_norm import RunConfig, TileStore, run
from wsi_norm.report import RunSummary

DATA = Path(__file__).parent / "data" / "store_0.1.0.zip"
PACKAGED_THEN = DATA.parent / "packaged_0.1.0.safetensors"
SCHEMA = Path(__file__).parent.parent / "wsi_norm" / "store" / "schema.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A slide and its store."""
    zipfile.ZipFile(DATA).extractall(tmp_path)
    return tmp_path


def again(folder: Path, **settings: Any) -> RunSummary:
    """The run that made the store, or one with other settings."""
    made: dict[str, Any] = {"tile_size": 32, "mpp": 0.5, "workers": 0, "device": "cpu"}
    made["ckpt"] = PACKAGED_THEN
    config = RunConfig(output=folder, report=False, **{**made, **settings})
    return run([folder / "synthetic.svs"], config)


def attribute(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "synthetic.zarr" / "zarr.json").read_bytes())
    return dict(document["attributes"]["wsi_norm"])


def test_it_reads_as_plain_zarr_does(folder: Path) -> None:
    store = TileStore.open(folder / "synthetic.zarr")
    plain = zarr.open_group(folder / "synthetic.zarr", mode="r")
    assert len(store) == 21
    np.testing.assert_array_equal(store[:], plain["tiles"][:])
    np.testing.assert_array_equal(store[20], plain["tiles"][20])
    for name in (
        "coords",
        "flags",
        "tissue_fraction",
        "tissue_mask",
        "thumbnail",
        "thumbnail_normalized",
    ):
        np.testing.assert_array_equal(getattr(store, name), plain[name][:])
    assert len(np.unique(store[:])) > 100
    assert store.damage() == []


def test_what_it_says_of_itself(folder: Path) -> None:
    """All that stands there is read; what came later has the value that it had then."""
    stored = attribute(folder)
    jsonschema.validate(stored, json.loads(SCHEMA.read_bytes()), jsonschema.Draft202012Validator)
    read = TileStore.open(folder / "synthetic.zarr").meta.model_dump(mode="json")
    assert read["model"].pop("normalizer") == "lstainnorm"
    assert read.pop("tissue_share") is read.pop("asked_sha256") is None
    assert read.pop("layout") == "tiles"
    assert read["tissue"].pop("whole_slide") is False
    assert read["tiling"].pop("reduced") is None
    assert read["slide"].pop("sha256_samples") is read.pop("lossy_quality") is None
    assert read.pop("icc") == {"status": "ignored", "description": None, "sha256": None}
    assert {read.pop(f"{name}_sha256") for name in ("arrays", "identity", "content")} == {None}
    assert read == stored


def test_the_same_run_skips_it(folder: Path) -> None:
    before = tree(folder)
    summary = again(folder)
    (slide,) = summary.slides
    assert (slide.status, slide.error) == ("skipped", None)
    assert (slide.tiles, slide.counts["edge"]) == (21, 1)
    assert summary.exit_status == 0
    assert tree(folder) == before


def test_the_packaged_checkpoint_of_now_is_another(folder: Path) -> None:
    before = tree(folder)
    (slide,) = again(folder, ckpt=None).slides
    assert slide.status == "failed"
    assert "model.preset: paper != single:od; model.sha256: " in slide.error
    assert len(slide.error) < 500
    assert tree(folder) == before


@pytest.mark.parametrize("lost", [False, True], ids=["marked incomplete", "a shard lost since"])
def test_an_unfinished_one_is_finished_or_refused(folder: Path, lost: bool) -> None:
    """Versions of packages decide: where they are those of then, the same bytes come again."""
    whole = tree(folder)
    (folder / "synthetic.zarr/tiles/c/0/0/0/0").unlink()
    if not lost:
        root = folder / "synthetic.zarr" / "zarr.json"
        document = json.loads(root.read_bytes())
        document["attributes"]["wsi_norm"] |= {"complete": False, "counts": None}
        root.write_text(json.dumps(document, indent=2))
    summary = again(folder)
    (slide,) = summary.slides
    if slide.status == "done":
        assert (summary.exit_status, slide.tiles_written) == (0, 21)
        assert TileStore.open(folder / "synthetic.zarr").damage() == []
        after = tree(folder)
        assert after.keys() == whole.keys()
        assert all(after[name] == whole[name] for name in whole if "/c/" in name)
        return
    assert (summary.exit_status, slide.status) == (1, "failed")
    assert slide.error is not None
    assert "\n" not in slide.error
    assert "written with other settings (" in slide.error
    named = slide.error.split("settings (")[1].split(")")[0].split("; ")
    assert all(
        line.startswith(("package_version: ", "software.", "slide.reader_version: "))
        for line in named
    )
    assert all(" != " in line for line in named)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"codec": "blosc"}, "codec: zstd != blosc"),
        ({"tile_size": 16}, "tiling.tile_size_px: 32 != 16"),
        ({"segmenter": "hsv"}, "tissue.segmenter: otsu != hsv"),
        ({"background": "normalize"}, "model.background: preserve != normalize"),
        ({"statistics": "tile"}, "model.statistics: slide != tile"),
    ],
)
def test_other_settings_are_refused(
    folder: Path, settings: dict[str, Any], difference: str
) -> None:
    before = tree(folder)
    summary = again(folder, **settings)
    (slide,) = summary.slides
    assert (summary.exit_status, slide.status) == (1, "failed")
    assert slide.error is not None
    assert "\n" not in slide.error
    assert slide.error.startswith(f"{folder / 'synthetic.zarr'}: written with other settings (")
    assert difference in slide.error
    assert "--overwrite" in slide.error
    assert tree(folder) == before
