"""From a user's data description to checked splits: what is read, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.builders import refusal, written_store
from wsi_norm.cohort.masks import check_sizes
from wsi_norm.cohort.splits import LabelledImage, Splits, limited, read_splits
from wsi_norm.config.train import DataConfig
from wsi_norm.errors import StoreError

COLUMNS = {"image": "image", "label": "label", "group": "case", "domain": "center"}


def split(
    data: DataConfig,
    task: Literal["classification", "segmentation"] = "classification",
    root: Path | None = None,
    seed: int = 0,
) -> Splits:
    return read_splits(data, task, root, seed)


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


@pytest.fixture
def stores(tmp_path: Path) -> DataConfig:
    """Two stores of 4 tiles, every second of them a tumour."""
    lines = ["store,row,label,domain"]
    for name in ("s.1", "s2"):
        written_store(tmp_path / f"{name}.zarr", 4)
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
    written_store(tmp_path / "other" / "s2", 1)
    twice = (*stores.stores, tmp_path / "other" / "s2")
    assert refusal(split, stores.model_copy(update={"stores": twice})) == (
        f"data.stores: {tmp_path / 's2.zarr'} and {tmp_path / 'other' / 's2'} have one name"
    )


def test_an_incomplete_store(stores: DataConfig, tmp_path: Path) -> None:
    written_store(tmp_path / "s2.zarr", 4, finish=False)
    with pytest.raises(StoreError, match="incomplete"):
        split(stores)


# --- few labels


def images_of(*kinds: tuple[str, int | None]) -> tuple[LabelledImage, ...]:
    """An image per (group, label)."""
    return tuple(
        LabelledImage(f"{n}.png", Path(f"{n}.png"), None, label, None, group, "")
        for n, (group, label) in enumerate(kinds)
    )


def test_a_limit_takes_of_every_group_in_turn() -> None:
    train = images_of(*[("a", None)] * 20, ("b", None), ("c", None), *[("d", None)] * 2)
    splits = Splits(train, train[:1], (), ("x", "y"))
    drawn = limited(splits, 7, 0)
    counts = Counter(image.group for image in drawn.train)
    assert counts == {"a": 3, "b": 1, "c": 1, "d": 2}
    assert [image for image in train if image in drawn.train] == list(drawn.train)
    assert drawn.validation == splits.validation
    assert limited(splits, 7, 0) == drawn
    assert any(limited(splits, 7, seed).train != drawn.train for seed in range(1, 5))
    assert limited(splits, None, 0) == limited(splits, 100, 0) == splits
    assert {len(limited(splits, 3, seed).train) for seed in range(4)} == {3}
    assert {len({i.group for i in limited(splits, 4, seed).train}) for seed in range(4)} == {4}


def test_a_limit_takes_of_every_class() -> None:
    """One image in ten is of class 1: the few have as many of either."""
    train = images_of(*((f"g{n % 5}", int(n % 10 == 0)) for n in range(100)))
    for seed in range(5):
        drawn = limited(Splits(train, (), (), ("x", "y")), 8, seed)
        assert Counter(image.label for image in drawn.train) == {0: 4, 1: 4}


def test_the_limit_of_the_settings(table: Path) -> None:
    whole, few = (split(described(table, **given)) for given in ({}, {"limit": 2}))
    assert len(whole.train) == 4
    assert {image.label for image in few.train} == {0, 1}
    assert len(few.train) == 2
    assert (few.validation, few.test) == (whole.validation, whole.test)
