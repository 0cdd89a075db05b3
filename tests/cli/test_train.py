"""`wsi-norm train` from the command line, in this process; the training itself is a stand-in."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.builders import exit_status, help_text

SETTINGS: dict[str, Any] = {
    "task": "classification",
    "data": {"index": "index.csv", "columns": {"label": "label"}},
    "network": {"name": "monai:DenseNet121"},
}
SUMMARY = {
    "score": "balanced accuracy",
    "scores": {
        "validation_selected": 0.7,
        "validation_clean": 0.75,
        "validation_simulated": 0.5,
        "test_clean": 0.8125,
        "test_simulated": 0.625,
    },
}
SPLITS = SimpleNamespace(
    classes=("benign", "tumour", "unseen"),
    train=[SimpleNamespace(label=label) for label in (0, 1, 1)],
)


def status(*arguments: object) -> int:
    """Exit status of `wsi-norm train` in this process."""
    return exit_status("train", *arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path / "out")}))
    return path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, dict[str, Any]]]:
    """What the library is called with; it returns a summary at once."""
    calls = []

    def train(config: Any, root: Any, **named: Any) -> Any:
        calls.append((config, root, named))
        return SimpleNamespace(summary=SUMMARY)

    monkeypatch.setattr("wsi_norm.training.train.train", train)
    monkeypatch.setattr("wsi_norm.cohort.splits.read_splits", lambda *_: SPLITS)
    monkeypatch.delenv("WSI_NORM_DATA_ROOT", raising=False)
    return calls


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Usage: wsi-norm train [OPTIONS] CONFIG" in text
    for option in (
        "--data-root",
        "WSI_NORM_DATA_ROOT",
        "--output",
        "--seed",
        "--overwrite",
        "of everything",
    ):
        assert option in text


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_imports_nothing_of_the_training(arguments: list[str]) -> None:
    heavy = ["lightning", "pandas", "matplotlib", "sklearn", "monai", "torch"]
    heavy += ["pydantic"] if len(arguments) == 1 else []  # settings say what the options are
    assert "Usage: wsi-norm" in help_text(arguments, absent=tuple(heavy))


def test_what_is_given_is_handed_on(file: Path, called: list[Any], tmp_path: Path) -> None:
    assert status(file) == 0
    config, root, named = called[0]
    assert (config.output, config.seed, root) == (tmp_path / "out", 0, None)
    assert named == {
        "overwrite": False,
        "progress": False,
        "splits": SPLITS,
    }  # stderr is no terminal here
    assert status(file, "-o", tmp_path / "b", "--seed", 5, "--overwrite") == 0
    config, _, named = called[1]
    assert (config.output, config.seed) == (tmp_path / "b", 5)
    assert named["overwrite"]


def test_the_data_root_is_an_option_or_a_variable(
    file: Path, called: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_NORM_DATA_ROOT", str(tmp_path / "variable"))
    assert status(file) == 0
    assert status(file, "--data-root", tmp_path / "option") == 0
    assert status(file, "--data_root", tmp_path / "option") == 0
    roots = [root for _, root, _ in called]
    assert roots == [tmp_path / "variable", tmp_path / "option", tmp_path / "option"]


@pytest.mark.parametrize(("quiet", "shown"), [([], True), (["-q"], False)])
def test_progress_is_for_terminals(
    file: Path,
    called: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    quiet: list[str],
    shown: bool,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert status(file, *quiet) == 0
    assert called[0][2]["progress"] is shown


def test_scores_and_what_to_do_next(
    file: Path, called: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(file) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "classes    benign (1), tumour (2), unseen"
    assert lines[1] == "validation balanced accuracy 0.750, under simulated scanners 0.500"
    assert lines[2] == "test       balanced accuracy 0.812, under simulated scanners 0.625"
    assert lines[3].endswith("trained without a layer, so there is no checkpoint for run")
    model = tmp_path / "out" / "model.safetensors"
    model.parent.mkdir()
    model.touch()
    assert status(file) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{model}: wsi-norm inspect {model}; wsi-norm run SLIDES --ckpt {model}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read the file"),
        ("tusk: 1\n", "unknown key 'tusk'; did you mean 'task'?"),
        ("task: [\n", "not YAML"),
        (yaml.safe_dump(SETTINGS | {"data": {}}), "data: give one of index, folder and stores"),
    ],
)
def test_bad_settings_are_2_and_one_line(
    tmp_path: Path, text: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    if text is not None:
        file.write_text(text)
    assert status(file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: ")
    assert words in line


@pytest.mark.parametrize("arguments", [[], ["a.yaml", "--seed", "-1"], ["a.yaml", "--epochs", "3"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_data_that_are_not_there_are_2_and_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(file, "--data-root", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'index.csv'}: ")


def test_a_missing_extra_is_named_with_its_remedy(
    file: Path, called: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in {"monai", "lightning"} else object()

    monkeypatch.setattr(util, "find_spec", find_spec)
    assert status(file) == 2
    expected = "error: training needs lightning, monai: pip install 'wsi-norm[train]'\n"
    assert capsys.readouterr().err == expected
    assert called == []


def test_ctrl_c_is_130(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_norm.cohort.splits.read_splits", lambda *_: SPLITS)
    monkeypatch.setattr("wsi_norm.training.train.train", interrupted)
    assert status(file) == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "interrupted; run the same command again to go on"
