"""`wsi-norm evaluate` from the command line, in this process; the evaluation is a stand-in."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders import exit_status
from wsi_norm.errors import TrainingError

TRAINING: dict[str, Any] = {
    "task": "classification",
    "data": {
        "index": "index.csv",
        "columns": {"label": "label"},
        "test": {"split": "test"},
    },
    "network": {"name": "monai:DenseNet121"},
}
SETTINGS: dict[str, Any] = {"training": TRAINING, "methods": {"a": {}, "b": {}}}


def status(*arguments: object) -> int:
    """Exit status of `wsi-norm evaluate` in this process."""
    return exit_status("evaluate", *arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"output": str(tmp_path / "out")}))
    return path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What the library is called with; two trials are done at once, and the tables written."""
    from wsi_norm.evaluation.trials import Trial

    calls = []

    def evaluate(config: Any, root: Any, progress: Any) -> None:
        calls.append((config, root))
        for done, method in enumerate("ab", 1):
            progress(done, 2, Trial(method, 0))
        config.output.mkdir(exist_ok=True)
        (config.output / "tables.md").write_text("| a ▲ |\n", encoding="utf-8")

    monkeypatch.setattr("wsi_norm.evaluation.evaluate.evaluate", evaluate)
    monkeypatch.delenv("WSI_NORM_DATA_ROOT", raising=False)
    return calls


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Usage: wsi-norm evaluate [OPTIONS] CONFIG" in text
    for option in ("--data-root", "WSI_NORM_DATA_ROOT", "--output", "--workers"):
        assert option in text


def test_what_is_given_is_handed_on(
    file: Path, called: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status(file) == 0
    assert status(file, "-o", tmp_path / "b", "-n", 3, "--data-root", tmp_path) == 0
    monkeypatch.setenv("WSI_NORM_DATA_ROOT", str(tmp_path / "variable"))
    assert status(file) == 0
    assert [root for _, root in called] == [None, tmp_path, tmp_path / "variable"]
    assert [config.workers for config, _ in called] == [1, 3, 1]
    assert [config.output for config, _ in called[:2]] == [tmp_path / "out", tmp_path / "b"]


def test_the_tables_are_printed_and_nothing_moves(
    file: Path, called: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(file) == 0
    out, err = capsys.readouterr()
    assert out.startswith("| a ▲ |\n")
    assert out.splitlines()[-1].startswith(f"{tmp_path / 'out'}: tables.md, summary.csv")
    assert err == ""  # no bar: stderr is no terminal here
    assert status(file, "-q") == 0
    assert "▲" not in capsys.readouterr().out


def test_a_terminal_sees_a_bar(
    file: Path, called: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert status(file) == 0
    assert "2/2" in capsys.readouterr().err
    assert status(file, "-q") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (None, "cannot read the file"),
        ({"methods": {"a": {}}}, "training: Field required"),
        (SETTINGS | {"reference": "c"}, "reference 'c' is none of the methods"),
        (
            SETTINGS | {"methods": {"a": {"change": {"recipe": {"epocs": 1}}}}},
            "method 'a': recipe: unknown key 'epocs'; did you mean 'epochs'?",
        ),
    ],
)
def test_bad_settings_are_2_and_one_line(
    tmp_path: Path, settings: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    if settings is not None:
        file.write_text(yaml.safe_dump(settings))
    assert status(file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: ")
    assert words in line


def test_a_training_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(yaml.safe_dump(SETTINGS | {"training": "gone.yaml"}))
    assert status(file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file.parent / 'gone.yaml'}: cannot read the file")


def test_a_failing_method_is_2_and_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise TrainingError("method 'a', seed 0: the loss became nan")

    monkeypatch.setattr("wsi_norm.evaluation.evaluate.evaluate", fail)
    assert status(file) == 2
    assert capsys.readouterr().err == "error: method 'a', seed 0: the loss became nan\n"


def test_a_missing_extra_is_named_with_its_remedy(
    file: Path, called: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "pandas" else object())
    assert status(file) == 2
    assert capsys.readouterr().err == (
        "error: training needs pandas: pip install 'wsi-norm[train]'\n"
    )
    assert called == []


def test_ctrl_c_is_130(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_norm.evaluation.evaluate.evaluate", interrupted)
    assert status(file) == 130
    assert "run the same command again" in capsys.readouterr().err
