"""What came of a trial, and the table of many: the only place where outcomes are counted."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version

PACKAGES = ("wsi-norm", "dask", "distributed", "zarr", "openslide-bin", "tiffslide", "tifffile")
"""Packages whose version is stated beside the table."""


@dataclass(frozen=True)
class Outcome:
    """What came of one fault done once.

    Attributes
    ----------
    fault
        The row of the table.
    survived
        What is expected came: the exit status, the lines, the store.
    lost, duplicated
        Tiles that are missing at the end, or are there (or were written) more than once.
    silent
        Wrong pixels or a damaged store, and nothing says so.
    hang
        No end within the limit, or processes that outlive their command.
    why
        Where it was not survived: what was seen.
    """

    fault: str
    survived: bool
    lost: int = 0
    duplicated: int = 0
    silent: bool = False
    hang: bool = False
    why: str = ""

    @property
    def held(self) -> bool:
        """Whether nothing at all is to be said against it."""
        return self.survived and not (self.lost or self.duplicated or self.silent or self.hang)


HEADINGS = ("fault", "times tried", "survived", "tiles lost", "duplicated", "silent", "hangs")


def rows(outcomes: Iterable[Outcome]) -> list[tuple[str, ...]]:
    """A row per fault in the order of their first trials, and the sums at the end."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for fault in (outcome.fault, ""):
            row = counts.setdefault(fault, Counter())
            row["tried"] += 1
            for name in (field.name for field in fields(Outcome)[1:-1]):
                row[name] += int(getattr(outcome, name))
    columns = ("tried", "survived", "lost", "duplicated", "silent", "hang")
    named = sorted(counts, key=lambda fault: fault == "")
    return [(fault or "**all**", *(str(counts[fault][key]) for key in columns)) for fault in named]


def table(outcomes: Iterable[Outcome]) -> str:
    """In Markdown."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows(outcomes)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def versions() -> str:
    """Date, Python, system and packages, in a line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {system}, {packages}"
