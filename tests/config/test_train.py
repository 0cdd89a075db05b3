"""Settings of a training: defaults, what they refuse, how they say it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from wsi_norm.config import TrainConfig, train_config
from wsi_norm.config.evaluate import merge
from wsi_norm.errors import ConfigError

PLAIN: dict[str, Any] = {
    "task": "classification",
    "data": {"index": "index.csv", "columns": {"label": "label"}},
    "network": {"name": "monai:DenseNet121"},
}
MASKS: dict[str, Any] = {
    "task": "segmentation",
    "data": {"index": "index.csv", "columns": {"mask": "mask"}},
    "network": {"name": "monai:UNet"},
}


def write(folder: Path, settings: Any) -> Path:
    file = folder / "train.yaml"
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return file


def refusal(folder: Path, settings: Any, **options: Any) -> str:
    """The one line that these settings give, without the file's name."""
    file = write(folder, settings)
    with pytest.raises(ConfigError) as caught:
        train_config(file, **options)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def test_little_has_to_be_said(tmp_path: Path) -> None:
    config = train_config(write(tmp_path, PLAIN))
    assert config.output == Path("trained")
    assert config.data.index == Path("index.csv")
    assert (config.normalizer.kind, config.normalizer.preset) == ("lstainnorm", "single:od")
    assert config.normalizer.statistics == "slide"
    assert config.recipe.epochs >= 1
    assert train_config(write(tmp_path, MASKS)).task == "segmentation"


def test_options_rule_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, PLAIN | {"seed": 3, "output": "a"})
    assert train_config(file, seed=None, output=None).seed == 3
    config = train_config(file, seed=0, output=tmp_path)
    assert (config.seed, config.output) == (0, tmp_path)


def test_filters_hold_text_as_tables_do(tmp_path: Path) -> None:
    settings = merge(PLAIN, {"data": {"where": {"fold": 1, "scanner": ["a", 2]}, "test": {3: "x"}}})
    data = train_config(write(tmp_path, settings)).data
    assert data.where == {"fold": ["1"], "scanner": ["a", "2"]}
    assert data.test == {"3": ["x"]}
    shares = merge(PLAIN, {"data": {"validation": 0.25}})
    assert train_config(write(tmp_path, shares)).data.validation == 0.25


def test_what_is_dumped_is_what_was_read(tmp_path: Path) -> None:
    """A training's own record of its settings is a file to train from."""
    config = train_config(write(tmp_path, merge(PLAIN, {"normalizer": {"target": "t.png"}})))
    again = train_config(write(tmp_path, config.model_dump(mode="json")))
    assert again == config
    assert isinstance(again, TrainConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tusk": 1}, "unknown key 'tusk'; did you mean 'task'?"),
        ({"recipe": {"epoch": 3}}, "recipe: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"data": {"columns": {"lable": "x"}}}, "data.columns: unknown key 'lable'"),
        ({"task": "regression"}, "task: Input should be 'classification' or 'segmentation'"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs: Input should be greater than or equal to 1"),
        ({"recipe": {"learning_rate": 0}}, "recipe.learning_rate: "),
        (
            {"normalizer": {"start": "a.pt", "target": 3}},
            "normalizer: give start or target, not both",
        ),
        ({"network": {"sha256": "ab"}}, "network: sha256 is that of the weights, and there are no"),
        ({"data": {"fixed_crops": True}}, "data: fixed_crops needs tile_size, and no views"),
        ({"data": {"limit": 1}}, "data.limit: Input should be greater than or equal to 2"),
        ({"recipe": 5}, "recipe: settings must be 'key: value' lines"),
        (
            {"normalizer": {"kind": "mackenco"}},
            "normalizer.kind: 'mackenco' is none of lstainnorm, macenko, reinhard, none; did you "
            "mean 'macenko'?",
        ),
        ({"normalizer": {"kind": ["none"]}}, "normalizer.kind: Input should be a valid string"),
        ({"recipe": {"device": "tpu"}}, "recipe.device: Input should be 'auto', 'cpu' or 'cuda'"),
        ({"recipe": {"device": "cuda:1"}}, "recipe.device: Input should be 'auto', 'cpu' or"),
        ({"augmentation": {"jitter": 2}}, "augmentation.jitter: "),
        ({"data": {"validation": 1}}, "data.validation"),
        ({"data": {"tile_size": 4}}, "data.tile_size: "),
        (
            {"data": {"index": None, "stores": ["a"], "labels": "l.csv", "icc": "apply"}},
            "data: icc: stores hold tiles as their run made them",
        ),
        ({"data": {"folder": "f"}}, "data: give one of index, folder and stores"),
        ({"data": {"labels": "l.csv"}}, "data: stores and labels (their table) go together"),
        ({"data": {"views": {"a": "center"}}}, "data: views need tile_size"),
        (
            {"data": {"views": {"a": "center"}, "tile_size": 32}},
            "classification needs data.columns.label, or data.views; not both",
        ),
        ({"seed": -1}, "seed: "),
        ({"network": {"name": None}}, "network.name: Input should be a valid string"),
    ],
    ids=str,
)
def test_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, merge(PLAIN, change)).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "task: Field required"),
        ({"task": "classification"}, "data: Field required"),
        (merge(MASKS, {"data": {"columns": {"mask": None}}}), "segmentation needs data.index and"),
        (merge(PLAIN, {"data": {"columns": {"label": None}}}), "classification needs data.columns"),
        (merge(PLAIN, {"data": {"index": None}}), "data: give one of index, folder and stores"),
    ],
    ids=str,
)
def test_something_is_missing(tmp_path: Path, settings: Any, message: str) -> None:
    assert refusal(tmp_path, settings).startswith(message)


def test_folders_and_stores_have_labels_of_their_own(tmp_path: Path) -> None:
    for data in ({"folder": "f"}, {"stores": ["a.zarr"], "labels": "l.csv"}):
        config = train_config(write(tmp_path, copy.deepcopy(PLAIN) | {"data": data}))
        assert config.data.index is None


def test_an_option_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^seed: "):
        train_config(write(tmp_path, PLAIN), seed=2**31)


def test_the_old_spelling_of_the_layer(tmp_path: Path) -> None:
    old = train_config(write(tmp_path, merge(PLAIN, {"normalizer": {"kind": "layer"}})))
    assert old == train_config(write(tmp_path, PLAIN))
    assert old.normalizer.kind == "lstainnorm"


def test_what_learns(tmp_path: Path) -> None:
    def learns(**changes: Any) -> bool:
        return train_config(write(tmp_path, merge(PLAIN, changes))).learns

    frozen = {"frozen": True, "weights": "w.pt"}
    assert learns()
    assert learns(normalizer={"learn": False})
    assert learns(network=frozen)
    assert not learns(network=frozen, normalizer={"learn": False})
    assert not learns(network=frozen, normalizer={"kind": "macenko"})
