"""The lines of docs/outputs.md on PyTorch, run as they stand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.documents import snippet


@pytest.fixture
def place(
    slide_path: Path, stored: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what these lines name."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / slide_path.name).symlink_to(slide_path)
    shutil.copytree(stored, tmp_path / "normalized" / "case.zarr")
    shutil.copytree(plan, tmp_path / "plans" / "case.zarr")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("heading", ["PyTorch", "Once through all tiles", "Without pixels"])
def test_lines_for_pytorch(place: Path, heading: str) -> None:
    names: dict[str, Any] = {}
    exec(snippet("outputs.md", heading), names)
    assert names["tiles"].shape[1:] == (3, 256, 256)
