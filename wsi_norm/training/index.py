"""Which images to train and judge on: a table, a folder or stores, as checked splits.

What can be wrong with them is found here, before a training begins. No torch, and no pixels but
those of `read_mask`.
"""

from __future__ import annotations

import csv
import hashlib
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from wsi_norm.config.reading import nearest
from wsi_norm.config.train import DataConfig, Task
from wsi_norm.errors import ConfigError
from wsi_norm.slide.readers import OPEN_ERRORS
from wsi_norm.store import TileStore

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_INTEGER_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"})


@dataclass(frozen=True)
class LabelledImage:
    """One image of a split.

    Attributes
    ----------
    name
        As the table has it (a relative path), or `store:row`.
    path, row
        An image file and None, or the folder of a store and a row of it.
    label
        Class index; None for segmentation, and where views are the classes.
    mask
        Mask file (segmentation).
    group
        Case or slide: statistics and splits go by it.
    domain
        Centre or scanner; empty if unknown.
    """

    name: str
    path: Path
    row: int | None
    label: int | None
    mask: Path | None
    group: str
    domain: str


@dataclass(frozen=True)
class Splits:
    """Images to train, select and judge on; no image and no group is in two of them."""

    train: tuple[LabelledImage, ...]
    validation: tuple[LabelledImage, ...]
    test: tuple[LabelledImage, ...]
    classes: tuple[str, ...]


class _Row(NamedTuple):
    where: str  # "line 7", or the file in its folder
    fields: Mapping[str, str]


class _Entry(NamedTuple):
    row: _Row
    image: LabelledImage


_Entries = dict[str, list[_Entry]]


@dataclass(frozen=True)
class _Table:
    """Rows of a CSV, or of a folder as if it had one; `base` is where their paths start."""

    path: Path
    base: Path
    columns: Sequence[str]
    rows: Sequence[_Row]

    def column(self, name: str, setting: str) -> str:
        """`name`, if it is a column."""
        if name not in self.columns:
            raise ConfigError(
                f"{self.path}: no column {name!r} (data.{setting})"
                f"{nearest(name, self.columns)}; its first line names {_some(self.columns)}"
            )
        return name

    def cell(self, row: _Row, column: str) -> str:
        """What stands there, which must be something."""
        if not row.fields[column]:
            raise ConfigError(
                f"{self.path}: {row.where}: {column!r} is empty; fill it in, "
                "or leave the row out with data.where"
            )
        return row.fields[column]

    def matching(self, accepted: Mapping[str, Sequence[str]], setting: str) -> list[_Row]:
        """The rows that a filter accepts: at least one."""
        for column in accepted:
            self.column(column, setting)
        found = [r for r in self.rows if all(r.fields[c] in v for c, v in accepted.items())]
        if not found:
            held = {column: {row.fields[column] for row in self.rows} for column in accepted}
            wrong = [c for c, v in accepted.items() if not held[c] & set(v)] or [*accepted]
            asked = " and ".join(f"{c} {' or '.join(v)}" for c, v in accepted.items())
            there = "; ".join(f"{c!r} holds {_some(_in_order(held[c]))}" for c in wrong)
            raise ConfigError(f"{self.path}: data.{setting} ({asked}) matches no row; {there}")
        return found


def read_splits(data: DataConfig, task: Task, root: Path | None, seed: int) -> Splits:
    """The images of every split, checked.

    Parameters
    ----------
    data
        What the user says of the images: settings `data`.
    task
        Whether images have a label or a mask.
    root
        Where relative paths in `data` start; None: this folder. Those in a table start at the
        table's folder.
    seed
        Draws the groups of a validation share: the same ones whatever the order of the table.

    Raises
    ------
    ConfigError
        The table, the images or the splits are not as they have to be: one line.
    StoreError
        A store is missing, incomplete or damaged.
    """
    table = _read_folder(root, data) if data.folder else _read_csv(root, data)
    if data.where:
        table = replace(table, rows=table.matching(data.where, "where"))
    roles = _roles(table, data, task)
    splits = _split(table, data, roles, _stores(root, data), seed)
    _check_apart(table, splits)
    if label := roles["label"]:
        found = {table.cell(entry.row, label) for entry in splits["train"]}
        if len(found) == 1:
            raise ConfigError(
                f"{table.path}: every training image is of the class {found.pop()!r}; two or more "
                "are needed: check data.train and the labels"
            )
        classes = data.classes or tuple(_in_order(found))
        splits = {name: _labelled(table, split, label, classes) for name, split in splits.items()}
    else:
        classes = _named_classes(data)
    _check_files(table, splits)
    images = {name: tuple(entry.image for entry in split) for name, split in splits.items()}
    return Splits(images["train"], images["validation"], images["test"], classes)


