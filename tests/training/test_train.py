"""From settings to a checkpoint: what is written, learned, resumed and refused."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import wsi_norm
from tests.cohorts import classifier
from wsi_norm.cohort.splits import LabelledImage, Splits, read_splits
from wsi_norm.config import TrainConfig
from wsi_norm.errors import ConfigError, TrainingError, WsiNormError
from wsi_norm.lstainnorm import LStainNorm, Template, save_checkpoint
from wsi_norm.normalizers.engine import Normalizer
from wsi_norm.training.front import LayerFront
from wsi_norm.training.task import StainTask
from wsi_norm.training.train import build_task, check_splits, cut, layer_of, provenance, train

Cohort = Callable[..., Path]
Make = Callable[..., TrainConfig]
LEARNING = {"epochs": 4, "steps_per_epoch": 20, "learning_rate": 0.03}


def refusal(kind: type[WsiNormError], config: TrainConfig, **options: Any) -> str:
    """The one line that a user reads."""
    with pytest.raises(kind) as caught:
        train(config, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def log_of(config: TrainConfig) -> list[dict[str, str]]:
    with (config.output / "log" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights_of(task: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


def interrupted_at(
    monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException]
) -> pytest.MonkeyPatch:
    """From now on a training ends like this before a step; undone by `undo`."""
    original = StainTask.training_step

    def broken(self: StainTask, batch: Any, index: int) -> Any:
        if self.global_step == step:
            raise error
        return original(self, batch, index)

    monkeypatch.setattr(StainTask, "training_step", broken)
    return monkeypatch


class Stop(BaseException):
    """As sudden as a killed process, as far as files are concerned."""


# --- what is written and learned


def test_a_classifier(cohort: Cohort, settings: Make) -> None:
    cohort()
    config = settings(recipe=LEARNING, provenance={"licence": "none"})
    trained = train(config)
    assert trained.classes == ("a", "b")
    assert trained.summary["images"] == {"train": 16, "validation": 8, "test": 8}
    assert trained.summary["score"] == "balanced accuracy"
    scores = trained.summary["scores"]
    assert scores["test_clean"] > 0.9
    assert scores["validation_selected"] == scores["validation_clean"] > 0.9
    assert {"validation_simulated", "test_simulated"} < {*scores}
    assert json.loads((config.output / "summary.json").read_text()) == trained.summary
    moves = trained.summary["learned"]["target"]["lab"]
    assert any(abs(channel["move"]) > 0.01 for channel in moves.values())
    assert {"as trained", "offsets zero", "without rgb"} < {*trained.summary["ablation"]}
    as_trained = {"clean": scores["validation_clean"], "simulated": scores["validation_simulated"]}
    assert trained.summary["ablation"]["as trained"] == as_trained

    layer = wsi_norm.load_checkpoint(config.output / "model.safetensors")
    own = layer_of(trained.task)
    assert own is not None
    torch.testing.assert_close(layer.state_dict(), own.state_dict(), rtol=0, atol=0)
    assert layer.normalization.mean_offset.abs().max() > 0.01
    tiles = np.stack([trained.tiles["test"].pixels(k) for k in range(4)])
    normalized = Normalizer(layer, "cpu").normalize(tiles)[0]
    assert normalized.shape == tiles.shape
    assert np.abs(normalized.astype(int) - tiles).max() > 5
    facts = layer.provenance
    assert facts["licence"] == "none"
    assert facts["training"] == "classification with tests.cohorts:classifier, seed 0"
    assert facts["classes"] == list(trained.classes)
    assert facts["train_domains"] == ["X", "Y"]
    assert facts["train_images"] == 16
    assert facts["recipe"]["epochs"] == 4
    assert facts["scores"] == scores

    umask = os.umask(0o022)
    os.umask(umask)
    modes = {path.stat().st_mode & 0o777 for path in config.output.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}  # colleagues on a shared disk can read them

    network = load_file(config.output / "network.safetensors")
    torch.testing.assert_close(network, dict(trained.task.network.state_dict()))


def test_the_log(cohort: Cohort, settings: Make) -> None:
    cohort()
    config = settings(
        recipe={"epochs": 3}, normalizer={"preset": "paper", "spaces": ["lab", "hsv"]}
    )
    trained = train(config, judged=False)
    rows = log_of(config)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    best = max(float(row["validation/score"]) for row in rows)
    assert best == pytest.approx(trained.summary["scores"]["validation_selected"], abs=1e-4)
    assert float(rows[0]["train/loss"]) > 0
    names = [name for name in rows[0] if name.startswith("layer/")]
    assert len(names) == 2 + 2 * 3 * 2
    final = torch.load(config.output / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    target = final["front.layer.normalization.template_mean"] + (
        final["front.layer.normalization.template_std"]
        * final["front.layer.normalization.mean_offset"]
    )
    for name, value in zip(("L*", "a*", "b*"), target[0].tolist(), strict=True):
        assert float(rows[-1][f"layer/lab.{name}.mean"]) == pytest.approx(value, rel=1e-4)
    assert rows[0]["layer/lab.L*.mean"] != rows[2]["layer/lab.L*.mean"]
    assert float(rows[2]["layer/weight.lab"]) + float(rows[2]["layer/weight.hsv"]) == pytest.approx(
        1, abs=1e-3
    )
    assert "test_clean" not in trained.summary["scores"]
    assert "ablation" not in trained.summary


def test_a_layer_that_does_not_learn_is_not_logged(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4, each=2)
    config = settings(normalizer={"learn": False}, data={"validation": {}, "test": {}})
    trained = train(config)
    assert not [name for name in log_of(config)[0] if name.startswith("layer/")]
    layer = layer_of(trained.task)
    assert layer is not None
    assert layer.target == layer.template
    assert (config.output / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["none", "reinhard", "macenko"])
def test_other_fronts(cohort: Cohort, settings: Make, kind: str) -> None:
    cohort(groups=4, each=2)
    config = settings(
        normalizer={"kind": kind}, data={"validation": 0.5}, recipe={"epochs": 1}, tensorboard=True
    )
    trained = train(config)
    assert layer_of(trained.task) is None
    assert not {"learned", "ablation"} & {*trained.summary}
    assert not (config.output / "model.safetensors").exists()
    assert (config.output / "network.safetensors").exists()
    assert list((config.output / "tensorboard").glob("events*"))


def test_a_segmenter(cohort: Cohort, settings: Make) -> None:
    cohort(size=48, each=2)
    config = settings(
        "segmentation",
        data={"tile_size": 32, "crops_per_image": 2},
        recipe={"epochs": 3, "steps_per_epoch": 12, "learning_rate": 0.03},
    )
    trained = train(config)
    assert trained.summary["score"] == "mean Dice"
    assert trained.summary["scores"]["test_clean"] > 0.8
    layer = wsi_norm.load_checkpoint(config.output / "model.safetensors")
    assert layer.provenance["score"] == "mean Dice"
    assert layer.normalization.mean_offset.abs().max() > 0.01


def test_a_segmenter_of_whole_oblong_images(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4, each=2)
    for file in table.parent.glob("*.png"):
        with Image.open(file) as image:
            image.crop((0, 0, 32, 24)).save(file)
    train(settings("segmentation", data={"test": {}, "validation": 0.5}), judged=False)


def test_views(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4, each=2)
    data = {
        "columns": {"label": None},
        "views": {"inside": "center", "edge": "corner"},
        "tile_size": 16,
        "validation": 0.5,
        "test": {},
    }
    trained = train(settings(data=data, recipe={"epochs": 1}))
    assert trained.classes == ("inside", "edge")
    assert len(trained.tiles["train"]) == 4


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision(cohort: Cohort, settings: Make, precision: str) -> None:
    cohort(groups=4)
    config = settings(
        recipe={"precision": precision, "epochs": 1}, data={"validation": 0.5, "test": {}}
    )
    trained = train(config)
    assert all(value.dtype == torch.float32 for value in trained.task.parameters())


def test_a_seed_repeats_a_training(cohort: Cohort, settings: Make, tmp_path: Path) -> None:
    cohort(groups=4)
    states = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        torch.rand(7)  # what was drawn before does not matter
        config = settings(
            output=str(tmp_path / name),
            seed=seed,
            data={"validation": {"case": "case 3"}, "test": {}},
        )
        states.append(weights_of(train(config, judged=False).task))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert (states[0]["network.0.weight"] != states[2]["network.0.weight"]).any()


# --- splits that are empty


def test_nothing_to_validate_or_test_on(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}})
    trained = train(config)
    assert trained.summary["scores"] == {"validation_selected": None}
    assert "learned" in trained.summary
    assert "ablation" not in trained.summary
    last = torch.load(config.output / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    torch.testing.assert_close(weights_of(trained.task), dict(last["state_dict"]))
    assert wsi_norm.load_checkpoint(config.output / "model.safetensors").provenance["scores"] == {
        "validation_selected": None
    }
    again = train(config)
    torch.testing.assert_close(weights_of(again.task), dict(last["state_dict"]))


def test_patience_without_validation(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}}, recipe={"patience": 1})
    assert refusal(ConfigError, config) == (
        "recipe.patience needs a validation split, and data.validation is empty"
    )


# --- going on


@pytest.mark.parametrize("watched", [True, False])
def test_a_killed_training_goes_on(
    cohort: Cohort, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    cohort()
    changes: dict[str, Any] = {
        "recipe": {"epochs": 4, "patience": 4 if watched else None},
        "network": {"arguments": {"dropout": 0.3}},
        "augmentation": {"jitter": 0.2, "scanners": 0.5},
        "data": {} if watched else {"validation": {}},
    }
    whole = train(settings(output=str(tmp_path / "whole"), **changes), judged=False)
    config = settings(**changes)
    with monkeypatch.context() as patch:  # in the middle of the third epoch
        interrupted_at(patch, 5, Stop)
        with pytest.raises(Stop):
            train(config, judged=False)
    assert [row["epoch"] for row in log_of(config)] == ["0", "1"]
    moved = config.model_copy(update={"output": tmp_path / "moved"})
    config.output.rename(moved.output)
    torch.rand(5)
    resumed = train(moved, judged=False)
    torch.testing.assert_close(weights_of(resumed.task), weights_of(whole.task), rtol=0, atol=1e-5)
    ends = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "moved")
    ]
    torch.testing.assert_close(*(dict(end["state_dict"]) for end in ends), rtol=0, atol=1e-5)
    assert [end["global_step"] for end in ends] == [8, 8]
    assert resumed.summary == whole.summary
    rows = [log_of(run) for run in (settings(output=str(tmp_path / "whole"), **changes), moved)]
    assert rows[0] == rows[1]
    assert not config.output.exists()


def test_it_goes_on_with_the_best_epoch_so_far(
    cohort: Cohort, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch before the interruption stays the best, in a folder that was moved too."""
    cohort()

    def falling(self: StainTask) -> None:
        self._seen.clear()
        self.log("validation/score", 0.9 - 0.1 * self.current_epoch)

    monkeypatch.setattr(StainTask, "on_validation_epoch_end", falling)
    config = settings(recipe={"epochs": 4})
    with monkeypatch.context() as patch:
        interrupted_at(patch, 5, Stop)
        with pytest.raises(Stop):
            train(config, judged=False)
    first = torch.load(config.output / "checkpoints" / "best.ckpt", weights_only=True)
    assert first["epoch"] == 0
    moved = config.model_copy(update={"output": tmp_path / "moved"})
    config.output.rename(moved.output)
    trained = train(moved, judged=False)
    assert trained.summary["scores"] == {"validation_selected": 0.9}
    torch.testing.assert_close(weights_of(trained.task), dict(first["state_dict"]))
    assert len(log_of(moved)) == 4


