"""Settings of an evaluation: methods around one training, and what cannot be compared."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from wsi_norm.config import EvaluateConfig, evaluate_config
from wsi_norm.config.evaluate import folder_name, merge
from wsi_norm.errors import ConfigError

TRAINING: dict[str, Any] = {
    "task": "classification",
    "data": {
        "index": "index.csv",
        "columns": {"label": "label", "domain": "domain"},
        "test": {"split": "test"},
        "tile_size": 64,
    },
    "network": {"name": "monai:DenseNet121"},
    "recipe": {"epochs": 3},
}
FIXED = {"change": {"normalizer": {"preset": "single:lab", "learn": False}}}
BEFORE: dict[str, Any] = {"network": {"frozen": True}, "recipe": {"epochs": 1}}
PLAIN: dict[str, Any] = {
    "training": TRAINING,
    "methods": {"none": {"change": {"normalizer": {"kind": "none"}}}, "fixed": FIXED, "ours": {}},
}


def write(folder: Path, settings: Any, name: str = "evaluate.yaml") -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def refusal(folder: Path, settings: Any) -> str:
    """The one line that these settings give, without the file's name."""
    file = write(folder, settings)
    with pytest.raises(ConfigError) as caught:
        evaluate_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def changed(change: dict[str, Any]) -> dict[str, Any]:
    return merge(copy.deepcopy(PLAIN), change)


# --- what is read


def test_defaults(tmp_path: Path) -> None:
    config = evaluate_config(write(tmp_path, PLAIN))
    assert config.output == Path("evaluated")
    assert config.seeds == (0, 1, 2, 3, 4)
    assert config.conditions == ("clean", "simulated")
    assert (config.reference, config.templates, config.leave_out) == (None, None, False)
    assert config.workers == 1
    assert list(config.methods) == ["none", "fixed", "ours"]  # in the order of the file


def test_options_rule_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, PLAIN | {"workers": 3})
    assert evaluate_config(file, workers=None).workers == 3
    config = evaluate_config(file, workers=2, output=tmp_path)
    assert (config.workers, config.output) == (2, tmp_path)


def test_the_training_may_stand_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, TRAINING, "train.yaml")
    write(tmp_path / "sub", TRAINING, "near.yaml")
    inline = evaluate_config(write(tmp_path, PLAIN)).training
    for name in ("../train.yaml", "near.yaml", str(tmp_path / "train.yaml")):
        file = write(tmp_path / "sub", PLAIN | {"training": name})
        assert evaluate_config(file).training == inline


def test_the_training_of_a_method(tmp_path: Path) -> None:
    methods = {
        "other recipe": {
            "change": {"recipe": {"batch_size": 4}, "normalizer": {"kind": "reinhard"}},
        },
        "user": {"uses": "other recipe", "change": {"normalizer": {"preset": "mean"}}},
    }
    config = evaluate_config(write(tmp_path, changed({"methods": methods})))
    assert config.of("ours") == config.training
    assert config.of("none").normalizer.kind == "none"
    changed_ = config.of("other recipe", seed=7, output="x")
    assert (changed_.recipe.epochs, changed_.recipe.batch_size) == (3, 4)
    assert (changed_.seed, changed_.output) == (7, Path("x"))
    # all of the used method's settings, but its normaliser
    user = config.of("user")
    assert user.recipe == changed_.recipe
    assert (user.normalizer.kind, user.normalizer.preset) == ("lstainnorm", "mean")


def test_a_layer_before_the_network_of_another_method(tmp_path: Path) -> None:
    change = BEFORE | {"data": {"limit": 16}, "augmentation": {"jitter": 0.5}}
    methods = {"before": {"uses": "none", "change": change}}
    config = evaluate_config(write(tmp_path, changed({"methods": methods}))).of("before")
    assert config.normalizer.kind == "lstainnorm"
    assert (config.network.frozen, config.network.name) == (True, "monai:DenseNet121")
    assert (config.recipe.epochs, config.data.limit) == (1, 16)
    assert config.learns


def test_merge_is_key_by_key() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [5]}, "e": 1}) == {"a": {"b": 1, "c": [5]}, "d": 3, "e": 1}
    assert merge(base, {"a": 1, "d": {"x": 1}}) == {"a": 1, "d": {"x": 1}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("paper, tile", "0"), "paper_tile--0"),
        (("a/b", "1", "", "x"), "a_b--1--x"),
        (("..", "0"), "..--0"),
        (("fixed rgb + scanners", "2"), "fixed_rgb_+_scanners--2"),
    ],
)
def test_folder_names(parts: tuple[str, ...], name: str) -> None:
    assert folder_name(*parts) == name


