"""A whole evaluation of a tiny cohort: its files agree with each other and with the predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from wsi_norm.config import EvaluateConfig
from wsi_norm.errors import TrainingError
from wsi_norm.evaluation import evaluate as module
from wsi_norm.evaluation import trials
from wsi_norm.evaluation.evaluate import evaluate
from wsi_norm.evaluation.trials import Trial

Make = Callable[..., EvaluateConfig]
ALL = ("none", "fixed lab", "learned", "fixed, network of none")


@pytest.fixture(scope="module")
def done(
    maker: Callable[[Path], Make], tmp_path_factory: pytest.TempPathFactory
) -> tuple[EvaluateConfig, pd.DataFrame, list[tuple[int, int, str]]]:
    """All kinds of methods, two seeds, three targets: settings, summary, calls of progress."""
    config = maker(tmp_path_factory.mktemp("done"))(
        ALL,
        seeds=[0, 1],
        reference="none",
        templates={"method": "fixed lab", "beside": "learned", "images": 3},
    )
    calls: list[tuple[int, int, str]] = []
    summary = evaluate(config, None, lambda n, of, trial: calls.append((n, of, trial.name)))
    return config, summary, calls


def predictions_of(config: EvaluateConfig) -> pd.DataFrame:
    return pd.read_csv(config.output / "predictions.csv.gz", keep_default_na=False)


def stamps(config: EvaluateConfig) -> dict[str, int]:
    """When each run's predictions were written."""
    files = (config.output / "runs").glob(f"*/{trials.PREDICTIONS}")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def test_every_run_is_done_once_and_what_is_used_comes_first(done: Any) -> None:
    config, _, calls = done
    assert [n for n, _, _ in calls] == list(range(1, 12))  # 4 methods x 2 seeds + 3 targets
    assert {of for _, of, _ in calls} == {11}
    names = [name for _, _, name in calls]
    assert len(set(names)) == 11
    assert names[-2:] == ["fixed_network_of_none--0", "fixed_network_of_none--1"]
    assert sum(name.startswith("fixed_lab--0--") for name in names) == 3
    assert stamps(config).keys() == set(names)


def test_predictions_are_of_every_test_tile(done: Any) -> None:
    config, _, _ = done
    rows = predictions_of(config)
    assert len(rows) == 4 * 2 * 2 * 12  # methods, seeds, conditions, tiles of D
    assert list(rows["method"].unique()) == list(ALL)
    assert set(rows["domain"]) == {"D"}
    assert set(rows["group"]) == {"D0", "D1", "D2"}
    np.testing.assert_allclose(rows["p0"] + rows["p1"], 1, atol=1e-12)
    counts = rows.groupby(["method", "seed", "condition"])["item"].agg(["size", "nunique"])
    assert (counts == 12).all(axis=None)


def test_scores_and_summary_follow_from_the_predictions(done: Any) -> None:
    config, summary, _ = done
    rows = predictions_of(config)
    naive: dict[tuple[str, str, str], list[float]] = {}
    for (method, condition, _), part in rows.groupby(["method", "condition", "seed"]):
        found = part[["p0", "p1"]].to_numpy().argmax(axis=1)
        values = {
            "balanced_accuracy": balanced_accuracy_score(part["label"], found),
            "auc": roc_auc_score(part["label"], part["p1"]),
        }
        for metric, value in values.items():
            naive.setdefault((method, condition, metric), []).append(value)
    table = pd.read_csv(config.output / "summary.csv", keep_default_na=False, na_values="")
    assert len(table) == len(summary) == len(naive) == 16
    for row in table.itertuples():
        seeds = naive[row.method, row.condition, row.metric]
        assert row.mean == pytest.approx(np.mean(seeds))
        assert row.sd == pytest.approx(np.std(seeds, ddof=1))
        reference = naive["none", row.condition, row.metric]
        assert row.difference == pytest.approx(np.mean(seeds) - np.mean(reference))
        assert row.low - 1e-9 <= row.mean <= row.high + 1e-9
    scores = pd.read_csv(config.output / "scores.csv", keep_default_na=False)
    for (method, condition, metric), part in scores.groupby(["method", "condition", "metric"]):
        np.testing.assert_allclose(
            part.sort_values("seed")["value"], naive[method, condition, metric]
        )


