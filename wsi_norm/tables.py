"""Tables that people write: CSV, read strictly, so that no slip of the hand passes silently."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wsi_norm.errors import ConfigError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_STATED_SEPARATOR = re.compile('"?sep=(.)"?', re.IGNORECASE)
"""First line of a table, by which a spreadsheet knows its separator."""
_COMMENT = "#"

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
    """A CSV of UTF-8, its cells separated by commas, semicolons or tabs, as its first line has it.

    Spaces around cells, empty rows and lines that begin with "#" do not count.

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
            separator, written = _separated(list(_uncommented(file)))
        lines = [(number, line) for number, line in _cells(written, separator) if any(line)]
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
                f"{len(header)} columns; quote fields that hold "
                f"{_SEPARATORS.get(separator, repr(separator))}, and leave empty ones in"
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


def _uncommented(lines: Iterable[str]) -> Iterator[str]:
    """Lines, those of comments emptied; inside quotes there are none."""
    quoted = False
    for line in lines:
        if line.startswith(_COMMENT) and not quoted:
            yield "\n"
        else:
            quoted ^= line.count('"') % 2 == 1
            yield line


def _separated(lines: list[str]) -> tuple[str, list[str]]:
    """What separates cells, and the lines without that which says so.

    What is stated, else whatever parts the first line into the most cells.
    """
    for number, line in enumerate(lines):
        text = line.strip("\r\n")
        if stated := _STATED_SEPARATOR.fullmatch(text):
            return stated[1], [*lines[:number], "\n", *lines[number + 1 :]]
        if text.strip():
            return max(_SEPARATORS, key=lambda s: len(next(csv.reader([text], delimiter=s)))), lines
    return ",", lines


def _cells(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row, and the line it begins on."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    begins = 1
    for line in reader:
        yield begins, [cell.strip() for cell in line]
        begins = reader.line_num + 1


def _check_header(path: Path, number: int, header: Sequence[str]) -> None:
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
