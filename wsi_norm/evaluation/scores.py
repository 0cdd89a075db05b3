"""Scores of predictions on unseen domains, with bootstrap intervals over cases and seeds.

A table of predictions has a row per tile and run: method, seed, fold, condition, domain, group
(case or slide), item (tile); then label, p0 .. pK-1 (classification) or dice, iou (segmentation).
Folds of one seed are one run. A group's name says which case it is, in all domains.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from numba import njit

from wsi_norm.cohort.scores import Float, Int, drawn_balanced_accuracy, nanmean
from wsi_norm.config.train import Task
from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.arrange import KEYS, Arranged, Domain, arrange

Mask = npt.NDArray[np.bool_]

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("balanced_accuracy", "auc"),
    "segmentation": ("dice", "iou"),
}
"""Metrics of each task, in the order of the tables."""

PERCENTILES = (2.5, 97.5)


def score_runs(predictions: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Score every run on every domain.

    Balanced accuracy is of the most probable class, over the classes that the domain has. AUC is
    p1's for two classes, else the mean of one-versus-rest over the classes that the domain has; NaN
    in a domain of one class. Dice and IoU are means over images.

    Returns
    -------
    DataFrame
        method, seed, condition, domain, metric, value.

    Raises
    ------
    ConfigError
        A column is missing or holds NaN, or two runs of a condition have other items or labels.
    """
    rows = []
    for condition in arrange(predictions, _check(predictions, task)):
        for metric in METRICS[task]:
            for domain in condition.domains:
                values = _score(domain, metric, np.ones((1, len(domain.groups))))[:, 0]
                rows += [
                    (*run, condition.name, domain.name, metric, float(value))
                    for run, value in zip(condition.runs, values, strict=True)
                ]
    return pd.DataFrame(rows, columns=["method", "seed", "condition", "domain", "metric", "value"])


