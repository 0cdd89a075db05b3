"""A table of images: rows of a CSV, or of a folder as if it had one. No pixels, no splits."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wsi_norm.config.reading import nearest
from wsi_norm.config.train import DataConfig
from wsi_norm.errors import ConfigError

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


class Row(NamedTuple):
    """A row and where it stands."""

    where: str
    """"line 7", or the file in its folder"""
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """Rows of a CSV, or of a folder as if it had one; `base` is where their paths start."""

    path: Path
    base: Path
    columns: Sequence[str]
    rows: Sequence[Row]

    def column(self, name: str, setting: str) -> str:
        """`name`, if it is a column."""
        if name not in self.columns:
            raise ConfigError(
                f"{self.path}: no column {name!r} (data.{setting})"
                f"{nearest(name, self.columns)}; its first line names {listed(self.columns)}"
            )
        return name

    def cell(self, row: Row, column: str) -> str:
        """What stands there, which must be something."""
        if not row.fields[column]:
            raise ConfigError(
                f"{self.path}: {row.where}: {column!r} is empty; fill it in, "
                "or leave the row out with data.where"
            )
        return row.fields[column]

    def matching(self, accepted: Mapping[str, Sequence[str]], setting: str) -> list[Row]:
        """The rows that a filter accepts: at least one."""
        for column in accepted:
            self.column(column, setting)
        found = [r for r in self.rows if all(r.fields[c] in v for c, v in accepted.items())]
        if not found:
            held = {column: {row.fields[column] for row in self.rows} for column in accepted}
            wrong = [c for c, v in accepted.items() if not held[c] & set(v)] or [*accepted]
            asked = " and ".join(f"{c} {' or '.join(v)}" for c, v in accepted.items())
            there = "; ".join(f"{c!r} holds {listed(in_order(held[c]))}" for c in wrong)
            raise ConfigError(f"{self.path}: data.{setting} ({asked}) matches no row; {there}")
        return found


def read_folder(root: Path | None, data: DataConfig) -> Table:
    """A folder with a sub-folder per class, as a table; ConfigError if it is none."""
    assert data.folder is not None
    folder = under(root, data.folder)
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
            rows.append(Row(name.as_posix(), fields))
    if not rows:
        raise ConfigError(f"{folder}: no images in it; expected one sub-folder per class")
    return Table(folder, folder, ("image", "label", "group"), rows)


def read_table(root: Path | None, data: DataConfig) -> Table:
    """The CSV that `data` names; ConfigError if it cannot be read, or is no table."""
    named = data.index or data.labels
    assert named is not None, "DataConfig has seen to it"
    path = under(root, named)
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
    rows = [Row(f"line {n}", dict(zip(header, line, strict=True))) for n, line in lines[1:]]
    return Table(path, path.parent, header, rows)


def under(root: Path | None, path: Path) -> Path:
    """`path`, from `root` on if it is relative; None: from this folder on."""
    return path if root is None else root / path


def in_order(values: Collection[str]) -> list[str]:
    """Sorted: as integers if all are."""
    if all(value.removeprefix("-").isdecimal() for value in values):
        return sorted(values, key=lambda value: (int(value), value))
    return sorted(values)


def listed(values: Sequence[str], most: int = 12) -> str:
    """The first of `values` for a message, and how many there are if not all stand there."""
    return ", ".join(values[:most]) + (f" ... ({len(values)})" if len(values) > most else "")
