"""The group: help without imports, errors as one line, exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest
from wsi_norm_cli.group import COMMANDS, cli

from tests.builders import exit_status, help_text
from wsi_norm.errors import ConfigError, ReportError

HEAVY = (
    "torch",
    "dask",
    "distributed",
    "zarr",
    "openslide",
    "tiffslide",
    "kornia",
    "skimage",
    "numba",
)


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in ("run", "verify", "export"))]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert "Usage: wsi-norm" in help_text(arguments, absent=HEAVY)


def test_every_command_exists_and_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert exit_status(name, "--help") == 0
        assert f"Usage: wsi-norm {name}" in capsys.readouterr().out


def test_module_form() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wsi_norm", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("wsi-norm, version ")


@pytest.mark.parametrize("name", ["no-such-command", "fit_templates"])
def test_unknown_command_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(name) == 2
    assert "No such command" in capsys.readouterr().err


def test_our_errors_are_one_line_and_a_traceback_only_with_v(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConfigError("a.yaml: wrong; mend it")

    monkeypatch.setattr(cli, "invoke", fail)
    assert exit_status("run") == 2
    assert capsys.readouterr().err == "error: a.yaml: wrong; mend it\n"
    assert exit_status("run", "-v") == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "invoke", interrupt)
    assert exit_status("run") == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ReportError("out: the report cannot be written"), "out: the report cannot be written"),
        (OSError(28, "No space left", "a/b"), "a/b: No space left (-v shows where)"),
        (MemoryError(), "out of memory; give the command more, or fewer --workers"),
        (ImportError("no libtorch"), "no libtorch (too little memory, or a damaged installation"),
    ],
)
def test_what_fails_on_the_way_is_1_and_one_line(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """2 is for what is wrong before the first slide."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "invoke", fail)
    assert exit_status("run") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1
