"""Which images to train and judge on: a table, a folder or stores, as checked splits.

What can be wrong with them is found here, before a training begins. No torch, no pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from wsi_norm.cohort.index import Index, in_order, listed, read_folder, read_index, under
from wsi_norm.config.train import DataConfig, Task
from wsi_norm.errors import ConfigError
from wsi_norm.store import TileStore
from wsi_norm.tables import Row


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


class _Entry(NamedTuple):
    row: Row
    image: LabelledImage


_Entries = dict[str, list[_Entry]]


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
    index = read_folder(root, data) if data.folder else read_index(root, data)
    if data.where:
        index = replace(index, rows=index.matching(data.where, "where"))
    roles = _roles(index, data, task)
    splits = _split(index, data, roles, _stores(root, data), seed)
    _check_apart(index, splits)
    if label := roles["label"]:
        found = {index.cell(entry.row, label) for entry in splits["train"]}
        if len(found) == 1:
            raise ConfigError(
                f"{index.path}: every training image is of the class {found.pop()!r}; two or more "
                "are needed: check data.train and the labels"
            )
        classes = data.classes or tuple(in_order(found))
        splits = {name: _labelled(index, split, label, classes) for name, split in splits.items()}
    else:
        classes = _named_classes(data)
    _check_files(index, splits)
    images = {name: tuple(entry.image for entry in split) for name, split in splits.items()}
    whole = Splits(images["train"], images["validation"], images["test"], classes)
    return limited(whole, data.limit, seed)


def limited(splits: Splits, most: int | None, seed: int) -> Splits:
    """At most so many training images: those of classes in turn, and of a class's groups in turn.

    Which ones, the seed draws; their order stays. None leaves all.
    """
    if most is None:
        return splits
    turns: list[tuple[int, int, LabelledImage]] = []
    for label in {image.label for image in splits.train}:
        groups: dict[str, int] = {}
        ranked: list[tuple[int, bytes, LabelledImage]] = []
        own = [image for image in splits.train if image.label == label]
        for image in sorted(own, key=lambda image: _lot(seed, image.name)):
            place = groups[image.group] = groups.get(image.group, -1) + 1
            ranked.append((place, _lot(seed, f"{label}:{image.group}"), image))
        ranked.sort(key=lambda turn: turn[:2])
        turns += [(place, label or 0, image) for place, (*_, image) in enumerate(ranked)]
    turns.sort(key=lambda turn: turn[:2])
    drawn = {image for *_, image in turns[:most]}
    return replace(splits, train=tuple(image for image in splits.train if image in drawn))


def _roles(index: Index, data: DataConfig, task: Task) -> dict[str, str | None]:
    """Which column holds what; None where nothing does, or nothing is needed."""
    roles: dict[str, str | None] = data.columns.model_dump()
    if data.folder:
        roles = dict.fromkeys(roles) | {name: name for name in index.columns}
    elif data.stores:  # their table's columns are known by name
        index.column("row", "labels")
        known = {name: name for name in ("label", "group", "domain") if name in index.columns}
        roles = {role: name or known.get(role) for role, name in roles.items()}
        roles["image"] = "store"
    if task == "classification":
        roles["mask"] = None
        roles["label"] = None if data.views else roles["label"] or "label"
    else:
        roles |= {"label": None, "mask": roles["mask"] or "mask"}
    return {
        role: index.column(name, f"columns.{role}") if name is not None else None
        for role, name in roles.items()
    }


def _stores(root: Path | None, data: DataConfig) -> dict[str, tuple[Path, int]]:
    """Name of each store to its path and how many rows it has."""
    stores: dict[str, tuple[Path, int]] = {}
    for store in data.stores:
        path = under(root, store)
        name = path.name.removesuffix(".zarr")
        if name in stores:
            raise ConfigError(f"data.stores: {stores[name][0]} and {path} have one name")
        stores[name] = path, len(TileStore.open(path))
    return stores


def _split(
    index: Index,
    data: DataConfig,
    roles: Mapping[str, str | None],
    stores: Mapping[str, tuple[Path, int]],
    seed: int,
) -> _Entries:
    share = data.validation
    filters = {"validation": share if isinstance(share, dict) else {}, "test": data.test}
    found = {name: index.matching(f, name) if f else [] for name, f in filters.items()}
    taken = {row.where for rows in found.values() for row in rows}
    left = [row for row in index.rows if row.where not in taken]
    train = index.matching(data.train, "train") if data.train else left
    if not train:
        raise ConfigError(f"{index.path}: data.validation and data.test leave no row to train on")
    splits = {
        name: [_entry(index, row, roles, stores) for row in rows]
        for name, rows in {"train": train, **found}.items()
    }
    if not isinstance(share, dict):
        drawn = _draw(index, splits["train"], share, seed)
        splits["validation"] = [e for e in splits["train"] if e.image.group in drawn]
        splits["train"] = [e for e in splits["train"] if e.image.group not in drawn]
    return splits


def _entry(
    index: Index,
    row: Row,
    roles: Mapping[str, str | None],
    stores: Mapping[str, tuple[Path, int]],
) -> _Entry:
    """The image of a row; its label is looked up when the classes are known."""
    name = index.cell(row, roles["image"] or "")
    path, number, group = index.base / name, None, name
    if stores:
        path, number = _tile(index, row, name, stores)
        group = path.name.removesuffix(".zarr")  # tiles of a slide belong together
        name = f"{group}:{number}"
    image = LabelledImage(
        name=name,
        path=path,
        row=number,
        label=None,
        mask=index.base / index.cell(row, roles["mask"]) if roles["mask"] else None,
        group=index.cell(row, roles["group"]) if roles["group"] else group,
        domain=row.fields[roles["domain"]] if roles["domain"] else "",
    )
    return _Entry(row, image)


def _tile(
    index: Index, row: Row, store: str, stores: Mapping[str, tuple[Path, int]]
) -> tuple[Path, int]:
    line, name = f"{index.path}: {row.where}", store.removesuffix(".zarr")
    if name not in stores:
        known = listed(sorted(stores))
        raise ConfigError(f"{line}: the store {store!r} is none of data.stores ({known})")
    path, length = stores[name]
    number = index.cell(row, "row")
    if not number.isdecimal() or int(number) >= length:
        raise ConfigError(f"{line}: no row {number!r} in {path}, which has rows 0 to {length - 1}")
    return path, int(number)


def _draw(index: Index, entries: Sequence[_Entry], share: float, seed: int) -> set[str]:
    """A share of the groups, of every domain as near to it as whole groups allow."""

    def lot(name: str) -> bytes:
        return _lot(seed, name)

    domains: dict[str, set[str]] = {}
    for _, image in entries:
        domains.setdefault(image.group, set()).add(image.domain)
    strata: dict[str, list[str]] = {}
    for group in sorted(domains, key=lot):
        strata.setdefault("\n".join(sorted(domains[group])), []).append(group)
    number = round(share * len(domains))
    if not 0 < number < len(domains):
        raise ConfigError(
            f"{index.path}: data.validation {share:g} of {len(domains)} training groups leaves "
            f"none to {'train' if number else 'validate'} on: too few groups; "
            "give another share or a filter, or more groups"
        )
    parts = {stratum: int(share * len(groups)) for stratum, groups in strata.items()}
    by_rest = sorted(strata, key=lambda s: (parts[s] - share * len(strata[s]), lot(s)))
    for stratum in by_rest[: max(0, number - sum(parts.values()))]:
        parts[stratum] += 1
    return {group for stratum, groups in strata.items() for group in groups[: parts[stratum]]}


def _lot(seed: int, name: str) -> bytes:
    """A draw by a digest: no version of a generator changes it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _check_apart(index: Index, splits: _Entries) -> None:
    """No image twice, and no group in two splits: results would look better than they are."""
    images: dict[tuple[str, int | None], tuple[str, str]] = {}
    groups: dict[str, tuple[str, str]] = {}
    for split, entries in splits.items():
        for (where, _), image in entries:
            here = split, where
            first = images.setdefault((os.path.abspath(image.path), image.row), here)
            if first != here and first[0] == split:
                raise ConfigError(
                    f"{index.path}: {image.name} is listed twice in {split} ({first[1]} and "
                    f"{where}); remove one"
                )
            what, remedy = image.name, "make their filters exclude each other"
            if first == here:
                first = groups.setdefault(image.group, here)
                what = f"the group {image.group!r}"
                remedy = "whole groups belong into one split"
            if first[0] != split:
                raise ConfigError(
                    f"{index.path}: {what} is in {first[0]} ({first[1]}) and in {split} "
                    f"({where}); {remedy}"
                )


def _labelled(
    index: Index, entries: Sequence[_Entry], column: str, classes: Sequence[str]
) -> list[_Entry]:
    numbers = {name: number for number, name in enumerate(classes)}
    for row, _ in entries:
        label = index.cell(row, column)
        if label not in numbers:
            raise ConfigError(
                f"{index.path}: {row.where}: the label {label!r} is none of the classes "
                f"{listed(classes)}; add it to data.classes or leave it out with data.where"
            )
    return [_Entry(r, replace(image, label=numbers[r.fields[column]])) for r, image in entries]


def _named_classes(data: DataConfig) -> tuple[str, ...]:
    """Classes that stand in no table: views, or the values of masks."""
    if len(classes := tuple(data.views) or data.classes) > 1:
        return classes
    if data.views:
        raise ConfigError("data.views: name two classes or more")
    raise ConfigError("data.classes: name what the mask values 0, 1, ... mean, background first")


def _check_files(index: Index, splits: _Entries) -> None:
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
                f"{index.path}: {len(missing)} of {len(paths)} {kind} are missing: {names}; "
                f"relative paths start at {index.base}"
            )