def test_ctrl_c(cohort: Cohort, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}})
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (config.output / "summary.json").exists()
    train(config)
    assert len(log_of(config)) == 2


def test_a_finished_training_called_again(
    cohort: Cohort, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort()
    config = settings()
    first = train(config)
    interrupted_at(monkeypatch, 4, Stop)  # a fifth step would be one too many
    again = train(config)
    assert again.summary == first.summary
    torch.testing.assert_close(weights_of(again.task), weights_of(first.task), rtol=0, atol=0)
    assert len(log_of(config)) == 2


def test_patience(cohort: Cohort, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort()
    scores = [0.5, 0.7, 0.6, 0.7, 0.9]

    def scripted(self: StainTask) -> None:
        self._seen.clear()
        self.log("validation/score", scores[self.current_epoch])

    monkeypatch.setattr(StainTask, "on_validation_epoch_end", scripted)
    config = settings(recipe={"epochs": 5, "patience": 2})
    trained = train(config, judged=False)
    assert trained.summary["scores"] == {"validation_selected": 0.7}
    assert [float(row["validation/score"]) for row in log_of(config)] == scores[:4]
    best = torch.load(config.output / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 1
    again = train(config, judged=False)  # it does not go on where it was stopped
    assert len(log_of(config)) == 4
    assert again.summary == trained.summary
    torch.testing.assert_close(weights_of(again.task), dict(best["state_dict"]))


def test_other_settings_in_the_same_folder(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    data = {"validation": {}, "test": {}}
    train(settings(data=data))
    other = settings(data=data, seed=3, recipe={"epochs": 5}, normalizer={"preset": "paper"})
    output = other.output
    assert refusal(TrainingError, other) == (
        f"{output}: holds a training with other settings (normalizer.preset: mean != paper; "
        "recipe.epochs: 2 != 5; seed: 0 != 3); choose another output, or start "
        "anew with --overwrite"
    )
    same = settings(
        data=data,
        recipe={"threads": torch.get_num_threads(), "device": "auto", "devices": 1},
        provenance={"data": "synthetic"},
    )
    settings_file = output / "config.yaml"
    said = yaml.safe_load(settings_file.read_text())
    del said["data"]["icc"]  # as an earlier version has it
    settings_file.write_text(yaml.safe_dump(said))
    train(same)
    assert len(log_of(same)) == 2
    train(other, overwrite=True)
    assert len(log_of(other)) == 5
    assert wsi_norm.load_checkpoint(output / "model.safetensors").config.preset == "paper"


def test_a_failed_start_binds_to_nothing(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    data = {"validation": {}, "test": {}}
    assert "is smaller than" in refusal(ConfigError, settings(data={**data, "tile_size": 64}))
    assert not (settings().output / "config.yaml").exists()
    train(settings(data=data, recipe={"epochs": 1}))


def test_overwrite_leaves_other_files_alone(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}}, recipe={"epochs": 1})
    (config.output / "log").mkdir(parents=True)
    (config.output / "log" / "diary.txt").write_text("")
    (config.output / "notes.txt").write_text("")
    train(config, overwrite=True)
    assert (config.output / "log" / "diary.txt").exists()  # there was no training to replace
    train(config, overwrite=True)
    assert (config.output / "notes.txt").exists()
    assert len(log_of(config)) == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut"])
def test_a_damaged_last_epoch(cohort: Cohort, settings: Make, damage: bytes) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}}, recipe={"epochs": 1})
    train(config)
    last = config.output / "checkpoints" / "last.ckpt"
    last.write_bytes(damage)
    assert refusal(TrainingError, config) == (
        f"{last}: damaged, so the training cannot go on; start anew with --overwrite"
    )
    train(config, overwrite=True)