def test_tables_figures_and_profiles(done: Any) -> None:
    config, _, _ = done
    text = (config.output / "tables.md").read_text(encoding="utf-8")
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Scores",
        "Per domain",
        "Validation",
        "The normalisers themselves",
        "What was learned",
        "Choice of the target image",
    ]
    assert "| learned | lab L\\* | " in text
    assert "| fixed lab | lab" not in text  # nothing of it has moved
    assert "| learned | offsets zero | " in text
    for name in ("balanced_accuracy.svg", "templates.svg"):
        assert "</svg>" in (config.output / name).read_text()
    profiles = pd.read_csv(config.output / "profiles.csv", keep_default_na=False)
    assert list(profiles["method"]) == list(ALL)
    none = profiles.set_index("method").loc["none"]
    assert none["pair_ciede2000"] == none["pair_ciede2000_before"] > 0
    assert (none["ssim"], none["seam_step"], none["background_drift"]) == (1, 1, 0)


def test_the_choice_of_the_target(done: Any) -> None:
    config, _, _ = done
    targets = pd.read_csv(config.output / "templates.csv")
    assert set(targets["method"]) == {"A0_0", "B0_0", "C0_0"}
    assert set(targets["condition"]) == {"clean", "simulated"}
    text = (config.output / "tables.md").read_text(encoding="utf-8")
    clean = targets[targets["condition"] == "clean"]["mean"]
    assert f"3 target images: {clean.min():.3f} to {clean.max():.3f}, mean" in text


def test_who_uses_another_has_its_network_and_its_own_normaliser(done: Any) -> None:
    config, _, _ = done
    rows = predictions_of(config).set_index(["method", "seed", "condition", "item"])
    own, other = (rows.loc[name][["p0", "p1"]] for name in ("none", "fixed, network of none"))
    assert not np.allclose(own, other)
    folder = config.output / "runs" / "fixed_network_of_none--0"
    assert not (folder / "network.safetensors").exists()
    assert (folder / trials.PROFILE).exists()


def test_what_is_finished_is_not_done_again(done: Any) -> None:
    config, summary, _ = done
    before = stamps(config)
    pd.testing.assert_frame_equal(evaluate(config), summary)
    assert stamps(config) == before


def test_two_workers_find_what_one_finds(done: Any, maker: Any, tmp_path: Path) -> None:
    _, summary, _ = done
    config = maker(tmp_path)(
        ["none", "learned", "fixed, network of none"], seeds=[0, 1], reference="none", workers=2
    )
    found = evaluate(config)
    expected = summary[summary["method"] != "fixed lab"]
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), check_exact=True)


def test_other_settings_are_trained_anew(make: Make) -> None:
    config = make(["none"])
    evaluate(config)
    weights = config.output / "runs/none--0/network.safetensors"
    first = load_file(weights)
    evaluate(make(["none"], {"recipe": {"steps_per_epoch": 9}}))
    second = load_file(weights)
    assert any(not (first[name] == second[name]).all() for name in first)
    # other conditions are judged, not trained, anew; so are threads no other training
    settings = {"recipe": {"steps_per_epoch": 9, "threads": 1}}
    evaluate(make(["none"], settings, conditions=["clean"]))
    third = load_file(weights)
    assert all((second[name] == third[name]).all() for name in second)
    assert set(predictions_of(config)["condition"]) == {"clean"}


def test_a_user_of_a_retrained_network_is_judged_anew(make: Make) -> None:
    methods = {"none": {}, "user": {"uses": "none", "change": {"normalizer": {"learn": False}}}}
    config = make(methods)
    evaluate(config)
    before = predictions_of(config)
    methods["none"] = {"change": {"recipe": {"steps_per_epoch": 6}}}
    evaluate(make(methods))
    after = predictions_of(config)
    for method in methods:
        assert not np.allclose(
            before[before["method"] == method]["p0"], after[after["method"] == method]["p0"]
        )


