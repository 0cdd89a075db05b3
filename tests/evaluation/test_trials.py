"""Which trials an evaluation has, what each is called, who is left out, what counts as done."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.cohorts import quick_classifier
from wsi_norm.cohort.splits import LabelledImage, Splits
from wsi_norm.config import EvaluateConfig
from wsi_norm.errors import ConfigError, TrainingError
from wsi_norm.evaluation import trials as module
from wsi_norm.evaluation.trials import (
    PREDICTIONS,
    Trial,
    collect,
    leave_out,
    perform,
    template_images,
    trials_of,
)
from wsi_norm.lstainnorm import load_checkpoint

Make = Callable[..., EvaluateConfig]


def image(name: str, group: str, domain: str) -> LabelledImage:
    return LabelledImage(name, Path(name), None, 0, None, group, domain)


def groups(images: tuple[LabelledImage, ...]) -> set[str]:
    return {image.group for image in images}


# --- which trials


def test_stages_and_names(make: Make) -> None:
    methods = {"a, b": {}, "uses it": {"uses": "a, b", "change": {"normalizer": {"learn": False}}}}
    first, second = trials_of(make(methods, seeds=[3, 1]), None)
    assert first == [Trial("a, b", 3), Trial("a, b", 1)]
    assert second == [Trial("uses it", 3), Trial("uses it", 1)]
    assert [trial.name for trial in first + second] == [
        "a_b--3",
        "a_b--1",
        "uses_it--3",
        "uses_it--1",
    ]


def test_folds_are_the_domains_of_training_and_validation(make: Make) -> None:
    (trials,) = trials_of(make(["none"], leave_out=True), None)
    assert [trial.fold for trial in trials] == ["A", "B", "C"]  # D is the test split's
    assert [trial.name for trial in trials] == ["none--0--A", "none--0--B", "none--0--C"]


def test_targets_are_of_other_groups_each(make: Make) -> None:
    templates = {"method": "fixed lab", "beside": "none", "images": 4, "seeds": [0, 1]}
    config = make(templates=templates)
    images = [Path(name).name for name in template_images(config, None)]
    assert images == ["A0_0.png", "A2_0.png", "B1_0.png", "C0_0.png"]
    (trials,) = trials_of(config, None)
    aimed = [trial for trial in trials if trial.target]
    assert len(aimed) == 4 * 2
    assert {trial.method for trial in aimed} == {"fixed lab"}
    assert aimed[0].name == "fixed_lab--0--A0_0"
    many = make(templates=templates | {"images": 50})
    assert len(template_images(many, None)) == 9  # as many as there are groups to train on


def test_target_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    alike = [str(tmp_path / case / "tile.png") for case in "ab"]
    assert list(module._labels(alike).values()) == ["a/tile", "b/tile"]
    assert list(module._labels(["x/1.png", "y/2.png"]).values()) == ["1", "2"]
    assert list(module._labels(["x/1.png", "x/1.jpg"]).values()) == ["target 0", "target 1"]
    assert module._labels([]) == {}


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"A": "X"}, None),
        (dict.fromkeys("ABCD", "X"), "all training images are of the domain 'X'"),
        ({"A": ""}, r"A0_0.png has no domain"),
        ({"A": "a b", "B": "a_b"}, "would share a folder: rename one of them"),
    ],
)
def test_domains_that_cannot_be_left_out(
    make: Make, cohort: Path, tmp_path: Path, domains: dict[str, str], message: str | None
) -> None:
    table = pd.read_csv(cohort / "index.csv")
    table["domain"] = table["domain"].replace(domains)
    for column in ("image", "mask"):
        table[column] = [str(cohort / name) for name in table[column]]
    table.to_csv(tmp_path / "index.csv", index=False)
    config = make(["none"], {"data": {"index": str(tmp_path / "index.csv")}}, leave_out=True)
    if message is None:
        assert [trial.fold for trial in trials_of(config, None)[0]] == ["B", "C", "X"]
        return
    with pytest.raises(ConfigError, match=message):
        trials_of(config, None)


# --- leaving out


def test_no_group_is_on_both_sides() -> None:
    train = tuple(
        image(f"{domain}{case}", f"case {case}", domain) for domain in "AB" for case in range(3)
    )
    train += (image("C9", "case 9", "C"), image("C8", "case 8", "C"))
    validation = (image("A5", "case 5", "A"), image("C7", "case 7", "C"))
    left = leave_out(Splits(train, validation, (image("D", "d", "D"),), ("x", "y")), "A")
    assert {i.domain for i in left.test} == {"A"}
    assert len(left.test) == 4
    # cases 0 to 2 were seen by both scanners: those of B would give A's away
    assert groups(left.train) == {"case 8", "case 9"}
    assert groups(left.validation) == {"case 7"}
    assert left.classes == ("x", "y")


def test_there_is_always_something_to_select_on() -> None:
    train = tuple(image(f"B{n}", f"b{n // 2}", "B") for n in range(6))
    splits = Splits(train, (image("A", "a", "A"),), (), ("x", "y"))
    left = leave_out(splits, "A")
    assert groups(left.train) == {"b0", "b1"}
    assert groups(left.validation) == {"b2"}
    assert len(left.validation) == 2
    with pytest.raises(ConfigError, match="leave no group to train on"):
        leave_out(replace(splits, train=train[:2]), "A")
    with pytest.raises(ConfigError, match="leave no group to train on"):
        leave_out(splits, "B")


# --- doing them


def test_a_run_and_one_that_uses_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(["none", "fixed, network of none"])
    base = perform(Trial("none", 0), config, None, 1)
    seen: list[Any] = []
    judge = module.judge

    def watched(front: Any, network: Any, *rest: Any, **named: Any) -> Any:
        seen.append((type(front).__name__, network.state_dict()))
        return judge(front, network, *rest, **named)

    monkeypatch.setattr(module, "judge", watched)
    folder = perform(Trial("fixed, network of none", 0), config, None, 1)
    weights = load_file(base / "network.safetensors")
    for front, state in seen:
        assert front == "LayerFront"
        assert state.keys() == weights.keys()
        assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert len(seen) == len(config.conditions)
    assert not (folder / "config.yaml").exists()  # nothing was trained there
    kept = (folder / PREDICTIONS).stat().st_mtime_ns
    assert perform(Trial("fixed, network of none", 0), config, None, 1) == folder
    assert (folder / PREDICTIONS).stat().st_mtime_ns == kept
    # a trial without its record, its predictions or its profile is not finished
    for name in (module.IDENTITY, PREDICTIONS, module.PROFILE):
        (folder / name).unlink()
        perform(Trial("fixed, network of none", 0), config, None, 1)
        assert (folder / name).exists()
    assert len(seen) == 4 * len(config.conditions)


def test_an_unfinished_training_goes_on_and_another_is_replaced(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(["none"])
    folder = perform(Trial("none", 0), config, None, 1)
    asked: list[bool] = []
    train = module.train

    def watched(*arguments: Any, overwrite: bool, **named: Any) -> Any:
        asked.append(overwrite)
        return train(*arguments, overwrite=overwrite, **named)

    monkeypatch.setattr(module, "train", watched)
    (folder / PREDICTIONS).unlink()
    perform(Trial("none", 0), config, None, 1)
    perform(Trial("none", 0), make(["none"], {"provenance": {"licence": "other"}}), None, 1)
    perform(Trial("none", 0), make(["none"], {"recipe": {"batch_size": 6}}), None, 1)
    assert asked == [False, False, True]
    (folder / "config.yaml").write_text("task: [")
    (folder / PREDICTIONS).unlink()
    perform(Trial("none", 0), config, None, 1)
    assert asked[3:] == [True]
    shutil.rmtree(folder)


# --- a layer before the networks of another method


BEFORE: dict[str, Any] = {
    "macenko": {"change": {"normalizer": {"kind": "macenko"}}},
    "learned before it": {
        "uses": "macenko",
        "change": {
            "network": {"frozen": True},
            "normalizer": {"target": "seen"},
            "recipe": {"epochs": 1},
            "data": {"limit": 8},
        },
    },
    "seen": {"uses": "macenko", "change": {"normalizer": {"target": "seen", "learn": False}}},
    "cohort": {"uses": "macenko", "change": {"normalizer": {"learn": False}}},
}


def test_a_layer_learns_before_the_network_of_another_method(make: Make) -> None:
    config = make(BEFORE, leave_out=True)
    base = perform(Trial("macenko", 0, "B"), config, None, 1)
    folders = {name: perform(Trial(name, 0, "B"), config, None, 1) for name in [*BEFORE][1:]}
    learned = folders["learned before it"]
    layer = load_checkpoint(learned / "model.safetensors")
    digest = hashlib.sha256((base / "network.safetensors").read_bytes()).hexdigest()
    assert layer.provenance["network_sha256"] == digest
    assert layer.provenance["train_images"] == 8
    assert layer.provenance["train_domains"] == ["A", "C"]
    assert layer.target != layer.template
    assert layer.template == load_checkpoint(learned / "seen.safetensors").template
    assert not (learned / "network.safetensors").exists()
    for name in ("seen", "cohort"):
        assert not (folders[name] / "config.yaml").exists()  # only judged
    seen = load_checkpoint(folders["seen"] / "seen.safetensors").template
    assert seen == layer.template
    for folder in folders.values():
        rows = collect([folder])
        assert set(rows["domain"]) == {"B"}
        assert set(rows["fold"]) == {"B"}
    settings = yaml.safe_load((learned / "config.yaml").read_text())
    kept = {path: path.stat().st_mtime_ns for path in learned.rglob("*") if path.is_file()}
    perform(Trial("learned before it", 0, "B"), config, None, 1)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert settings["recipe"]["epochs"] == 1


def test_an_interrupted_layer_goes_on_and_that_of_other_networks_is_replaced(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(BEFORE)
    trial = Trial("learned before it", 0)
    base = perform(Trial("macenko", 0), config, None, 1)
    folder = perform(trial, config, None, 1)
    asked: list[bool] = []
    train = module.train

    def watched(*arguments: Any, overwrite: bool, **named: Any) -> Any:
        asked.append(overwrite)
        return train(*arguments, overwrite=overwrite, **named)

    monkeypatch.setattr(module, "train", watched)
    (folder / module.IDENTITY).unlink()
    perform(trial, config, None, 1)
    assert asked == [False]
    state = load_file(base / "network.safetensors")
    first = next(iter(state))
    save_file({**state, first: state[first] + 1}, base / "network.safetensors")
    (folder / module.IDENTITY).unlink()
    perform(trial, config, None, 1)
    assert asked == [False, True]


def test_methods_before_a_network_of_ones_own_are_judged_or_learn(
    make: Make, tmp_path: Path
) -> None:
    """The training's network is frozen: what learns nothing is judged, and needs no training."""
    path = tmp_path / "theirs.pt"
    torch.save(quick_classifier().state_dict(), path)
    methods: dict[str, Any] = {
        "none": {"change": {"normalizer": {"kind": "none"}}},
        "packaged": {"change": {"normalizer": {"start": "density", "learn": False}}},
        "learned": {},
    }
    config = make(methods, {"network": {"weights": str(path), "frozen": True}})
    assert len(trials_of(config, None)) == 1
    folders = {name: perform(Trial(name, 0), config, None, 1) for name in methods}
    trained = {name for name, folder in folders.items() if (folder / "config.yaml").exists()}
    assert trained == {"learned"}
    first = (folders["none"] / PREDICTIONS).read_bytes()
    perform(Trial("none", 0), config, None, 1)
    torch.save(quick_classifier().state_dict(), path)  # other weights in the same file
    perform(Trial("none", 0), config, None, 1)
    assert (folders["none"] / PREDICTIONS).read_bytes() != first
    with pytest.raises(ValueError, match="uses 'learned', which trains no network"):
        make({**methods, "u": {"uses": "learned"}}, {"network": {"frozen": True}})


