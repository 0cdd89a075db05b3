"""Scores against scikit-learn's, intervals against a loop over resampled tables."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    roc_auc_score,
)

from wsi_norm.errors import ConfigError
from wsi_norm.evaluation.scores import (
    METRICS,
    multiplicities,
    score_runs,
    summarise,
    weighted_auc,
)

RUN = ["method", "seed", "condition", "domain"]


def classified(
    methods: Sequence[str] = ("none", "reinhard", "learned"),
    seeds: Sequence[int] = (0, 1, 2),
    classes: int = 2,
    tiles: int = 30,
    groups: int = 5,
    conditions: Sequence[str] = ("clean", "simulated"),
) -> pd.DataFrame:
    """Predictions of two domains; later methods are better. Probabilities have ties."""
    rng = np.random.default_rng(7)
    frames = []
    for domain in ("scanner A", "scanner B"):
        label = rng.permutation(np.arange(tiles) % classes)
        group = [f"{domain} case {i}" for i in rng.integers(groups, size=tiles)]
        for condition in conditions:
            for place, method in enumerate(methods):
                for seed in seeds:
                    odds = rng.integers(1, 6, (tiles, classes)).astype(float)
                    odds[np.arange(tiles), label] += place
                    p = odds / odds.sum(axis=1, keepdims=True)
                    frames.append(
                        pd.DataFrame(
                            {
                                **dict(zip(RUN, (method, seed, condition, domain), strict=True)),
                                "fold": "",
                                "group": group,
                                "item": [f"tile {i}" for i in range(tiles)],
                                "label": label,
                                **{f"p{k}": p[:, k] for k in range(classes)},
                            }
                        )
                    )
    return pd.concat(frames, ignore_index=True)


def segmented(**options: Any) -> pd.DataFrame:
    frame = classified(**options)
    frame["dice"] = frame["p1"]
    frame["iou"] = frame["p1"] / (2 - frame["p1"])
    return frame.drop(columns=["label", "p0", "p1"])


def expected(frame: pd.DataFrame, metric: str) -> float:
    """A metric of one run on one domain, by scikit-learn."""
    if metric in {"dice", "iou"}:
        return float(frame[metric].mean())
    p = frame[[name for name in frame if name[0] == "p" and name[1:].isdigit()]].to_numpy()
    if metric == "balanced_accuracy":
        return float(balanced_accuracy_score(frame["label"], p.argmax(axis=1)))
    if p.shape[1] == 2:
        return float(roc_auc_score(frame["label"], p[:, 1]))
    each = [
        roc_auc_score(frame["label"] == k, p[:, k])
        for k in range(p.shape[1])
        if frame["label"].eq(k).any()
    ]
    return float(np.mean(each))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_are_scikit_learns(classes: int) -> None:
    frame = classified(classes=classes)
    result = score_runs(frame.sample(frac=1, random_state=1), "classification")
    assert list(result.columns) == [*RUN, "metric", "value"]
    assert len(result) == 3 * 3 * 2 * 2 * 2
    indexed = result.set_index([*RUN, "metric"])["value"]
    for key, part in frame.groupby(RUN):
        for metric in METRICS["classification"]:
            assert indexed[(*key, metric)] == pytest.approx(expected(part, metric), abs=1e-12)


def test_three_classes_are_macro_one_versus_rest() -> None:
    frame = classified(methods=["none"], seeds=[0], classes=3, conditions=["clean"])
    result = score_runs(frame, "classification").set_index(["domain", "metric"])["value"]
    for domain, part in frame.groupby("domain"):
        p = part[["p0", "p1", "p2"]].to_numpy()
        own = roc_auc_score(part["label"], p, multi_class="ovr", average="macro")
        assert result[domain, "auc"] == pytest.approx(own, abs=1e-12)


def test_segmentation_is_the_mean_over_images() -> None:
    frame = segmented()
    result = score_runs(frame, "segmentation").set_index([*RUN, "metric"])["value"]
    for key, part in frame.groupby(RUN):
        for metric in ("dice", "iou"):
            assert result[(*key, metric)] == pytest.approx(part[metric].mean(), abs=1e-12)


def test_a_domain_of_one_class_has_no_auc() -> None:
    frame = classified()
    frame.loc[frame["domain"] == "scanner A", "label"] = 1
    result = score_runs(frame, "classification").set_index([*RUN, "metric"])["value"]
    summary = summarise(frame, "classification", "none", resamples=50).set_index(
        ["method", "condition", "metric"]
    )
    one = frame[(frame["domain"] == "scanner A") & (frame["method"] == "none")]
    one = one[(one["seed"] == 0) & (one["condition"] == "clean")]
    assert np.isnan(result["none", 0, "clean", "scanner A", "auc"])
    share = (one["p1"] > one["p0"]).mean()
    assert result["none", 0, "clean", "scanner A", "balanced_accuracy"] == pytest.approx(share)
    others = [result["none", seed, "clean", "scanner B", "auc"] for seed in range(3)]
    row = summary.loc[("none", "clean", "auc")]
    assert row["mean"] == pytest.approx(np.mean(others))
    assert row["worst"] == pytest.approx(np.mean(others))
    assert row["low"] < row["high"]


def test_without_any_auc_nothing_is_made_up() -> None:
    frame = classified()
    frame["label"] = 0
    summary = summarise(frame, "classification", "none", resamples=20)
    rows = summary[summary["metric"] == "auc"]
    assert rows[["mean", "low", "high", "worst", "difference"]].isna().all(axis=None)


weighted = st.integers(2, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 6), min_size=n, max_size=n),  # few values: many ties
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=3),
    )
)


@given(case=weighted)
@settings(max_examples=150, deadline=None)
def test_weighted_auc_is_scikit_learns(case: tuple[list[Any], ...]) -> None:
    values, positive, group, multiplicity = (np.array(part) for part in case)
    result = weighted_auc(values / 6, positive, group, multiplicity.astype(float))
    for area, counts in zip(result, multiplicity, strict=True):
        weight = counts[group]
        if weight[positive].sum() and weight[~positive].sum():
            drawn = weight > 0
            own = roc_auc_score(positive[drawn], values[drawn], sample_weight=weight[drawn])
            assert area == pytest.approx(own, abs=1e-12)
        else:
            assert np.isnan(area)


def naive(
    frame: pd.DataFrame, method: str, metric: str, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of a method and of "none" over each resample: tables with rows repeated."""
    frame = frame[frame["condition"] == "clean"]
    seeds = sorted(frame["seed"].unique())
    seed_counts = multiplicities("seed", seeds, resamples, seed)
    draws = {}
    for domain, part in frame.groupby("domain"):
        groups = sorted(part["group"].unique())
        draws[domain] = groups, multiplicities("group", groups, resamples, seed)

    def mean(name: str, i: int) -> float:
        per_seed = []
        for one in seeds:
            run = frame[(frame["method"] == name) & (frame["seed"] == one)]
            values = []
            for domain, (groups, counts) in draws.items():
                part = run[run["domain"] == domain]
                copies = [
                    part[part["group"] == group]
                    for group, count in zip(groups, counts[i], strict=True)
                    for _ in range(int(count))
                ]
                values.append(expected(pd.concat(copies), metric))
            per_seed.append(np.mean(values))
        return float(np.average(per_seed, weights=seed_counts[i]))

    pairs = [(mean(method, i), mean("none", i)) for i in range(resamples)]
    own, reference = np.array(pairs).T
    return own, own - reference


