"""From a user's data description to checked splits: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_norm.config.train import DataConfig
from wsi_norm.errors import ConfigError, StoreError
from wsi_norm.store import ModelMeta, SlideMeta, StoreMeta, TileStore, TilingMeta, TissueMeta
from wsi_norm.training.index import (
    LabelledImage,
    Splits,
    check_masks,
    check_sizes,
    read_mask,
    read_splits,
)

COLUMNS = {"image": "image", "label": "label", "group": "case", "domain": "center"}


def split(
    data: DataConfig,
    task: Literal["classification", "segmentation"] = "classification",
    root: Path | None = None,
    seed: int = 0,
) -> Splits:
    return read_splits(data, task, root, seed)


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    """The one line that a user reads."""
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(images: Sequence[LabelledImage]) -> list[str]:
    return [image.name for image in images]


def described(table: Path, **settings: Any) -> DataConfig:
    """The settings of the cohort, and changes to them."""
    given = {
        "index": table,
        "columns": COLUMNS,
        "validation": {"center": ["1"]},
        "test": {"center": ["2"]},
    }
    return DataConfig.model_validate(given | settings)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two images of each of 6 cases in 3 centres: tissue with and without tumour."""
    lines = ["image,label,case,center,padding"]
    for number in range(12):
        (tmp_path / f"{number}.png").touch()
        case = number // 2
        lines.append(f"{number}.png,{number % 2},case_{case},{case // 2},0")
    path = tmp_path / "index.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def edit(table: Path, old: str, new: str) -> None:
    text = table.read_text(encoding="utf-8")
    assert old in text
    table.write_text(text.replace(old, new), encoding="utf-8")


# --- a table


def test_a_table(table: Path) -> None:
    splits = split(described(table))
    assert splits.classes == ("0", "1")
    assert names(splits.train) == [f"{number}.png" for number in range(4)]
    assert names(splits.validation) == [f"{number}.png" for number in range(4, 8)]
    assert names(splits.test) == [f"{number}.png" for number in range(8, 12)]
    assert splits.train[3] == LabelledImage(
        name="3.png",
        path=table.parent / "3.png",
        row=None,
        label=1,
        mask=None,
        group="case_1",
        domain="0",
    )


def test_without_group_and_domain_every_image_stands_alone(table: Path) -> None:
    splits = split(described(table, columns={"label": "label"}))
    assert [image.group for image in splits.test] == names(splits.test)
    assert {image.domain for image in splits.test} == {""}


def test_a_table_starts_at_the_root_and_its_images_beside_it(table: Path, tmp_path: Path) -> None:
    splits = split(described(Path(tmp_path.name, "index.csv")), root=tmp_path.parent)
    assert splits.train[0].path == tmp_path / "0.png"
    (tmp_path / "tables").mkdir()
    table.rename(tmp_path / "tables" / "index.csv")
    message = refusal(split, described(Path("tables/index.csv")), "classification", tmp_path)
    assert f"12 of 12 images are missing: {tmp_path / 'tables' / '0.png'}, " in message
    assert message.endswith(f"2.png, ...; relative paths start at {tmp_path / 'tables'}")


def test_an_absolute_path_stays(table: Path, tmp_path: Path) -> None:
    edit(table, "\n0.png", f"\n{tmp_path / '0.png'}")
    assert split(described(table), root=tmp_path).train[0].path == tmp_path / "0.png"


def test_where_comes_first(table: Path) -> None:
    edit(table, "0.png,0,case_0,0,0", "0.png,0,case_0,0,1")
    splits = split(described(table, where={"padding": ["0"]}))
    assert names(splits.train) == ["1.png", "2.png", "3.png"]


def test_rows_of_no_split_are_left_alone(table: Path) -> None:
    edit(table, "8.png,0", "gone.png,other")
    splits = split(described(table, train={"center": ["0"]}, test={}))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4, 4, 0)


