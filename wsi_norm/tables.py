"""Tables that people write: CSV, read strictly, so that no slip of the hand passes silently."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from wsi_norm.errors import ConfigError

_ABBREVIATION = 3
"""Letters that the beginning of a name must have to be taken for the name."""


class Row(NamedTuple):
    """A row and where it stands."""

    where: str
    """"line 7", or the file in its folder"""
    fields: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table: its file, the names of its columns, and rows that all have these columns."""

    path: Path
    columns: Sequence[str]
    rows: Sequence[Row]


def read_table(path: Path, expected: str) -> Table:
    """A CSV of UTF-8 with commas; spaces around cells and empty rows do not count.

    Parameters
    ----------
    path
        The file.
    expected
        What has to stand in it, for the message where nothing does.

    Raises
    ------
    ConfigError
        It cannot be read, has no rows, names a column twice, or a row has more or fewer fields
        than the first line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, line) for number, line in _lines(file) if any(line)]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot read the table: {reason}") from error
    if not lines:
        raise ConfigError(f"{path}: an empty file; expected {expected}")
    (first, header), *rest = lines
    _check_header(path, first, header)
    if not rest:
        raise ConfigError(f"{path}: no rows below its first line; expected {expected}")
    for number, line in rest:
        if len(line) != len(header):
            raise ConfigError(
                f"{path}: line {number} has {len(line)} fields but line {first} names "
                f"{len(header)} columns; quote fields that hold commas, and leave empty ones in"
            )
    rows = [Row(f"line {number}", dict(zip(header, line, strict=True))) for number, line in rest]
    return Table(path, header, rows)


def misspelt(name: str, known: Collection[str]) -> str | None:
    """The known name that is meant by one that is not known; None where none is near.

    Near is a name with one letter missing, too many, wrong or swapped with the next, and one that
    begins the other ("mask" for "mask_path", "mpp_um" for "mpp").
    """
    if name in known:
        return None
    return next((other for other in known if _begins(name, other) or _one_slip(name, other)), None)


def _lines(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row, and the line it begins on."""
    reader = csv.reader(file, skipinitialspace=True, strict=True)
    begins = 1
    for line in reader:
        yield begins, [cell.strip() for cell in line]
        begins = reader.line_num + 1


def _check_header(path: Path, number: int, header: Sequence[str]) -> None:
    for separator in ";\t":
        if len(header) == 1 and separator in header[0]:
            raise ConfigError(
                f"{path}: columns are separated by {separator!r}; save it with commas"
            )
    for name in header:
        if name and header.count(name) > 1:
            raise ConfigError(
                f"{path}: line {number} names {name!r} twice; it holds the columns' names"
            )


def _begins(name: str, other: str) -> bool:
    return min(len(name), len(other)) >= _ABBREVIATION and (
        name.startswith(other) or other.startswith(name)
    )


def _one_slip(name: str, other: str) -> bool:
    pairs = enumerate(zip(name, other, strict=False))
    first = next((place for place, (a, b) in pairs if a != b), min(len(name), len(other)))
    wrong, right = name[first:], other[first:]
    return (
        wrong[1:] == right[1:]
        or wrong[1:] == right  # one too many
        or wrong == right[1:]  # one missing
        or (wrong[:2] == right[:2][::-1] and wrong[2:] == right[2:])
    )