@pytest.mark.parametrize(
    ("metric", "classes"),
    [("balanced_accuracy", 2), ("auc", 2), ("auc", 3), ("dice", 2)],
)
def test_the_bootstrap_is_that_of_a_loop(metric: str, classes: int) -> None:
    task: Any = "classification" if metric in METRICS["classification"] else "segmentation"
    make = classified if task == "classification" else segmented
    frame = make(methods=("none", "learned"), classes=classes, conditions=["clean"])
    with warnings.catch_warnings():
        # scikit-learn says that a class was not drawn; it then leaves it out, as we do.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        means, differences = naive(frame, "learned", metric, 25, seed=3)
    summary = summarise(frame, task, "none", resamples=25, seed=3)
    row = summary[(summary["method"] == "learned") & (summary["metric"] == metric)].iloc[0]
    np.testing.assert_allclose(
        [row["low"], row["high"]], np.percentile(means, [2.5, 97.5]), rtol=1e-12
    )
    np.testing.assert_allclose(
        [row["difference_low"], row["difference_high"]],
        np.percentile(differences, [2.5, 97.5]),
        rtol=1e-10,
    )


def test_the_summary_follows_from_the_scores() -> None:
    frame = classified(seeds=[4, 8])
    per_run = score_runs(frame, "classification")
    summary = summarise(frame, "classification", "none", resamples=10)
    assert list(dict.fromkeys(summary["method"])) == ["none", "reinhard", "learned"]
    keys = ["method", "condition", "metric"]
    over_domains = per_run.groupby([*keys, "seed"])["value"]
    means = over_domains.mean().groupby(keys)
    rows = summary.set_index(keys)
    np.testing.assert_allclose(rows["mean"], means.mean()[rows.index])
    np.testing.assert_allclose(rows["sd"], means.std(ddof=1)[rows.index])
    np.testing.assert_allclose(rows["worst"], over_domains.min().groupby(keys).mean()[rows.index])
    own, other = (means.mean()[name, "clean", "auc"] for name in ("learned", "none"))
    assert rows.loc[("learned", "clean", "auc"), "difference"] == pytest.approx(own - other)
    assert (summary["n_seeds"] == 2).all()
    assert (summary["n_items"] == 60).all()
    assert (summary["n_groups"] == frame["group"].nunique()).all()