def test_filters_of_several_columns(table: Path) -> None:
    test = {"center": ["2"], "case": ["case_4", "case_1"]}
    splits = split(described(table, test=test, train={"center": ["0"]}))
    assert names(splits.test) == ["8.png", "9.png"]


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_what_spreadsheets_write(tmp_path: Path, start: bytes, newline: bytes) -> None:
    lines = [
        b"image, label ,case,center",
        b'"a,1.png", normal , "Doe, J.",0 ',
        "ä.png,tumour,b,0".encode(),
        b"c.png,normal,c,1",
        b"",
        b",,,",
        b"",
    ]
    for name in ("a,1.png", "ä.png", "c.png"):
        (tmp_path / name).touch()
    table = tmp_path / "index.csv"
    table.write_bytes(start + newline.join(lines) + newline)
    splits = split(described(table, test={}))
    assert splits.classes == ("normal", "tumour")
    assert names(splits.train) == ["a,1.png", "ä.png"]
    assert splits.train[0].group == "Doe, J."
    assert names(splits.validation) == ["c.png"]


def test_classes_as_named_or_in_order(table: Path) -> None:
    for old, new in ((",0,case", ",10,case"), (",1,case", ",9,case")):
        edit(table, old, new)
    assert split(described(table)).classes == ("9", "10")
    splits = split(described(table, classes=["10", "9"]))
    assert splits.classes == ("10", "9")
    assert splits.train[0].label == 0


def test_views_are_the_classes(table: Path) -> None:
    edit(table, "label", "nothing")
    views = {"tumour": "center", "other": "corner"}
    splits = split(described(table, views=views, tile_size=96, columns=COLUMNS | {"label": None}))
    assert splits.classes == ("tumour", "other")
    assert {image.label for image in splits.train} == {None}


# --- a table that is refused


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file; expected a line of column names, then one per image"),
        (b"\n,,\n", "an empty file; expected a line of column names"),
        (b"image;label\na;0\n", "columns are separated by ';'; save it with commas"),
        (b"image,label\n", "no rows below its first line; expected a line of column names"),
        (
            b"0.png,0,a,7\n1.png,1,b,7\n",
            "no column 'image' (data.columns.image); its first line names 0.png, 0, a, 7",
        ),
        (b"image,label,label\na,0,0\n", "line 1 names 'label' twice; it holds the columns' names"),
        (
            b"image,label,case,center\na.png,0,a,0\nb,c.png,0,b,0\n",
            "line 3 has 5 fields but line 1 names 4 columns; quote fields that hold commas",
        ),
        ("image,label\nä.png,0\n".encode("latin-1"), "not UTF-8 (invalid continuation byte); "),
        (b'image,label\n"a.png,0\n', "cannot read the table: unexpected end of data"),
    ],
)
def test_a_table_that_is_none(table: Path, content: bytes, expected: str) -> None:
    table.write_bytes(content)
    assert refusal(split, described(table)).startswith(f"{table}: {expected}")


def test_no_table(tmp_path: Path) -> None:
    path = tmp_path / "gone.csv"
    message = f"{path}: cannot read the table: No such file or directory"
    assert refusal(split, described(path)) == message


@pytest.mark.parametrize("role", ["image", "label", "group", "domain"])
def test_a_column_that_is_not_there(table: Path, role: str) -> None:
    data = described(table, columns=COLUMNS | {role: "centre"})
    assert refusal(split, data) == (
        f"{table}: no column 'centre' (data.columns.{role}); did you mean 'center'?; "
        "its first line names image, label, case, center, padding"
    )


@pytest.mark.parametrize("filter_", ["where", "train", "validation", "test"])
def test_a_filter_of_no_column(table: Path, filter_: str) -> None:
    message = refusal(split, described(table, **{filter_: {"centre": ["0"]}}))
    assert message.startswith(f"{table}: no column 'centre' (data.{filter_}); did you mean")


@pytest.mark.parametrize("filter_", ["where", "train", "validation", "test"])
def test_a_filter_that_matches_nothing(table: Path, filter_: str) -> None:
    data = described(table, **{filter_: {"center": ["5", "6"], "label": ["1"]}})
    assert refusal(split, data) == (
        f"{table}: data.{filter_} (center 5 or 6 and label 1) matches no row; "
        "'center' holds 0, 1, 2"
    )