# --- what goes wrong


def test_errors_name_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make({"bad": {"change": {"data": {"tile_size": 100}}}})
    with pytest.raises(ConfigError) as caught:
        perform(Trial("bad", 0), config, None, 1)
    assert str(caught.value).startswith("method 'bad', seed 0: ")
    assert "smaller than data.tile_size 100" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(Trial("m", 1, "A")) == "method 'm', seed 1, without domain 'A'"
    assert str(Trial("m", 1, "", "x/y.png", "y")) == "method 'm', seed 1, target 'y'"


def test_predictions_must_be_numbers(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"item": "a", "group": "g", "domain": "D", "label": 0, "p0": np.nan, "p1": np.nan}]
    monkeypatch.setattr(module, "judge", lambda *_, **__: rows)
    config = make(["none"])
    with pytest.raises(TrainingError, match=r"method 'none', seed 0: .* predicts NaN"):
        perform(Trial("none", 0), config, None, 1)
    assert not (config.output / "runs/none--0" / module.IDENTITY).exists()


def test_a_damaged_record_is_none(make: Make, tmp_path: Path) -> None:
    assert not module._is_done(tmp_path, {}, False)
    (tmp_path / module.IDENTITY).write_text("{")
    assert not module._is_done(tmp_path, {}, False)
    (tmp_path / module.IDENTITY).write_text(json.dumps({}))
    (tmp_path / PREDICTIONS).touch()
    assert module._is_done(tmp_path, {}, False)
    assert not module._is_done(tmp_path, {}, True)


def test_names_are_collected_as_text(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"method": ["NA", "none"], "fold": ["", "007"], "domain": ["1", "nan"], "p0": [0.5, 1]}
    )
    rows = rows.assign(group="01", item="1e3", target="")
    rows.to_csv(tmp_path / PREDICTIONS, index=False)
    pd.testing.assert_frame_equal(collect([tmp_path]), rows)
