"""The index of a cohort: a CSV, or a folder as if it had one. No pixels, no splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_norm.config.reading import nearest
from wsi_norm.config.train import DataConfig
from wsi_norm.errors import ConfigError
from wsi_norm.tables import Row, Table, read_table

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Index(Table):
    """A row per image; `base` is where paths in it start."""

    base: Path

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


def read_folder(root: Path | None, data: DataConfig) -> Index:
    """A folder with a sub-folder per class, as an index; ConfigError if it is none."""
    assert data.folder is not None
    folder = under(root, data.folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder (data.folder)")
    rows = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        # Files and folders with a dot in front are what systems and programs note beside images.
        hidden = any(part.startswith(".") for part in name.parts)
        if file.suffix.lower() in _IMAGE_SUFFIXES and not hidden:
            label = name.parts[0] if len(name.parts) > 1 else ""
            if not label and not data.views:
                raise ConfigError(f"{file}: in no sub-folder; move it to that of its class")
            fields = {"image": name.as_posix(), "label": label, "group": file.stem}
            rows.append(Row(name.as_posix(), fields))
    if not rows:
        raise ConfigError(f"{folder}: no images in it; expected one sub-folder per class")
    return Index(folder, ("image", "label", "group"), rows, folder)


def read_index(root: Path | None, data: DataConfig) -> Index:
    """The CSV that `data` names; ConfigError if it cannot be read, or is no table."""
    named = data.index or data.labels
    assert named is not None, "DataConfig has seen to it"
    table = read_table(under(root, named), "a line of column names, then one per image")
    return Index(table.path, table.columns, table.rows, table.path.parent)


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