def test_a_filter_whose_columns_never_match_together(table: Path) -> None:
    message = refusal(split, described(table, test={"center": ["2"], "case": ["case_0"]}))
    assert message.endswith(
        "'center' holds 0, 1, 2; 'case' holds case_0, case_1, case_2, case_3, case_4, case_5"
    )


def test_nothing_left_to_train_on(table: Path) -> None:
    data = described(table, validation={"center": ["0", "1"]})
    message = f"{table}: data.validation and data.test leave no row to train on"
    assert refusal(split, data) == message


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ("3.png,1", ",1", "image"),
        ("3.png,1", "3.png,", "label"),
        ("3.png,1,case_1", "3.png,1, ", "case"),
    ],
)
def test_an_empty_cell(table: Path, old: str, new: str, column: str) -> None:
    edit(table, old, new)
    assert refusal(split, described(table)) == (
        f"{table}: line 5: {column!r} is empty; fill it in, or leave the row out with data.where"
    )


@pytest.mark.parametrize("classes", [(), ("0", "1")])
def test_a_label_that_is_no_class(table: Path, classes: Sequence[str]) -> None:
    edit(table, "8.png,0", "8.png,tumor")
    assert refusal(split, described(table, classes=classes)) == (
        f"{table}: line 10: the label 'tumor' is none of the classes 0, 1; "
        "add it to data.classes or leave it out with data.where"
    )
    assert len(split(described(table, where={"label": ["0", "1"]})).test) == 3


def test_one_class_in_train(table: Path) -> None:
    data = described(table, train={"center": ["0"], "label": ["1"]})
    assert refusal(split, data) == (
        f"{table}: every training image is of the class '1'; two or more are needed: "
        "check data.train and the labels"
    )


def test_missing_images(table: Path) -> None:
    for number in (1, 4, 8, 9):
        (table.parent / f"{number}.png").unlink()
    first = ", ".join(str(table.parent / f"{number}.png") for number in (1, 4, 8))
    assert refusal(split, described(table)) == (
        f"{table}: 4 of 12 images are missing: {first}, ...; relative paths start at {table.parent}"
    )


def test_an_image_twice_in_a_split(table: Path) -> None:
    edit(table, "\n3.png", "\n./2.png")
    assert refusal(split, described(table)) == (
        f"{table}: ./2.png is listed twice in train (line 4 and line 5); remove one"
    )


def test_an_image_in_two_splits(table: Path) -> None:
    edit(table, "\n9.png", "\n2.png")
    assert refusal(split, described(table)) == (
        f"{table}: 2.png is in train (line 4) and in test (line 11); "
        "make their filters exclude each other"
    )


def test_a_row_in_two_splits(table: Path) -> None:
    assert refusal(split, described(table, train={"center": ["0", "2"]})) == (
        f"{table}: 8.png is in train (line 10) and in test (line 10); "
        "make their filters exclude each other"
    )


def test_a_group_in_two_splits(table: Path) -> None:
    edit(table, "9.png,1,case_4", "9.png,1,case_0")
    assert refusal(split, described(table)) == (
        f"{table}: the group 'case_0' is in train (line 2) and in test (line 11); "
        "whole groups belong into one split"
    )


# --- a share of the groups


def cohort(folder: Path, centres: Sequence[int]) -> Path:
    """A table of cases with two images each, as many per centre as asked."""
    lines = ["image,label,case,center"]
    for centre, cases in enumerate(centres):
        for case in range(cases):
            for label in range(2):
                name = f"{centre}_{case}_{label}.png"
                (folder / name).touch()
                lines.append(f"{name},{label},{centre}_{case},{centre}")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


def test_a_share_is_of_whole_groups_and_of_every_domain(tmp_path: Path) -> None:
    table = cohort(tmp_path, (10, 20, 5, 5))
    splits = split(described(table, validation=0.2, test={"center": ["3"]}))
    groups = {image.group for image in splits.validation}
    assert [sum(g.startswith(f"{c}_") for g in groups) for c in range(4)] == [2, 4, 1, 0]
    assert len(splits.validation) == 14
    assert len(splits.train) == 56
    assert not groups & {image.group for image in splits.train}