def test_an_interrupted_evaluation_goes_on(
    done: Any, maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, summary, _ = done
    config = maker(tmp_path)(["none", "fixed lab"], seeds=[0, 1], reference="none")
    judge = trials.judge
    calls = []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:  # in the second trial, after its training
            raise KeyboardInterrupt
        return judge(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "judge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    before = stamps(config)
    assert list(before) == ["none--0"]
    found = evaluate(config)
    assert stamps(config)["none--0"] == before["none--0"]
    expected = summary[summary["method"].isin(config.methods)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_layers_before_frozen_networks(make: Make) -> None:
    """What learns before them stands among what was learned; what is only judged does not."""
    methods: dict[str, Any] = {
        "none": {"change": {"normalizer": {"kind": "none"}}},
        "fixed": {"uses": "none", "change": {"normalizer": {"learn": False}}},
        "before it": {"uses": "none", "change": {"network": {"frozen": True}}},
    }
    config = make(methods, task="segmentation", reference="none")
    summary = evaluate(config)
    assert set(summary["method"]) == {*methods}
    tables = (config.output / "tables.md").read_text(encoding="utf-8")
    parts = {part.partition("\n")[0]: part for part in tables.split("## ")}
    for title in ("Validation", "What was learned"):
        assert "| before it |" in parts[title]
        assert "| fixed |" not in parts[title]
    before = stamps(config)
    shorter = {"change": {"normalizer": {"kind": "none"}, "recipe": {"epochs": 1}}}
    evaluate(make(methods | {"none": shorter}, task="segmentation", reference="none"))
    after = stamps(config)
    assert [name for name in before if after[name] == before[name]] == []


def test_a_failing_method_is_named_and_nothing_is_lost(make: Make) -> None:
    bad = {"change": {"recipe": {"learning_rate": 1e30}}}
    config = make({"good": {}, "bad": bad})
    with pytest.raises(TrainingError) as caught:
        evaluate(config)
    assert str(caught.value).startswith("method 'bad', seed 0: ")
    assert "\n" not in str(caught.value)
    before = stamps(config)
    assert list(before) == ["good--0"]
    evaluate(make({"good": {}, "bad": {}}))
    assert stamps(config)["good--0"] == before["good--0"]
    assert set(predictions_of(config)["method"]) == {"good", "bad"}


def test_each_domain_is_left_out_once(make: Make) -> None:
    """Segmentation; nothing is profiled and no ablation is made."""
    config = make(["none", "learned"], task="segmentation", leave_out=True)
    summary = evaluate(config)
    rows = predictions_of(config)
    assert set(rows["domain"]) == {"A", "B", "C"}
    assert (rows["fold"] == rows["domain"]).all()
    assert len(rows) == 2 * 2 * 36
    assert set(summary["n_items"]) == {36}
    for fold in "ABC":
        facts = json.loads((config.output / f"runs/none--0--{fold}/summary.json").read_text())
        assert facts["images"]["train"] + facts["images"]["validation"] == 24
        assert facts["images"]["test"] == 12
    text = (config.output / "tables.md").read_text(encoding="utf-8")
    assert "| Method | A | B | C | mean |" in text
    assert "## What was learned" in text
    assert "## The normalisers themselves" not in text
    dice = rows[rows["method"] == "none"].groupby(["condition", "domain"])["dice"].mean()
    row = summary.set_index(["method", "condition", "metric"]).loc["none", "clean", "dice"]
    assert row["mean"] == pytest.approx(dice["clean"].mean())


def test_a_worker_that_dies_is_one_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, *_: Any) -> Any:
            raise module.BrokenProcessPool

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    with pytest.raises(TrainingError, match="a worker ended without a word"):
        list(module._all([[Trial("none", 0)]], make(workers=2), None))