def check_masks(images: Iterable[LabelledImage]) -> None:
    """Check by their headers that masks are as large as their images and hold integers.

    Raises
    ------
    ConfigError
        They do not, or a header cannot be read.
    """
    for image in images:
        if image.mask is None:
            continue
        with _opened_mask(image.mask) as mask:
            size = mask.size
        if size != (expected := _size(image)):
            raise ConfigError(
                f"{image.mask}: the mask is {_px(size)} but its image {image.path} "
                f"{_px(expected)}; they have to be of one size"
            )


def check_sizes(
    images: Iterable[LabelledImage], tile_size: int | None, downsample: int = 1
) -> tuple[int, int]:
    """(width, height) in px of what the network will see; only headers are read.

    Parameters
    ----------
    images
        At least one.
    tile_size
        Edge of the tiles that are cut; None: images are taken whole.
    downsample
        Images are averaged down by this before tiles are cut.

    Raises
    ------
    ConfigError
        Whole images differ in size, an image is smaller than a tile, or a header is damaged.
    """
    sizes = _sizes(images)
    first, common = next(sizes)
    for path, size in [(first, common), *sizes]:
        if tile_size is None and size != common:
            raise ConfigError(
                f"images differ in size: {first} is {_px(common)}, {path} is {_px(size)}; "
                "set data.tile_size to cut tiles of one size"
            )
        if min(size) // downsample < (tile_size or 1):
            after = f" (averaged down by data.downsample {downsample})" if downsample > 1 else ""
            raise ConfigError(
                f"{path}: {_px(size)}{after} is smaller than data.tile_size {tile_size or 1}; "
                "lower that, or leave the image out with data.where"
            )
    width, height = (tile_size or edge // downsample for edge in common)
    return width, height


def read_mask(path: Path, classes: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W): class of every pixel.

    Parameters
    ----------
    path
        An image of 1, 8, 16 or 32 bit integers, or with a palette, whose indices count.
    classes
        With two, whatever is not 0 is 1: masks may number their objects.

    Raises
    ------
    ConfigError
        It cannot be read, holds no integers, or a value is no class.
    """
    with _opened_mask(path) as mask:
        try:
            with warnings.catch_warnings(action="ignore"):  # the error that follows says it all
                values = np.asarray(mask)
        except OPEN_ERRORS as error:
            raise ConfigError(f"{path}: cannot read the mask: {_line(error)}") from error
    if classes == 2:
        values = values != 0
    wrong = np.unique(values[(values < 0) | (values >= classes)])
    if wrong.size:
        raise ConfigError(
            f"{path}: the mask holds the value {wrong[0]}, but the {classes} classes are 0 to "
            f"{classes - 1}; renumber it, or name more in data.classes"
        )
    return np.asarray(values, np.uint8)


def _read_folder(root: Path | None, data: DataConfig) -> _Table:
    assert data.folder is not None
    folder = _under(root, data.folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder (data.folder)")
    rows = []
    for file in sorted(folder.rglob("*")):
        # Names with a dot in front are no images but what systems note beside them.
        if file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith("."):
            name = file.relative_to(folder)
            label = name.parts[0] if len(name.parts) > 1 else ""
            if not label and not data.views:
                raise ConfigError(f"{file}: in no sub-folder; move it to that of its class")
            fields = {"image": name.as_posix(), "label": label, "group": file.stem}
            rows.append(_Row(name.as_posix(), fields))
    if not rows:
        raise ConfigError(f"{folder}: no images in it; expected one sub-folder per class")
    return _Table(folder, folder, ("image", "label", "group"), rows)


def _read_csv(root: Path | None, data: DataConfig) -> _Table:
    named = data.index or data.labels
    assert named is not None, "DataConfig has seen to it"
    path = _under(root, named)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot read the table: {reason}") from error
    lines = [(number, line) for number, line in lines if any(line)]  # spreadsheets leave blanks
    if len(lines) < 2:
        what = "no rows below its first line" if lines else "an empty file"
        raise ConfigError(f"{path}: {what}; expected a line of column names, then one per image")
    header = lines[0][1]
    for separator in ";\t":
        if len(header) == 1 and separator in header[0]:
            raise ConfigError(
                f"{path}: columns are separated by {separator!r}; save it with commas"
            )
    for name in header:
        if name and header.count(name) > 1:
            raise ConfigError(f"{path}: line 1 names {name!r} twice; it holds the columns' names")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise ConfigError(
                f"{path}: line {number} has {len(line)} fields but line 1 names {len(header)} "
                "columns; quote fields that hold commas"
            )
    rows = [_Row(f"line {n}", dict(zip(header, line, strict=True))) for n, line in lines[1:]]
    return _Table(path, path.parent, header, rows)


def _roles(table: _Table, data: DataConfig, task: Task) -> dict[str, str | None]:
    """Which column holds what; None where nothing does, or nothing is needed."""
    roles: dict[str, str | None] = data.columns.model_dump()
    if data.folder:
        roles = dict.fromkeys(roles) | {name: name for name in table.columns}
    elif data.stores:  # their table's columns are known by name
        table.column("row", "labels")
        known = {name: name for name in ("label", "group", "domain") if name in table.columns}
        roles = {role: name or known.get(role) for role, name in roles.items()}
        roles["image"] = "store"
    if task == "classification":
        roles["mask"] = None
        roles["label"] = None if data.views else roles["label"] or "label"
    else:
        roles |= {"label": None, "mask": roles["mask"] or "mask"}
    return {
        role: table.column(name, f"columns.{role}") if name is not None else None
        for role, name in roles.items()
    }


def _stores(root: Path | None, data: DataConfig) -> dict[str, tuple[Path, int]]:
    """Name of each store to its path and how many rows it has."""
    stores: dict[str, tuple[Path, int]] = {}
    for store in data.stores:
        path = _under(root, store)
        name = path.name.removesuffix(".zarr")
        if name in stores:
            raise ConfigError(f"data.stores: {stores[name][0]} and {path} have one name")
        stores[name] = path, len(TileStore.open(path))
    return stores


def _split(
    table: _Table,
    data: DataConfig,
    roles: Mapping[str, str | None],
    stores: Mapping[str, tuple[Path, int]],
    seed: int,
) -> _Entries:
    share = data.validation
    filters = {"validation": share if isinstance(share, dict) else {}, "test": data.test}
    found = {name: table.matching(f, name) if f else [] for name, f in filters.items()}
    taken = {row.where for rows in found.values() for row in rows}
    left = [row for row in table.rows if row.where not in taken]
    train = table.matching(data.train, "train") if data.train else left
    if not train:
        raise ConfigError(f"{table.path}: data.validation and data.test leave no row to train on")
    splits = {
        name: [_entry(table, row, roles, stores) for row in rows]
        for name, rows in {"train": train, **found}.items()
    }
    if not isinstance(share, dict):
        drawn = _draw(table, splits["train"], share, seed)
        splits["validation"] = [e for e in splits["train"] if e.image.group in drawn]
        splits["train"] = [e for e in splits["train"] if e.image.group not in drawn]
    return splits


def _entry(
    table: _Table,
    row: _Row,
    roles: Mapping[str, str | None],
    stores: Mapping[str, tuple[Path, int]],
) -> _Entry:
    """The image of a row; its label is looked up when the classes are known."""
    name = table.cell(row, roles["image"] or "")
    path, number, group = table.base / name, None, name
    if stores:
        path, number = _tile(table, row, name, stores)
        group = path.name.removesuffix(".zarr")  # tiles of a slide belong together
        name = f"{group}:{number}"
    image = LabelledImage(
        name=name,
        path=path,
        row=number,
        label=None,
        mask=table.base / table.cell(row, roles["mask"]) if roles["mask"] else None,
        group=table.cell(row, roles["group"]) if roles["group"] else group,
        domain=row.fields[roles["domain"]] if roles["domain"] else "",
    )
    return _Entry(row, image)


def _tile(
    table: _Table, row: _Row, store: str, stores: Mapping[str, tuple[Path, int]]
) -> tuple[Path, int]:
    line, name = f"{table.path}: {row.where}", store.removesuffix(".zarr")
    if name not in stores:
        known = _some(sorted(stores))
        raise ConfigError(f"{line}: the store {store!r} is none of data.stores ({known})")
    path, length = stores[name]
    number = table.cell(row, "row")
    if not number.isdecimal() or int(number) >= length:
        raise ConfigError(f"{line}: no row {number!r} in {path}, which has rows 0 to {length - 1}")
    return path, int(number)


def _draw(table: _Table, entries: Sequence[_Entry], share: float, seed: int) -> set[str]:
    """A share of the groups, of every domain as near to it as whole groups allow."""

    def lot(name: str) -> bytes:  # a digest: no version of a generator changes the draw
        return hashlib.sha256(f"{seed}:{name}".encode()).digest()

    domains: dict[str, set[str]] = {}
    for _, image in entries:
        domains.setdefault(image.group, set()).add(image.domain)
    strata: dict[str, list[str]] = {}
    for group in sorted(domains, key=lot):
        strata.setdefault("\n".join(sorted(domains[group])), []).append(group)
    number = round(share * len(domains))
    if not 0 < number < len(domains):
        raise ConfigError(
            f"{table.path}: data.validation {share:g} of {len(domains)} training groups leaves "
            f"none to {'train' if number else 'validate'} on: too few groups; "
            "give another share or a filter, or more groups"
        )
    parts = {stratum: int(share * len(groups)) for stratum, groups in strata.items()}
    by_rest = sorted(strata, key=lambda s: (parts[s] - share * len(strata[s]), lot(s)))
    for stratum in by_rest[: max(0, number - sum(parts.values()))]:
        parts[stratum] += 1
    return {group for stratum, groups in strata.items() for group in groups[: parts[stratum]]}


def _check_apart(table: _Table, splits: _Entries) -> None:
    """No image twice, and no group in two splits: results would look better than they are."""
    images: dict[tuple[str, int | None], tuple[str, str]] = {}
    groups: dict[str, tuple[str, str]] = {}
    for split, entries in splits.items():
        for (where, _), image in entries:
            here = split, where
            first = images.setdefault((os.path.abspath(image.path), image.row), here)
            if first != here and first[0] == split:
                raise ConfigError(
                    f"{table.path}: {image.name} is listed twice in {split} ({first[1]} and "
                    f"{where}); remove one"
                )
            what, remedy = image.name, "make their filters exclude each other"
            if first == here:
                first = groups.setdefault(image.group, here)
                what = f"the group {image.group!r}"
                remedy = "whole groups belong into one split"
            if first[0] != split:
                raise ConfigError(
                    f"{table.path}: {what} is in {first[0]} ({first[1]}) and in {split} "
                    f"({where}); {remedy}"
                )


def _labelled(
    table: _Table, entries: Sequence[_Entry], column: str, classes: Sequence[str]
) -> list[_Entry]:
    numbers = {name: number for number, name in enumerate(classes)}
    for row, _ in entries:
        label = table.cell(row, column)
        if label not in numbers:
            raise ConfigError(
                f"{table.path}: {row.where}: the label {label!r} is none of the classes "
                f"{_some(classes)}; add it to data.classes or leave it out with data.where"
            )
    return [_Entry(r, replace(image, label=numbers[r.fields[column]])) for r, image in entries]


def _named_classes(data: DataConfig) -> tuple[str, ...]:
    """Classes that stand in no table: views, or the values of masks."""
    if len(classes := tuple(data.views) or data.classes) > 1:
        return classes
    if data.views:
        raise ConfigError("data.views: name two classes or more")
    raise ConfigError("data.classes: name what the mask values 0, 1, ... mean, background first")


def _check_files(table: _Table, splits: _Entries) -> None:
    images = [entry.image for entries in splits.values() for entry in entries]
    files = {
        "images": [image.path for image in images if image.row is None],
        "masks": [image.mask for image in images if image.mask is not None],
    }
    for kind, paths in files.items():
        missing = [str(path) for path in paths if not os.path.isfile(path)]
        if missing:
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ConfigError(
                f"{table.path}: {len(missing)} of {len(paths)} {kind} are missing: {names}; "
                f"relative paths start at {table.base}"
            )


def _sizes(images: Iterable[LabelledImage]) -> Iterator[tuple[Path, tuple[int, int]]]:
    stores: set[Path] = set()
    for image in images:
        if image.path not in stores:
            yield image.path, _size(image)
        if image.row is not None:  # all tiles of a store are of one size
            stores.add(image.path)


def _size(image: LabelledImage) -> tuple[int, int]:
    if image.row is not None:
        edge = TileStore.open(image.path).meta.tiling.tile_size_px
        return edge, edge
    with _opened(image.path) as opened:
        return opened.size


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings(action="ignore"):
            return Image.open(path)
    except OPEN_ERRORS as error:
        raise ConfigError(f"{path}: cannot read the image: {_line(error)}") from error


def _opened_mask(path: Path) -> Image.Image:
    mask = _opened(path)
    kind = None if mask.mode in _INTEGER_MODES else f"of pixel mode {mask.mode}"
    if mask.format == "JPEG":
        kind = "JPEG, which blurs them"
    elif isinstance(mask, TiffImageFile) and mask.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
        # Pillow turns its values over, others do not: background and foreground would be swapped.
        kind = "a TIFF whose 0 is white (MinIsWhite), which readers understand differently"
    if kind is None:
        return mask
    mask.close()
    raise ConfigError(
        f"{path}: masks must hold integers, one per pixel, but this is {kind}; "
        "save class numbers as PNG"
    )


def _under(root: Path | None, path: Path) -> Path:
    return path if root is None else root / path


def _in_order(values: Collection[str]) -> list[str]:
    """Sorted: as integers if all are."""
    if all(value.removeprefix("-").isdecimal() for value in values):
        return sorted(values, key=lambda value: (int(value), value))
    return sorted(values)


def _some(values: Sequence[str], most: int = 12) -> str:
    return ", ".join(values[:most]) + (f" ... ({len(values)})" if len(values) > most else "")


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