# --- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"referense": "none"}, "unknown key 'referense'; did you mean 'reference'?"),
        ({"reference": "nine"}, "reference 'nine' is none of the methods"),
        (
            {"templates": {"method": "fixt", "beside": "ours"}},
            "templates.method 'fixt' is none of the methods",
        ),
        (
            {"templates": {"method": "fixed", "beside": "us"}},
            "templates.beside 'us' is none of the methods",
        ),
        (
            {"templates": {"method": "none", "beside": "ours"}},
            "templates.method 'none' has no normaliser, so no target",
        ),
        (
            {"templates": {"method": "fixed", "beside": "ours"}, "leave_out": True},
            "templates are judged on training.data.test: not with leave_out",
        ),
        (
            {
                "methods": {"u": {"uses": "none"}},
                "templates": {"method": "u", "beside": "ours"},
            },
            "templates.method 'u' must be one that is trained, not 'uses'",
        ),
        ({"templates": {"method": "fixed", "beside": "ours", "images": 1}}, "templates.images: "),
        (
            {"methods": {"bad": {"change": {"recipe": {"epocs": 1}}}}},
            "method 'bad': recipe: unknown key 'epocs'; did you mean 'epochs'?",
        ),
        (
            {"methods": {"bad": {"change": {"recipee": {}}}}},
            "method 'bad': unknown key 'recipee'; did you mean 'recipe'?",
        ),
        (
            {"methods": {"bad": {"change": {"normalizer": "none"}}}},
            "method 'bad': normalizer: settings must be 'key: value' lines",
        ),
        ({"methods": {"bad": {"chang": {}}}}, "methods.bad: unknown key 'chang'"),
        ({"methods": {"bad": {"change": {"seed": 3}}}}, "method 'bad' changes 'seed', which all"),
        ({"methods": {"bad": {"change": {"task": "segmentation"}}}}, "method 'bad' changes 'task'"),
        (
            {"methods": {"bad": {"uses": "nobody"}}},
            "method 'bad' uses 'nobody', which is none of the methods",
        ),
        (
            {"methods": {"a": {"uses": "b"}, "b": {"uses": "none"}}},
            "method 'a' uses 'b', which is not trained but uses one",
        ),
        ({"methods": {"a": {"uses": "a"}}}, "method 'a' uses 'a', which is not trained"),
        (
            {"methods": {"a": {"uses": "none", "change": {"recipe": {"epochs": 1}}}}},
            "method 'a' uses the networks of 'none': it can change the normalizer, not 'recipe'",
        ),
        (
            {"methods": {"a": {"uses": "none", "change": {"network": {"frozen": False}}}}},
            "method 'a' uses the networks of 'none': it can change the normalizer, not 'network'; "
            "for a layer that learns before them, give network: {frozen: true}",
        ),
        (
            {"methods": {"a": {"uses": "none", "change": BEFORE | {"data": {"test": {}}}}}},
            "method 'a' learns before the networks of 'none': of data it can change limit, "
            "crops_per_image, fixed_crops, not 'test'",
        ),
        (
            {"methods": {"a": {"change": {"normalizer": {"target": "seen"}}}}},
            "method 'a': normalizer.target 'seen' needs 'uses' and the kind lstainnorm",
        ),
        (
            {
                "training": {"network": {"frozen": True}},
                "methods": {"a": {"uses": "none"}},
            },
            "method 'a' uses 'none', which trains no network: leave out 'uses'",
        ),
        ({"methods": {"a b": {}, "a,b": {}}}, "methods 'a b' and 'a,b' would share a folder"),
        ({"methods": {"NONE": {}}}, "methods 'none' and 'NONE' would share a folder"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [1, 1]}, "seeds: 1 is listed twice"),
        ({"seeds": [-1]}, "seeds.0: "),
        ({"conditions": ["clean", "clean"]}, "conditions: 'clean' is listed twice"),
        ({"conditions": ["dirty"]}, "conditions.0: "),
        ({"workers": 0}, "workers: "),
        ({"training": {"data": {"tile_size": 8}}}, "method 'none': data.tile_size must be at lea"),
        ({"training": {"data": {"index": None}}}, "training.data: give one of index, folder"),
    ],
    ids=str,
)
def test_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, changed(change)).startswith(message)


def test_there_must_be_something_to_judge_on(tmp_path: Path) -> None:
    settings = copy.deepcopy(PLAIN)
    del settings["training"]["data"]["test"]
    assert refusal(tmp_path, settings) == (
        "method 'none' has nothing to be judged on: give training.data.test, or leave_out: true"
    )
    assert evaluate_config(write(tmp_path, settings | {"leave_out": True})).leave_out
    del settings["training"]["data"]["columns"]["domain"]
    message = refusal(tmp_path, settings | {"leave_out": True})
    assert message == "leave_out needs training.data.columns.domain"


def test_targets_are_image_files(tmp_path: Path) -> None:
    settings = changed({"templates": {"method": "fixed", "beside": "ours"}})
    data = {"stores": ["a.zarr"], "labels": "l.csv", "test": {"split": "test"}}
    settings["training"]["data"] = data
    assert refusal(tmp_path, settings).startswith("templates need image files")


def test_no_methods(tmp_path: Path) -> None:
    assert refusal(tmp_path, PLAIN | {"methods": {}}).startswith("methods: ")
    assert refusal(tmp_path, {"training": TRAINING}) == "methods: Field required"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read the file"):
        evaluate_config(tmp_path / "none.yaml")
    file = write(tmp_path, PLAIN | {"training": "gone.yaml"})
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot read the file") as caught:
        evaluate_config(file)
    assert "\n" not in str(caught.value)


def test_the_shipped_experiments_are_valid() -> None:
    folder = Path(__file__).parents[2] / "experiments"
    for file in folder.glob("*.yaml"):
        if "methods" in yaml.safe_load(file.read_text()):
            assert isinstance(evaluate_config(file), EvaluateConfig)