# --- what is refused


def test_a_loss_that_is_no_number(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    config = settings(
        network={"name": "tests.cohorts:Exploding"}, data={"validation": {}, "test": {}}
    )
    assert refusal(TrainingError, config) == (
        "the loss became nan at step 0: lower recipe.learning_rate or recipe.layer_learning_rate, "
        "or use precision 32"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"tile_size": 40}}, "32 x 32 px is smaller than data.tile_size 40"),
        ({"data": {"downsample": 2, "tile_size": 32}}, "(scaled down by data.downsample 2) is"),
        ({"data": {"train": {"case": "none"}}}, "data.train (case none) matches no row"),
        ({"data": {"train": {"label": "a", "split": "train"}}}, "every training image is of the"),
        ({"data": {"index": "nowhere.csv"}}, "nowhere.csv: cannot read the table"),
        ({"data": {"columns": {"label": "kind"}}}, "no column 'kind'"),
        ({"network": {"name": "tests.cohorts:clasifier"}}, "tests.cohorts has no 'clasifier'"),
        ({"network": {"arguments": {"classes": 3}}}, "(2, 2) but is (2, 3)"),
        ({"normalizer": {"preset": "papper"}}, "normalizer: unknown preset 'papper'"),
        ({"normalizer": {"spaces": ["xyz"]}}, "normalizer: spaces must be distinct ones"),
        ({"normalizer": {"preset": "reference"}}, "measures each tile; statistics: tile"),
        ({"normalizer": {"target": 99}}, "normalizer.target 99: there are 16 training tiles"),
        ({"recipe": {"devices": 0}}, "recipe: no training with device cpu, devices 0"),
    ],
)
def test_settings_that_do_not_fit(
    cohort: Cohort, settings: Make, changes: dict[str, Any], expected: str
) -> None:
    cohort()
    assert expected in refusal(ConfigError, settings(**changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(cohort: Cohort, settings: Make) -> None:
    cohort()
    message = refusal(ConfigError, settings(recipe={"device": "cuda"}))
    assert message.startswith("recipe: no training with device cuda, devices auto, precision 32 h")


def test_images_of_two_sizes(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4)
    Image.new("RGB", (40, 32)).save(table.parent / "1-1.png")
    message = refusal(ConfigError, settings(data={"validation": 0.5, "test": {}}))
    assert message.startswith("images differ in size: ")


def test_masks_that_do_not_fit(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4)
    config = settings("segmentation", data={"validation": {}, "test": {}, "tile_size": 16})
    mask = table.parent / "1-1-mask.png"
    Image.new("1", (40, 32)).save(mask)
    assert "the mask is 40 x 32 px but its image" in refusal(ConfigError, config)
    Image.new("RGB", (32, 32)).save(mask)
    assert "masks must hold integers" in refusal(ConfigError, config)
    Image.new("L", (32, 32), 7).save(mask)
    three = settings(
        "segmentation",
        data={"validation": {}, "test": {}, "classes": ["x", "y", "z"]},
        network={"arguments": {"classes": 3}},
    )
    assert "the mask holds the value 7, but the 3 classes are" in refusal(ConfigError, three)


def test_an_image_that_is_cut(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4)
    path = table.parent / "1-1.png"
    path.write_bytes(path.read_bytes()[:600])
    message = refusal(WsiNormError, settings(data={"validation": {}, "test": {}}))
    assert str(path) in message


def test_a_folder_that_cannot_be_written(cohort: Cohort, settings: Make, tmp_path: Path) -> None:
    cohort(groups=4)
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        config = settings(output=str(tmp_path / name), data={"validation": {}, "test": {}})
        message = refusal(TrainingError, config)
        assert message.startswith(f"{tmp_path / name}: cannot write there: ")


def test_a_cohort_without_tissue(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4)
    for path in table.parent.glob("?-?.png"):
        Image.new("RGB", (32, 32), (250, 250, 250)).save(path)
    data = {"validation": {}, "test": {}}
    message = refusal(ConfigError, settings(data=data))
    assert message == "normalizer: cannot fit a template: the tiles hold (almost) no tissue"
    message = refusal(ConfigError, settings(data=data, normalizer={"kind": "macenko"}))
    assert message.startswith("macenko's own target: cannot be a target: no statistics")


# --- its parts


def test_class_weights_are_inverse_frequencies(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *[x for x in lines[1:] if ",a," in x or x[0] == "0"]]))
    data = {"validation": {}, "test": {}}
    config = settings(data=data)
    splits = wsi_norm.cohort.splits.read_splits(config.data, config.task, None, 0)
    tiles = cut(splits, config)["train_cuts"]
    labels = [image.label for image in splits.train]
    assert (labels.count(0), labels.count(1)) == (4, 2)
    task = build_task(config, tiles, "ab")
    assert task.class_weights is not None
    torch.testing.assert_close(task.class_weights, torch.tensor([6 / (2 * 4), 6 / (2 * 2)]))
    none = settings(data=data, recipe={"class_weights": "none"})
    assert build_task(none, tiles, "ab").class_weights is None
    unseen = build_task(settings(data=data, network={"arguments": {"classes": 3}}), tiles, "abc")
    assert unseen.class_weights is not None
    assert unseen.class_weights.isfinite().all()