def test_the_reference_differs_from_itself_by_nothing() -> None:
    frame = classified()
    twin = frame[frame["method"] == "none"].assign(method="twin")
    frame = pd.concat([frame, twin], ignore_index=True)
    summary = summarise(frame, "classification", "none", resamples=200)
    same = summary[summary["method"].isin(["none", "twin"])]
    assert (same[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (same["low"] < same["high"]).all()
    learned = summary[summary["method"] == "learned"]
    assert (learned["difference_low"] < learned["difference_high"]).all()


def test_without_a_reference_there_is_no_difference() -> None:
    summary = summarise(classified(), "classification", None, resamples=5)
    assert summary[["difference", "difference_low", "difference_high"]].isna().all(axis=None)


def test_one_seed_has_no_sd() -> None:
    summary = summarise(classified(seeds=[0]), "classification", None, resamples=5)
    assert summary["sd"].isna().all()
    assert summary["low"].notna().all()


def test_differences_rest_on_common_seeds() -> None:
    frame = classified(seeds=[0, 1, 2])
    lacking = frame[~((frame["method"] == "none") & (frame["seed"] == 0))]
    common = frame[frame["seed"] > 0]
    columns = ["difference", "difference_low", "difference_high"]
    some, both = (
        summarise(own, "classification", "none", resamples=40) for own in (lacking, common)
    )
    pd.testing.assert_frame_equal(some[columns], both[columns])
    assert some.set_index("method").loc["learned", "n_seeds"].eq(3).all()
    apart = frame[(frame["method"] == "none") == (frame["seed"] == 0)]
    with pytest.raises(ConfigError, match="reinhard and the reference none have no seed in common"):
        summarise(apart, "classification", "none", resamples=5)


def test_folds_of_a_seed_are_one_run() -> None:
    frame = classified()
    folded = frame.assign(fold=frame["domain"])
    pd.testing.assert_frame_equal(
        summarise(frame, "classification", "none", resamples=20),
        summarise(folded, "classification", "none", resamples=20),
    )


def test_the_order_of_rows_does_not_matter() -> None:
    frame = classified(methods=["a", "b"])
    shuffled = frame.sample(frac=1, random_state=3)
    keys = ["method", "condition", "metric"]
    first, second = (
        summarise(table, "classification", "a", resamples=20).set_index(keys).sort_index()
        for table in (frame, shuffled)
    )
    pd.testing.assert_frame_equal(first, second)


def test_draws_are_as_many_as_names_and_unlike_each_other() -> None:
    names = ["a", "b", "c", "d"]
    drawn = multiplicities("group", names, 4000, 0)
    assert drawn.shape == (4000, 4)
    assert (drawn.sum(axis=1) == 4).all()
    # Binomial(4, 1/4) has mean 1 and variance 3/4; 4000 draws settle both to a few percent.
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(drawn.var(axis=0), 0.75, atol=0.06)
    np.testing.assert_array_equal(drawn, multiplicities("group", names, 4000, 0))
    for other in (
        multiplicities("seed", names, 4000, 0),
        multiplicities("group", names, 4000, 1),
        multiplicities("group", ["a", "b", "c", "e"], 4000, 0),
    ):
        assert abs(np.corrcoef(drawn[:, 0], other[:, 0])[0, 1]) < 0.1


def cohort(rng: np.random.Generator, shared: bool) -> pd.DataFrame:
    """Dice of 25 cases on 3 scanners; tiles of a case are alike. The truth is 0.5."""
    frames = []
    cases = rng.normal(0, 0.1, 25)
    for domain in range(3):
        own = cases if shared else rng.normal(0, 0.1, 25)
        group = np.repeat(np.arange(25), 8)
        dice = 0.5 + own[group] + rng.normal(0, 0.02, len(group))
        names = [f"case {i}" if shared else f"case {i} of {domain}" for i in group]
        items = [f"tile {i}" for i in range(len(group))]
        columns = {"domain": str(domain), "group": names, "item": items, "dice": dice, "iou": 0.5}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames).assign(method="m", seed=0, condition="clean", fold="")


@pytest.mark.parametrize("shared", [False, True])
def test_intervals_cover_the_truth(shared: bool) -> None:
    """95 % of intervals should; 48-65 % would if tiles, or shared cases, were independent draws."""
    rng = np.random.default_rng(11)
    covered = []
    for _ in range(150):
        table = summarise(cohort(rng, shared), "segmentation", None, resamples=200)
        row = table.iloc[0]
        covered.append(row["low"] <= 0.5 <= row["high"])
    assert 0.87 <= np.mean(covered) <= 0.99


def test_cases_of_several_scanners_count_once() -> None:
    summary = summarise(cohort(np.random.default_rng(0), True), "segmentation", None, resamples=5)
    assert set(summary["n_groups"]) == {25}
    assert set(summary["n_items"]) == {600}


def spoil(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    if what == "column":
        return frame.drop(columns="group")
    if what == "empty":
        return frame.iloc[:0]
    if what == "nan":
        return frame.assign(p0=np.where(frame.index == 5, np.nan, frame["p0"]))
    if what == "class":
        return frame.assign(label=2)
    return frame.drop(columns="p1")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("column", "no column 'group'"),
        ("empty", "no predictions"),
        ("nan", "hold an empty 'p0'"),
        ("class", "not one of the 2 classes"),
        ("one class", "no column 'p1'"),
    ],
)
def test_tables_that_cannot_be_scored_are_refused(what: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score_runs(spoil(classified(), what), "classification")


def test_unknown_task_and_reference() -> None:
    frame = classified()
    with pytest.raises(ConfigError, match="unknown task 'detection'"):
        score_runs(frame, "detection")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'macenko' is none of: none, reinhard, learned"):
        summarise(frame, "classification", "macenko")


def test_categories_are_as_good_as_text() -> None:
    frame = classified()
    names = ["method", "condition", "domain", "group", "item"]
    categories = frame.astype(dict.fromkeys(names, "category"))
    pd.testing.assert_frame_equal(
        summarise(frame, "classification", "none", resamples=10),
        summarise(categories, "classification", "none", resamples=10),
    )
