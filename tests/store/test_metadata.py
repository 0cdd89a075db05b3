"""The group attribute `wsi_norm`: its schema, its settings, what differs between two of them."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from tests.builders import store_meta
from wsi_norm.geometry import Level, TileGrid
from wsi_norm.store import (
    IccMeta,
    StoreMeta,
    TileStore,
    differences,
)

SCHEMA = json.loads(resources.files("wsi_norm.store").joinpath("schema.json").read_bytes())


@pytest.fixture
def meta() -> StoreMeta:
    return store_meta(
        package_version="0.1.0",
        slide={
            "size_bytes": 123,
            "reader_version": "4.0.1",
            "width_px": 1000,
            "height_px": 700,
            "mpp_um": 0.25,
            "objective_power": None,
            "icc_profile": True,
        },
        tiling={
            "tile_size_px": 64,
            "overlap_px": 8,
            "downsample": 2.0,
            "level": 1,
            "level_width_px": 500,
            "level_height_px": 350,
            "level_downsample": 2.0,
        },
        tissue={"segmenter": "hsv", "regions_sha256": "2" * 64},
        model={"provenance": {"data": ["a", "b"], "figures": {"psnr": 1.5}}},
        software={"numpy": "2.0", "torch": "2.6"},
        white=(0.9, 0.95, 1.0),
        statistics={"mean": {"rgb": [0.5, 0.5, 0.5]}},
        warnings=("damaged: a little",),
    )


def changed(meta: StoreMeta, *keys: str, value: Any) -> StoreMeta:
    """The same with one nested value changed."""
    document = meta.model_dump()
    place = document
    for key in keys[:-1]:
        place = place[key]
    assert keys[-1] in place
    place[keys[-1]] = value
    return StoreMeta.model_validate(document)


# --- schema


def test_the_schema_that_ships_is_that_of_the_model() -> None:
    text = resources.files("wsi_norm.store").joinpath("schema.json").read_text("utf-8")
    expected = json.dumps(StoreMeta.model_json_schema(), indent=1, sort_keys=True) + "\n"
    assert text == expected, "write schema.json anew from StoreMeta.model_json_schema()"


def test_the_schema_is_one(meta: StoreMeta) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("number", [0, 5])
def test_a_real_store_validates(tmp_path: Path, meta: StoreMeta, number: int) -> None:
    image = np.zeros((7, 10, 3), np.uint8)
    store = TileStore.create(
        tmp_path / "case.zarr",
        meta,
        coords=np.zeros((number, 2), np.int64),
        tissue_fraction=np.zeros(number, np.float32),
        tissue_mask=np.zeros((7, 10), np.bool_),
        mask_downsample=(100.0, 100.0),
        thumbnail=image,
        thumbnail_normalized=image,
    )
    stated = StoreMeta.model_validate(attribute(store.path))
    digests = {"arrays_sha256": None, "identity_sha256": None}
    assert stated.model_copy(update=digests) == meta
    for shard in range(store.shards):
        rows = store.rows(shard)
        tiles = np.zeros((rows.stop - rows.start, 64, 64, 3), np.uint8)
        store.write_shard(shard, tiles, np.zeros(len(tiles), np.uint8))
    store.finish()
    assert attribute(store.path)["complete"] is True
    assert attribute(store.path)["counts"]["tiles"] == number


def attribute(store: Path) -> dict[str, Any]:
    """What stands on the disk, checked against the schema that ships."""
    document = json.loads((store / "zarr.json").read_text("utf-8"))["attributes"]["wsi_norm"]
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    return dict(document)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("format_version",), 2),
        (("codec",), 5),
        (("model", "background"), "lost"),
        (("model", "statistics"), "cohort"),
        (("complete",), "perhaps"),
        (("counts",), {"tiles": "many"}),
        (("white",), [0.9, 0.9]),
        (("slide", "mpp_source"), "guessed"),
        (("tiling", "level"), None),
        (("tissue", "min_tissue"), "much"),
    ],
)
def test_schema_and_model_refuse_the_same(
    meta: StoreMeta, keys: tuple[str, ...], value: Any
) -> None:
    document = json.loads(meta.model_dump_json())
    jsonschema.validate(document, SCHEMA)
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)
    with pytest.raises(ValidationError):
        StoreMeta.model_validate(document)


def test_no_unknown_key(meta: StoreMeta) -> None:
    document = json.loads(meta.model_dump_json()) | {"written_at": "today"}
    with pytest.raises(jsonschema.ValidationError, match="written_at"):
        jsonschema.validate(document, SCHEMA)
    with pytest.raises(ValidationError, match="written_at"):
        StoreMeta.model_validate(document)


def test_json_round_trip(meta: StoreMeta) -> None:
    assert StoreMeta.model_validate_json(meta.model_dump_json()) == meta
    assert StoreMeta.model_validate(json.loads(json.dumps(meta.model_dump(mode="json")))) == meta


def test_grid(meta: StoreMeta) -> None:
    assert meta.tiling.grid(meta.slide) == TileGrid(
        1000, 700, Level(1, 500, 350, 2.0), downsample=2.0, tile_size=64, overlap=8
    )


# --- differences


def test_nothing_differs_from_itself(meta: StoreMeta) -> None:
    assert differences(meta, meta.settings()) == []


def test_settings_are_what_decides_the_bytes(meta: StoreMeta) -> None:
    left_out = {"format_version", "white", "statistics", "warnings", "counts", "complete"}
    left_out |= {"tissue_share", "asked_sha256"}
    left_out |= {"arrays_sha256", "identity_sha256", "content_sha256"}
    assert set(meta.settings().model_dump()) == set(StoreMeta.model_fields) - left_out
    other = meta.model_copy(update={"warnings": (), "statistics": None, "white": (1, 1, 1)})
    assert differences(meta, other.settings()) == []


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(
    ("keys", "value", "line"),
    [
        (("codec",), "none", "codec: zstd != none"),
        (("tiling", "tile_size_px"), 32, "tiling.tile_size_px: 64 != 32"),
        (("tiling", "mpp_um"), 1.0, "tiling.mpp_um: 0.5 != 1.0"),
        (("tissue", "regions_sha256"), None, f"tissue.regions_sha256: {'2' * 64} != None"),
        (("slide", "reader"), "tiffslide", "slide.reader: openslide != tiffslide"),
        (("slide", "sha256_first_mib"), "9", f"slide.sha256_first_mib: {'0' * 64} != 9"),
        (("model", "sha256"), "9", f"model.sha256: {'1' * 64} != 9"),
    ],
)
def test_differences_are_named(
    meta: StoreMeta, keys: tuple[str, ...], value: Any, line: str, complete: bool
) -> None:
    stored = meta.model_copy(update={"complete": complete})
    assert differences(stored, changed(meta, *keys, value=value).settings()) == [line]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("package_version",), "0.2.0"),
        (("software", "numpy"), "3.0"),
        (("software",), {"torch": "2.6"}),
        (("slide", "reader_version"), "5"),
    ],
)
def test_versions_count_while_a_store_is_unfinished(
    meta: StoreMeta, keys: tuple[str, ...], value: Any
) -> None:
    wanted = changed(meta, *keys, value=value).settings()
    (line,) = differences(meta, wanted)
    assert line.startswith(".".join(keys))
    assert differences(meta.model_copy(update={"complete": True}), wanted) == []


def test_several_differences_are_sorted(meta: StoreMeta) -> None:
    wanted = changed(changed(meta, "codec", value="none"), "tiling", "level", value=0)
    assert differences(meta, wanted.settings()) == [
        "codec: zstd != none",
        "tiling.level: 1 != 0",
    ]


def test_metadata_does_not_change(meta: StoreMeta) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        meta.complete = True  # type: ignore[misc]


def with_icc(meta: StoreMeta, status: str, sha256: str | None = "a") -> StoreMeta:
    return meta.model_copy(update={"icc": IccMeta(status=status, sha256=sha256)})


def test_a_profile_counts_where_it_is_applied(meta: StoreMeta) -> None:
    """Stores that say nothing of it are of versions that ignored it."""
    document = meta.model_dump()
    del document["icc"]
    old = StoreMeta.model_validate(document)
    assert (old.icc.status, old.icc.choice) == ("ignored", "ignore")
    same = [old, *(with_icc(meta, status) for status in ("none", "ignored", "srgb", "unusable"))]
    for stored in same:
        assert not any(differences(stored, wanted.settings()) for wanted in same)
    applied = with_icc(meta, "applied")
    assert applied.icc.choice == "apply"
    assert differences(applied, applied.settings()) == []
    for stored, wanted in ((applied, with_icc(meta, "ignored")), (with_icc(meta, "srgb"), applied)):
        said = f"icc.status: {stored.icc.status} != {wanted.icc.status}"
        assert differences(stored, wanted.settings()) == [said]
    other = with_icc(meta, "applied", "b")
    assert differences(applied, other.settings()) == ["icc.sha256: a != b"]


def test_a_finished_store_of_before_stays_what_it_is(meta: StoreMeta) -> None:
    """It says nothing of reduced decoding: all was decoded in full."""
    full, half = (changed(meta, "tiling", "reduced", value=factor) for factor in (1, 2))
    document = full.model_dump()
    del document["tiling"]["reduced"]
    old = StoreMeta.model_validate(document)
    assert old.tiling.grid(old.slide) == full.tiling.grid(full.slide)
    assert half.tiling.grid(half.slide).reduced == 2
    assert differences(old, full.settings()) == []
    assert differences(old, half.settings()) == ["tiling.reduced: None != 2"]
    finished = {"complete": True}
    assert differences(old.model_copy(update=finished), half.settings()) == []
    for stored in (full, full.model_copy(update=finished)):
        assert differences(stored, half.settings()) == ["tiling.reduced: 1 != 2"]