def test_splits_of_ones_own(cohort: Cohort, settings: Make) -> None:
    table = cohort(groups=4)

    def image(name: str, label: int, group: str) -> LabelledImage:
        return LabelledImage(name, table.parent / name, None, label, None, group, "")

    first = tuple(image(f"0-{k}.png", k % 2, "g") for k in range(4))
    config = settings(recipe={"epochs": 1})
    splits = Splits(first, (image("1-0.png", 0, "h"), image("1-1.png", 1, "h")), (), ("p", "q"))
    check_splits(splits, config)
    trained = train(config, splits=splits)
    assert trained.classes == ("p", "q")
    assert set(trained.summary["scores"]) == {
        "validation_selected",
        "validation_clean",
        "validation_simulated",
    }
    assert provenance(config, splits, trained.summary)["train_domains"] == []


def test_the_tiles_of_a_training(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}, "tile_size": 16, "crops_per_image": 3})
    splits = wsi_norm.cohort.splits.read_splits(config.data, config.task, None, 0)
    tiles = cut(splits, config)
    assert {name: len(part) for name, part in tiles.items()} == {
        "train": len(splits.train),
        "validation": 0,
        "test": 0,
        "train_cuts": 3 * len(splits.train),
    }
    assert tiles["train"].pixels(0) is tiles["train_cuts"].pixels(0)


