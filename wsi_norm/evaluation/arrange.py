"""Predictions as arrays: in a condition and domain the same items, in one order, for all runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wsi_norm.cohort.scores import Float, Int
from wsi_norm.errors import ConfigError

KEYS = ("method", "seed", "condition", "domain", "group", "item")
"""Columns that every table of predictions has."""


@dataclass(frozen=True)
class Domain:
    """What every run predicted of one domain: the same n items in the same order.

    Attributes
    ----------
    groups
        G names, sorted.
    group
        (n,) index into `groups`.
    labels
        (n,) class numbers; zeros for a segmentation.
    values
        (runs, n, K) probabilities, or (runs, n, metrics).
    """

    name: str
    groups: tuple[str, ...]
    group: Int
    labels: Int
    values: Float


@dataclass(frozen=True)
class Arranged:
    """The runs (method, seed) of one condition, and its domains."""

    name: str
    runs: tuple[tuple[str, int], ...]
    domains: tuple[Domain, ...]

    def seeds(self, method: str) -> list[int]:
        """Seeds of a method, sorted."""
        return sorted(seed for own, seed in self.runs if own == method)

    def rows(self, method: str, seeds: Sequence[int]) -> list[int]:
        """Places of a method's runs with these seeds."""
        return [self.runs.index((method, seed)) for seed in seeds]


def arrange(predictions: pd.DataFrame, columns: Sequence[str]) -> Iterator[Arranged]:
    """A table of predictions as arrays, condition by condition.

    Parameters
    ----------
    predictions
        Has the columns KEYS, and `label` for a classification; none of them empty.
    columns
        Those of what was predicted.

    Raises
    ------
    ConfigError
        Two runs of a condition have other items or labels.
    """
    for name, frame in predictions.groupby("condition", sort=False, observed=True):
        runs = pd.MultiIndex.from_frame(frame[["method", "seed"]])
        place, distinct = pd.factorize(runs)
        names = tuple((str(method), int(seed)) for method, seed in distinct)
        domains = (
            _domain(str(domain), part, place[frame["domain"] == domain], names, columns)
            for domain, part in frame.groupby("domain", sort=False, observed=True)
        )
        yield Arranged(str(name), names, tuple(domains))


def _domain(
    name: str,
    frame: pd.DataFrame,
    run: Int,
    runs: Sequence[tuple[str, int]],
    columns: Sequence[str],
) -> Domain:
    """One domain with its rows in the order of runs, groups and items."""
    group, groups = pd.factorize(frame["group"].astype(str), sort=True)
    item, items = pd.factorize(frame["item"])
    key = group * len(items) + item
    order = np.lexsort((key, run))
    parts = np.split(order, np.searchsorted(run[order], np.arange(1, len(runs))))
    labels = frame["label"].to_numpy(np.int64) if "label" in frame else np.zeros(len(frame), int)
    first = parts[0]
    for (method, seed), part in zip(runs, parts, strict=True):
        who = f"domain {name}: {method} with seed {seed}"
        if not np.all(np.diff(key[part])):
            raise ConfigError(f"{who} predicts an item twice")
        if not np.array_equal(key[part], key[first]):
            raise ConfigError(
                f"{who} predicts other items ({len(part)}) than {runs[0][0]} with seed "
                f"{runs[0][1]} ({len(first)})"
            )
        if not np.array_equal(labels[part], labels[first]):
            raise ConfigError(f"{who} has other labels than {runs[0][0]} with seed {runs[0][1]}")
    values = frame[list(columns)].to_numpy(float)[np.stack(parts)]
    return Domain(name, tuple(groups), group[first], labels[first], values)