def test_small_domains_share_the_rest(tmp_path: Path) -> None:
    table = cohort(tmp_path, (2,) * 10)
    drawn = [
        {image.group for image in split(described(table, validation=0.2, test={}), seed=s).train}
        for s in range(8)
    ]
    assert {len(groups) for groups in drawn} == {16}
    assert len({frozenset(groups) for groups in drawn}) > 1


def test_a_share_depends_on_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    table = cohort(tmp_path, (12, 12))
    data = described(table, validation=0.25, test={})
    first, again, other = (names(split(data, seed=seed).validation) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    head, *lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([head, *lines[::-1]]), encoding="utf-8")
    assert sorted(names(split(data, seed=1).validation)) == sorted(first)


def test_a_share_comes_from_the_rows_of_train(table: Path) -> None:
    splits = split(described(table, train={"center": ["0", "1"]}, validation=0.25))
    assert len(splits.validation) == 2
    assert {image.domain for image in splits.train + splits.validation} == {"0", "1"}


@pytest.mark.parametrize(("share", "whom"), [(0.1, "validate"), (0.9, "train")])
def test_too_few_groups_for_a_share(table: Path, share: float, whom: str) -> None:
    data = described(table, train={"center": ["0", "1"]}, validation=share)
    assert refusal(split, data) == (
        f"{table}: data.validation {share} of 4 training groups leaves none to {whom} on: "
        "too few groups; give another share or a filter, or more groups"
    )


# --- a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of each of two classes, and what lies around."""
    root = tmp_path / "classes"
    for name in ("normal", "tumour"):
        for number in range(4):
            file = root / name / f"{name}_{number}.{'png' if number else 'JPG'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    for litter in ("normal/._normal_1.png", "readme.txt", "tumour/Thumbs.db"):
        (root / litter).touch()
    return root


def test_a_folder_per_class(folder: Path) -> None:
    splits = split(DataConfig(folder=Path("classes"), validation=0.25), root=folder.parent)
    assert splits.classes == ("normal", "tumour")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 2, 0)
    images = {image.name: image for image in splits.train + splits.validation}
    image = images["tumour/tumour_0.JPG"]
    assert (image.path, image.label) == (folder / "tumour" / "tumour_0.JPG", 1)
    assert (image.group, image.domain, image.row, image.mask) == ("tumour_0", "", None, None)


def test_a_folder_with_filters(folder: Path) -> None:
    validation = {"group": ["normal_0", "tumour_0"]}
    splits = split(DataConfig(folder=folder, validation=validation))
    assert names(splits.validation) == ["normal/normal_0.JPG", "tumour/tumour_0.JPG"]


def test_a_flat_folder_for_views(folder: Path) -> None:
    views = {"a": "center", "b": "corner"}
    data = DataConfig.model_validate(
        {"folder": folder / "normal", "views": views, "tile_size": 96, "validation": 0.25}
    )
    assert len(split(data).train) == 3