def summarise(
    predictions: pd.DataFrame,
    task: Task,
    reference: str | None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Summarise every method, with 95 % percentile bootstrap intervals.

    A resample draws groups with replacement within each domain, and seeds with replacement. It is
    the same for all methods, conditions and metrics. Domains of the same groups (cases that several
    scanners have seen) share their draw. A domain whose AUC a resample leaves undefined is left out
    of that resample. With few seeds or few groups percentile intervals are a little narrow.

    Parameters
    ----------
    reference
        The method that differences are taken to; None for none. They rest on the seeds that both
        methods have.

    Returns
    -------
    DataFrame
        method, condition, metric; mean (over seeds, of the mean over domains), sd (over seeds; NaN
        for one seed), worst (mean over seeds of the worst domain's value), low, high (of mean);
        difference, difference_low, difference_high (method - reference; NaN without a reference);
        n_seeds, n_groups (distinct names), n_items (of one seed).

    Raises
    ------
    ConfigError
        As `score_runs`; or a method and the reference share no seed.
    """
    rows: list[dict[str, Any]] = []
    conditions = list(arrange(predictions, _check(predictions, task)))
    order = [str(method) for method in predictions["method"].unique()]
    if reference is not None and reference not in order:
        raise ConfigError(f"the reference {reference!r} is none of: {', '.join(order)}")
    for condition in conditions:
        draws = [multiplicities("group", d.groups, resamples, seed) for d in condition.domains]
        for metric in METRICS[task]:
            summary = _Summary(condition, metric, draws, seed)
            methods = dict.fromkeys(method for method, _ in condition.runs)
            rows += [summary.row(method, reference) for method in methods]
    return pd.DataFrame(sorted(rows, key=lambda row: order.index(row["method"])))


class _Summary:
    """Point values (runs, domains) and resampled means over domains (runs, resamples)."""

    def __init__(self, condition: Arranged, metric: str, draws: list[Float], seed: int) -> None:
        domains = condition.domains
        self.condition, self.metric, self.seed = condition, metric, seed
        self.resamples = len(draws[0])
        once = [np.ones((1, len(domain.groups))) for domain in domains]
        self.point = self._values(once)[..., 0]
        self.drawn = nanmean(self._values(draws), axis=1)

    def row(self, method: str, reference: str | None) -> dict[str, Any]:
        """One row of the summary."""
        condition, seeds = self.condition, self.condition.seeds(method)
        point = self.point[condition.rows(method, seeds)]
        means = nanmean(point, axis=1)
        domains = condition.domains
        return {
            "method": method,
            "condition": condition.name,
            "metric": self.metric,
            "mean": float(means.mean()),
            "sd": float(means.std(ddof=1)) if len(seeds) > 1 else np.nan,
            "worst": float(np.fmin.reduce(point, axis=1).mean()),
            **dict(
                zip(("low", "high"), self._interval(self._resampled(method, seeds)), strict=True)
            ),
            **self._difference(method, reference),
            "n_seeds": len(seeds),
            "n_groups": len({name for domain in domains for name in domain.groups}),
            "n_items": sum(len(domain.group) for domain in domains),
        }

    def _values(self, draws: Sequence[Float]) -> Float:
        """(runs, domains, resamples)."""
        pairs = zip(self.condition.domains, draws, strict=True)
        return np.stack([_score(domain, self.metric, drawn) for domain, drawn in pairs], axis=1)

    def _difference(self, method: str, reference: str | None) -> dict[str, float]:
        names = ("difference", "difference_low", "difference_high")
        if reference is None:
            return dict.fromkeys(names, np.nan)
        seeds = sorted({*self.condition.seeds(method)} & {*self.condition.seeds(reference)})
        if not seeds:
            raise ConfigError(
                f"condition {self.condition.name}: {method} and the reference {reference} have no "
                "seed in common, so they cannot be compared"
            )
        own, other = (
            nanmean(self.point[self.condition.rows(name, seeds)], axis=1)
            for name in (method, reference)
        )
        drawn = self._resampled(method, seeds) - self._resampled(reference, seeds)
        return dict(zip(names, (float((own - other).mean()), *self._interval(drawn)), strict=True))

    def _resampled(self, method: str, seeds: list[int]) -> Float:
        """(resamples,) means over drawn seeds."""
        drawn = self.drawn[self.condition.rows(method, seeds)]
        weights = multiplicities("seed", seeds, self.resamples, self.seed)
        mean: Float = (weights * drawn.T).sum(axis=1) / len(seeds)
        return mean

    @staticmethod
    def _interval(drawn: Float) -> tuple[float, float]:
        known = drawn[~np.isnan(drawn)]
        if not known.size:
            return np.nan, np.nan
        low, high = np.percentile(known, PERCENTILES)
        return float(low), float(high)


def multiplicities(kind: str, names: Sequence[object], resamples: int, seed: int) -> Float:
    """How often each name is drawn, (resamples, names): as many draws as there are names.

    They follow from the arguments alone: whoever has the same names gets the same draws.
    """
    key = zlib.crc32(repr((kind, [str(name) for name in names])).encode())
    count = len(names)
    drawn = np.random.default_rng([seed, key]).integers(count, size=(resamples, count))
    cells = drawn + count * np.arange(resamples)[:, None]
    return _count(cells.ravel(), resamples * count).reshape(resamples, count)


def _score(domain: Domain, metric: str, multiplicity: Float) -> Float:
    """A metric of every run, (runs, resamples), if groups count as often as (resamples, G) says."""
    if metric == "balanced_accuracy":
        found = domain.values.argmax(axis=2)
        return drawn_balanced_accuracy(found, domain.labels, domain.group, multiplicity)
    if metric == "auc":
        return _auc(domain, multiplicity)
    return _mean_of_images(domain, METRICS["segmentation"].index(metric), multiplicity)


def _mean_of_images(domain: Domain, column: int, multiplicity: Float) -> Float:
    count = len(domain.groups)
    sums = [_count(domain.group, count, values) for values in domain.values[..., column]]
    drawn: Float = np.stack(sums) @ multiplicity.T / (multiplicity @ _count(domain.group, count))
    return drawn


def _auc(domain: Domain, multiplicity: Float) -> Float:
    classes = domain.values.shape[2]
    each = [
        [
            weighted_auc(values[:, k], domain.labels == k, domain.group, multiplicity)
            for values in domain.values
        ]
        for k in ([1] if classes == 2 else range(classes))
    ]
    return nanmean(np.array(each), axis=0)


def weighted_auc(scores: Float, positive: Mask, group: Int, multiplicity: Float) -> Float:
    """Area under the ROC curve, (resamples,), of n items that count as often as their group.

    Ties count half. NaN where one of the two classes is not drawn.

    Parameters
    ----------
    scores, positive, group
        (n,); `group` is an index into the columns of `multiplicity`.
    multiplicity
        (resamples, G).
    """
    order = np.argsort(scores)
    return _areas(scores[order], positive[order], group[order], multiplicity)


@njit()
def _areas(scores: Float, positive: Mask, group: Int, multiplicity: Float) -> Float:
    """One walk along ascending scores per resample: in arrays it is items x resamples of memory."""
    areas = np.full(len(multiplicity), np.nan)
    for resample in range(len(multiplicity)):
        won = positives = below = tied = beside = 0.0
        for item in range(len(scores)):
            weight = multiplicity[resample, group[item]]
            if item and scores[item] != scores[item - 1]:
                below, tied, beside = below + tied, 0.0, 0.0
            if positive[item]:
                won += weight * (below + tied / 2)
                beside += weight
                positives += weight
            else:
                won += weight * beside / 2
                tied += weight
        pairs = positives * (below + tied)
        if pairs > 0:
            areas[resample] = won / pairs
    return areas


def _count(index: Int, size: int, weights: Float | None = None) -> Float:
    return np.bincount(index, weights=weights, minlength=size).astype(float)


def _check(predictions: pd.DataFrame, task: Task) -> list[str]:
    """The columns that hold what was predicted; ConfigError if the table cannot be scored."""
    if task not in METRICS:
        raise ConfigError(f"unknown task {task!r} (known: {', '.join(METRICS)})")
    values = list(METRICS[task])
    if task == "classification":
        names = map("p{}".format, itertools.count())
        values = list(itertools.takewhile(lambda name: name in predictions, names))
        values = values if len(values) > 1 else ["p0", "p1"]
    needed = [*KEYS, *values, *(["label"] if task == "classification" else [])]
    for column in needed:
        if column not in predictions:
            raise ConfigError(f"the predictions have no column {column!r}")
        if predictions[column].isna().any():
            raise ConfigError(f"the predictions hold an empty {column!r}")
    if predictions.empty:
        raise ConfigError("there are no predictions")
    if task == "classification" and not predictions["label"].isin(range(len(values))).all():
        raise ConfigError(f"a label is not one of the {len(values)} classes")
    return values
