"""What is installed: every file of the tree, under the names that users import."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import wsi_norm

ROOT = Path(__file__).parent.parent


PARTS = {"wsi_norm": "wsi_norm", "cli": "wsi_norm_cli", "sample_configs": "wsi_norm/sample_configs"}
"""Folders of the tree, and where they are installed."""


def sources(folder: Path) -> list[Path]:
    """What is to be installed of a folder."""
    suffixes = {".py", ".safetensors", ".yaml", ".json", ".html", ".css"}
    found = (path for path in folder.rglob("*") if path.suffix in suffixes)
    return [*found, *folder.rglob("py.typed")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel, without the network; of a copy: a build leaves its litter."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        for path in sources(ROOT / part):
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", folder, folder], check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return {name for name in zipfile.ZipFile(file).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_of_the_tree(wheel: set[str]) -> None:
    assert wheel == {
        f"{installed}/{path.relative_to(ROOT / part).as_posix()}"
        for part, installed in PARTS.items()
        for path in sources(ROOT / part)
    }


def test_public_names_are_importable() -> None:
    for name in wsi_norm.__all__:
        assert getattr(wsi_norm, name).__name__ == name
    assert set(wsi_norm.__all__) <= set(dir(wsi_norm))
    assert wsi_norm.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wsi_norm.nothing


def test_the_tests_mirror_the_package() -> None:
    """Every module has its test file; what a test covers beside that says so in its name."""
    elsewhere = {
        "errors": "its classes are raised in all other tests",
        "lstainnorm/base": "tests/lstainnorm/test_layer.py",
        "lstainnorm/chebyshev": "tests/lstainnorm/test_attention.py",
        "lstainnorm/config": "tests/lstainnorm/test_layer.py",
        "lstainnorm/counts": "tests/lstainnorm/test_density.py",
        "lstainnorm/fitting": "tests/lstainnorm/test_template.py",
        "lstainnorm/pickled": "tests/lstainnorm/test_checkpoint.py",
        "lstainnorm/shadow": "tests/lstainnorm/test_background.py",
        "lstainnorm/sums": "tests/lstainnorm/test_moments.py",
        "normalizers/batches": "tests/normalizers/test_engine.py, test_gpu.py",
        "normalizers/gpu_kernels": "tests/normalizers/test_gpu.py",
        "normalizers/base": "tests/normalizers/test_classic.py, tests/test_extending.py",
        "lstainnorm/fusion": "tests/lstainnorm/test_layer.py, test_attention.py",
        "lstainnorm/normalization": "tests/lstainnorm/test_layer.py",
        "pipeline/job": "tests/runner/test_entry.py",
        "pipeline/kept": "tests/runner/test_entry.py",
        "pipeline/shards": "tests/runner/test_entry.py",
        "pipeline/slides": "tests/runner/test_entry.py",
        "runner/checks": "tests/runner/test_entry.py",
        "runner/crew": "tests/runner/test_drive.py, tests/test_end_to_end.py",
        "runner/events": "tests/runner/test_entry.py",
        "runner/preload": "tests/runner/test_forkserver.py",
        "runner/worker": "tests/runner/test_cluster.py",
        "store/draft": "tests/store/test_tilestore.py, test_pyramid.py",
        "store/shards": "tests/store/test_objects.py, test_pyramid.py",
        "slide/readers/checksums": "tests/slide/test_directories.py",
        "spaces": "tests/test_colorspace.py",
        "tensors": "tests/test_pixels.py",
    }
    assert all((ROOT / "wsi_norm" / f"{module}.py").exists() for module in elsewhere)
    missing = []
    for path in (ROOT / "wsi_norm").rglob("*.py"):
        module = path.relative_to(ROOT / "wsi_norm").with_suffix("")
        if path.name.startswith("__") or module.as_posix() in elsewhere:
            continue
        if not (ROOT / "tests" / module.parent / f"test_{module.name}.py").exists():
            missing.append(module.as_posix())
    assert not missing


def test_the_packages_of_pyproject_exist() -> None:
    packages = {
        "wsi_norm": ROOT / "wsi_norm",
        "wsi_norm_cli": ROOT / "cli",
        "wsi_norm.sample_configs": ROOT / "sample_configs",
    }
    for file in (ROOT / "wsi_norm").rglob("*/__init__.py"):
        packages[".".join(file.parent.relative_to(ROOT).parts)] = file.parent
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == set(packages)
    for package in listed:
        assert importlib.util.find_spec(package) is not None