def test_a_folder_that_is_refused(folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert refusal(split, DataConfig(folder=gone)) == f"{gone}: no such folder (data.folder)"
    gone.mkdir()
    message = f"{gone}: no images in it; expected one sub-folder per class"
    assert refusal(split, DataConfig(folder=gone)) == message
    (folder / "stray.png").touch()
    assert refusal(split, DataConfig(folder=folder, validation={"group": ["stray"]})) == (
        f"{folder / 'stray.png'}: in no sub-folder; move it to that of its class"
    )


def test_a_folder_of_one_class(folder: Path) -> None:
    (folder / "tumour").rename(folder.parent / "elsewhere")
    message = refusal(split, DataConfig(folder=folder, validation=0.25))
    assert message.startswith(f"{folder}: every training image is of the class 'normal'; ")


# --- stores


def make_store(path: Path, number: int, *, finish: bool = True) -> None:
    meta = StoreMeta(
        package_version="0",
        slide=SlideMeta(
            name=path.stem,
            file_name=f"{path.stem}.svs",
            size_bytes=1,
            sha256_first_mib="0" * 64,
            vendor=None,
            reader="openslide",
            reader_version="4",
            width_px=320,
            height_px=240,
            mpp_um=0.5,
            mpp_source="slide",
            objective_power=None,
            damage=None,
            icc_profile=False,
        ),
        tiling=TilingMeta(
            tile_size_px=16,
            overlap_px=0,
            mpp_um=0.5,
            downsample=1.0,
            level=0,
            level_width_px=320,
            level_height_px=240,
            level_downsample=1.0,
            tiles_per_shard=8,
        ),
        tissue=TissueMeta(segmenter="otsu", min_tissue=0.1, regions_sha256=None),
        model=ModelMeta(
            sha256="1", preset="paper", statistics="tile", background="preserve", provenance={}
        ),
        codec="zstd",
        software={},
        white=(1.0, 1.0, 1.0),
        statistics=None,
        warnings=(),
    )
    image = np.full((8, 8, 3), 255, np.uint8)
    store = TileStore.create(
        path,
        meta,
        coords=np.zeros((number, 2), np.int64),
        tissue_fraction=np.ones(number, np.float32),
        tissue_mask=np.ones((8, 8), np.bool_),
        mask_downsample=(40.0, 30.0),
        thumbnail=image,
        thumbnail_normalized=image,
    )
    tiles = np.zeros((number, 16, 16, 3), np.uint8)
    store.write_shard(0, tiles, np.zeros(number, np.uint8))
    if finish:
        store.finish()


@pytest.fixture
def stores(tmp_path: Path) -> DataConfig:
    """Two stores of 4 tiles, every second of them a tumour."""
    lines = ["store,row,label,domain"]
    for name in ("s.1", "s2"):
        make_store(tmp_path / f"{name}.zarr", 4)
        written = f"{name}.zarr" if name == "s2" else name
        lines += [f"{written},{row},{row % 2},x" for row in range(4)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines), encoding="utf-8")
    return DataConfig(
        stores=(tmp_path / "s.1.zarr", tmp_path / "s2.zarr"),
        labels=labels,
        validation={"store": ["s2.zarr"]},
    )


def test_stores(stores: DataConfig, tmp_path: Path) -> None:
    splits = split(stores)
    assert names(splits.train) == ["s.1:0", "s.1:1", "s.1:2", "s.1:3"]
    assert splits.validation[1] == LabelledImage(
        name="s2:1",
        path=tmp_path / "s2.zarr",
        row=1,
        label=1,
        mask=None,
        group="s2",
        domain="x",
    )
    assert {image.group for image in splits.train} == {"s.1"}
    assert check_sizes(splits.train + splits.validation, None) == (16, 16)


def test_stores_start_at_the_root(stores: DataConfig, tmp_path: Path) -> None:
    relative = stores.model_copy(
        update={"stores": (Path("s.1.zarr"), Path("s2.zarr")), "labels": Path("labels.csv")}
    )
    assert split(relative, root=tmp_path).train == split(stores).train


def test_a_row_twice(stores: DataConfig) -> None:
    assert stores.labels is not None
    edit(stores.labels, "s.1,3,1", "s.1.zarr,2,1")
    assert refusal(split, stores) == (
        f"{stores.labels}: s.1:2 is listed twice in train (line 4 and line 5); remove one"
    )


@pytest.mark.parametrize("row", ["4", "-1", "two", "1.0"])
def test_a_row_that_a_store_has_not(stores: DataConfig, row: str, tmp_path: Path) -> None:
    assert stores.labels is not None
    edit(stores.labels, "s.1,3,", f"s.1,{row},")
    assert refusal(split, stores) == (
        f"{stores.labels}: line 5: no row {row!r} in {tmp_path / 's.1.zarr'}, which has rows 0 to 3"
    )


def test_a_store_that_is_not_named(stores: DataConfig) -> None:
    assert stores.labels is not None
    edit(stores.labels, "s.1,3,", "s3,3,")
    assert refusal(split, stores) == (
        f"{stores.labels}: line 5: the store 's3' is none of data.stores (s.1, s2)"
    )