def test_the_layer_of_a_task(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4)
    config = settings(data={"validation": {}, "test": {}})
    splits = wsi_norm.cohort.splits.read_splits(config.data, config.task, None, 0)
    task = build_task(config, cut(splits, config)["train_cuts"], splits.classes)
    assert isinstance(task.front, LayerFront)
    assert isinstance(layer_of(task), LStainNorm)
    assert task.total_steps == 2 * 1


# --- through a frozen network


def weights_file(path: Path, **arguments: Any) -> Path:
    """A network that others trained: random weights, running statistics that are no defaults."""
    torch.manual_seed(5)
    network = classifier(**arguments)
    network(torch.rand(16, 3, 32, 32))
    torch.save({"state_dict": network.state_dict()}, path)
    return path


def frozen(settings: Make, weights: Path, **changes: Any) -> TrainConfig:
    network = {"weights": str(weights), "frozen": True, "arguments": {"dropout": 0.5}}
    return settings(network=network, **changes)


def test_a_frozen_network_stays_as_it_was_while_the_layer_learns(
    cohort: Cohort, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort()
    path = weights_file(tmp_path / "theirs.pt")
    theirs = torch.load(path, weights_only=True)["state_dict"]
    modes: list[bool] = []
    original = StainTask.training_step

    def watched(self: StainTask, batch: Any, index: int) -> Any:
        modes.append(any(module.training for module in self.network.modules()))
        assert self.front.training
        return original(self, batch, index)

    monkeypatch.setattr(StainTask, "training_step", watched)
    config = frozen(settings, path)
    trained = train(config)
    assert len(modes) == 4  # two epochs, of two steps each
    assert not any(modes)
    torch.testing.assert_close(dict(trained.task.network.state_dict()), theirs, rtol=0, atol=0)
    layer = layer_of(trained.task)
    assert layer is not None
    assert layer.normalization.mean_offset.abs().max() > 0.005
    assert not (config.output / "network.safetensors").exists()
    kept = torch.load(config.output / "checkpoints" / "last.ckpt", weights_only=True)
    assert {name.partition(".")[0] for name in kept["state_dict"]} == {"front"}
    facts = wsi_norm.load_checkpoint(config.output / "model.safetensors").provenance
    assert facts["network_frozen"] is True
    assert facts["network_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path) not in json.dumps(facts)


def test_only_the_layer_is_optimised(cohort: Cohort, settings: Make, tmp_path: Path) -> None:
    cohort(groups=4, each=2)
    config = frozen(settings, weights_file(tmp_path / "w.pt"))
    splits = read_splits(config.data, config.task, None, 0)
    task = build_task(config, cut(splits, config)["train_cuts"], splits.classes)
    (group,) = task.configure_optimizers()["optimizer"].param_groups
    assert group["lr"] < config.recipe.layer_learning_rate == group["initial_lr"]
    assert {id(p) for p in group["params"]} == {id(p) for p in task.front.parameters()}
    assert group["weight_decay"] == 0
    task.train()
    assert not task.network.training


def test_weights_are_a_start_where_nothing_is_frozen(
    cohort: Cohort, settings: Make, tmp_path: Path
) -> None:
    cohort(groups=4)
    path = weights_file(tmp_path / "w.pt")
    config = settings(
        network={"weights": str(path)},
        recipe={"epochs": 1, "learning_rate": 1e-9, "warmup_steps": 0},
        data={"validation": {}, "test": {}},
    )
    trained = train(config)
    theirs = torch.load(path, weights_only=True)["state_dict"]
    weight = load_file(config.output / "network.safetensors")["0.weight"]
    torch.testing.assert_close(weight, theirs["0.weight"], rtol=0, atol=1e-6)
    assert layer_of(trained.task) is not None


def test_a_frozen_training_goes_on(
    cohort: Cohort, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would have, though its kept epochs hold no network; the file may have moved."""
    cohort()
    path = weights_file(tmp_path / "w.pt")
    changes: dict[str, Any] = {"recipe": {"epochs": 4}}
    whole = train(frozen(settings, path, output=str(tmp_path / "whole"), **changes), judged=False)
    config = frozen(settings, path, **changes)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 5, Stop)
        with pytest.raises(Stop):
            train(config, judged=False)
    path = path.rename(tmp_path / "moved.pt")
    resumed = train(frozen(settings, path, **changes), judged=False)
    torch.testing.assert_close(weights_of(resumed.task), weights_of(whole.task), rtol=0, atol=1e-5)
    weights_file(path, classes=2)
    theirs = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"model": theirs}, path)  # other bytes
    message = refusal(TrainingError, frozen(settings, path, **changes))
    assert "holds a training with other settings (network.sha256: " in message


@pytest.mark.parametrize(
    "normalizer", [{"learn": False}, {"kind": "none"}, {"kind": "macenko"}, {"kind": "reinhard"}]
)
def test_nothing_would_learn(
    cohort: Cohort, settings: Make, tmp_path: Path, normalizer: dict[str, Any]
) -> None:
    cohort(groups=4, each=2)
    config = frozen(settings, weights_file(tmp_path / "w.pt"), normalizer=normalizer)
    message = refusal(ConfigError, config)
    assert message.startswith("nothing would learn: network.frozen leaves the network as it is")
    assert "wsi-norm evaluate" in message
    assert not config.output.exists()


def test_a_network_that_lets_no_gradient_through(cohort: Cohort, settings: Make) -> None:
    cohort(groups=4, each=2)
    config = settings(
        network={"name": "tests.cohorts:Cutting", "frozen": True},
        data={"validation": {}, "test": {}},
    )
    assert refusal(TrainingError, config).startswith(
        "no gradient reaches the layer through network.name 'tests.cohorts:Cutting'"
    )


def test_a_layer_goes_on_from_a_checkpoint(cohort: Cohort, settings: Make, tmp_path: Path) -> None:
    """Its template is that of the file, whatever the training tiles look like."""
    cohort(groups=4, each=2)
    start = tmp_path / "start.safetensors"
    dark = np.random.default_rng(0).integers(20, 90, (16, 16, 3), np.uint8)
    layer = LStainNorm("single:lab", template=Template.fit(dark), statistics="tile")
    save_checkpoint(layer, start)
    config = settings(normalizer={"start": str(start)}, data={"validation": {}, "test": {}})
    trained = layer_of(train(config).task)
    assert trained is not None
    assert trained.config == layer.config
    assert trained.template == layer.template
    assert trained.target != trained.template