@pytest.mark.parametrize("column", ["store", "row", "label"])
def test_a_column_that_stores_need(stores: DataConfig, column: str) -> None:
    assert stores.labels is not None
    edit(stores.labels, f"{column},", f"{column}_,")
    message = refusal(split, stores)
    assert message.startswith(f"{stores.labels}: no column {column!r} (data.")
    assert f"did you mean '{column}_'?" in message


def test_stores_of_one_name(stores: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    make_store(tmp_path / "other" / "s2", 1)
    twice = (*stores.stores, tmp_path / "other" / "s2")
    assert refusal(split, stores.model_copy(update={"stores": twice})) == (
        f"data.stores: {tmp_path / 's2.zarr'} and {tmp_path / 'other' / 's2'} have one name"
    )


def test_an_incomplete_store(stores: DataConfig, tmp_path: Path) -> None:
    make_store(tmp_path / "s2.zarr", 4, finish=False)
    with pytest.raises(StoreError, match="incomplete"):
        split(stores)


# --- masks


@pytest.fixture
def masked(tmp_path: Path) -> DataConfig:
    """Four images of 8 x 6 px with a mask each."""
    lines = ["image,mask"]
    for number in range(4):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.webp")
        Image.new("L", (8, 6)).save(tmp_path / f"{number}_mask.png")
        lines.append(f"{number}.webp,{number}_mask.png")
    index = tmp_path / "index.csv"
    index.write_text("\n".join(lines), encoding="utf-8")
    return DataConfig.model_validate(
        {
            "index": index,
            "columns": {"mask": "mask"},
            "validation": 0.25,
            "classes": ["background", "gland"],
        }
    )


def test_masks(masked: DataConfig, tmp_path: Path) -> None:
    splits = split(masked, "segmentation")
    assert splits.classes == ("background", "gland")
    for image in splits.train + splits.validation:
        assert image.label is None
        assert image.mask == tmp_path / f"{image.path.stem}_mask.png"
    check_masks(splits.train)
    assert check_sizes(splits.train, None) == (8, 6)


def test_masks_that_are_missing(masked: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "2_mask.png").unlink()
    message = refusal(split, masked, "segmentation")
    assert f"1 of 4 masks are missing: {tmp_path / '2_mask.png'}; relative" in message
    edit(tmp_path / "index.csv", "2_mask.png", "")
    message = refusal(split, masked, "segmentation")
    assert message.startswith(f"{masked.index}: line 4: 'mask' is empty; ")


def test_classes_of_masks_are_named(masked: DataConfig) -> None:
    assert refusal(split, masked.model_copy(update={"classes": ()}), "segmentation") == (
        "data.classes: name what the mask values 0, 1, ... mean, background first"
    )


def test_a_mask_of_another_size(masked: DataConfig, tmp_path: Path) -> None:
    Image.new("1", (6, 8)).save(tmp_path / "3_mask.png")
    splits = split(masked, "segmentation")
    assert refusal(check_masks, splits.train + splits.validation) == (
        f"{tmp_path / '3_mask.png'}: the mask is 6 x 8 px but its image {tmp_path / '3.webp'} "
        "8 x 6 px; they have to be of one size"
    )


def test_masks_are_checked_by_their_headers(masked: DataConfig, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "0_mask.png")
    splits = split(masked, "segmentation")
    message = refusal(check_masks, splits.train + splits.validation)
    assert "masks must hold integers" in message


VALUES = np.array([[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_integers_of_any_width(tmp_path: Path, dtype: Any, suffix: str) -> None:
    path = tmp_path / f"mask{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, VALUES.astype(dtype))
    else:
        Image.fromarray(VALUES.astype(np.uint16 if dtype is np.int32 else dtype)).save(path)
    mask = read_mask(path, 3)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, VALUES)
    np.testing.assert_array_equal(read_mask(path, 2), VALUES > 0)


def test_one_bit_and_a_palette(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(VALUES > 0).save(path)
    for classes in (2, 3):
        np.testing.assert_array_equal(read_mask(path, classes), VALUES > 0)
    palette = Image.fromarray(VALUES.astype(np.uint8), mode=None).convert("P")
    palette.putdata(VALUES.ravel().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(path)
    np.testing.assert_array_equal(read_mask(path, 3), VALUES)


def test_instances_are_foreground_of_two_classes(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray((VALUES * 30000).astype(np.uint16)).save(path)
    np.testing.assert_array_equal(read_mask(path, 2), VALUES > 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_value_that_is_no_class(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray((VALUES * 100).astype(dtype)).save(path)
    assert refusal(read_mask, path, 3) == (
        f"{path}: the mask holds the value 100, but the 3 classes are 0 to 2; "
        "renumber it, or name more in data.classes"
    )


def test_a_negative_value(tmp_path: Path) -> None:
    tifffile.imwrite(path := tmp_path / "mask.tif", (VALUES - 1).astype(np.int32))
    assert "holds the value -1," in refusal(read_mask, path, 3)


def test_masks_that_hold_no_integers(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, VALUES.astype(np.float32))
    assert refusal(read_mask, path, 3) == (
        f"{path}: masks must hold integers, one per pixel, but this is of pixel mode F; "
        "save class numbers as PNG"
    )
    for mode, suffix, what in (
        ("RGB", ".png", "of pixel mode RGB"),
        ("RGBA", ".png", "of pixel mode RGBA"),
        ("L", ".jpg", "JPEG, which blurs them"),
    ):
        path = tmp_path / f"mask{suffix}"
        Image.new(mode, (8, 6)).save(path)
        assert f"masks must hold integers, one per pixel, but this is {what};" in refusal(
            read_mask, path, 3
        )


def test_a_mask_that_is_inverted_by_some(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, VALUES > 0, photometric="miniswhite")
    assert "but this is a TIFF whose 0 is white (MinIsWhite), which" in refusal(read_mask, path, 2)
    tifffile.imwrite(path, VALUES > 0, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(path, 2), VALUES > 0)


def test_a_tiff_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="lzw")
    whole = path.read_bytes()
    for length in (10, 200, len(whole) - 5):
        path.write_bytes(whole[:length])
        assert refusal(read_mask, path, 2).startswith(f"{path}: cannot read the ")


def test_a_mask_that_is_cut_or_none(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert refusal(read_mask, path, 2).startswith(f"{path}: cannot read the mask: ")
    path.write_bytes(b"no image")
    message = f"{path}: cannot read the image: cannot identify image file"
    assert refusal(read_mask, path, 2).startswith(message)


# --- sizes


def images_of(folder: Path, *sizes: tuple[int, int]) -> list[LabelledImage]:
    images = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}{('.png', '.jpg', '.tif')[number % 3]}"
        Image.new("RGB", size).save(path)
        images.append(LabelledImage(path.name, path, None, 0, None, path.name, ""))
    return images


def test_sizes(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 30), (30, 40), (50, 50))
    assert check_sizes(images, 30) == (30, 30)
    assert check_sizes(images, 15, downsample=2) == (15, 15)
    assert check_sizes(images[:1], None, downsample=2) == (20, 15)


def test_sizes_that_differ_need_tiles(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 30), (40, 30), (30, 40))
    assert refusal(check_sizes, images, None) == (
        f"images differ in size: {images[0].path} is 40 x 30 px, {images[2].path} is 30 x 40 px; "
        "set data.tile_size to cut tiles of one size"
    )


def test_an_image_smaller_than_a_tile(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 40), (40, 31))
    assert refusal(check_sizes, images, 32) == (
        f"{images[1].path}: 40 x 31 px is smaller than data.tile_size 32; "
        "lower that, or leave the image out with data.where"
    )
    assert "40 x 31 px (averaged down by data.downsample 2) is smaller" in refusal(
        check_sizes, images, 16, 2
    )


def test_an_image_that_is_none(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 40))
    images[0].path.write_bytes(b"no image")
    assert refusal(check_sizes, images, 16).startswith(f"{images[0].path}: cannot read the image")
