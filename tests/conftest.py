"""Fixtures: the shared real data (where there is some), and slides that the tests write."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsi_norm.machine import available_cores
from wsi_norm.synthetic import write_synthetic_slide

ROOT = Path(__file__).parent.parent
MAX_PROCESSES = 8
"""Of tests at once: each holds PyTorch, and a few tests start workers of their own."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process per core, but none besides this one where all that is asked for are files."""
    files = all(".py" in argument for argument in config.args)
    return 0 if files else min(available_cores(), MAX_PROCESSES)


def pytest_configure(config: pytest.Config) -> None:
    """Where tests run: Triton's interpreter without a GPU, before anything imports Triton.

    Processes beside each other have one compute thread each, as a run's workers do.
    """
    if config.getoption("numprocesses", None):
        return  # others will run them
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """Signals act as in a terminal; under nohup, or in a shell's background, some are ignored."""
    heard = dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1), signal.SIG_DFL)
    before = {number: signal.signal(number, heard[number]) for number in heard}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real slides and tiles: WSI_NORM_TEST_DATA, else ../shared/data beside the project."""
    folder = Path(os.environ.get("WSI_NORM_TEST_DATA") or ROOT.parent / "shared" / "data")
    return _needed(folder / "slides") and folder


@pytest.fixture(scope="session")
def refvectors_dir(data_dir: Path) -> Path:
    """Outputs of the authors' layer."""
    return _needed(data_dir.parent / "refvectors")


@pytest.fixture(scope="session")
def real_slides(data_dir: Path) -> list[Path]:
    """The two real slides: JPEG with mpp, JPEG 2000 without."""
    return sorted((data_dir / "slides" / "real").glob("*.svs"))


@pytest.fixture(scope="session")
def real_stores(real_slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What `run` makes of the two real slides."""
    from wsi_norm import RunConfig, run

    output = tmp_path_factory.mktemp("real_stores")
    summary = run(real_slides, RunConfig(output=output, default_mpp=0.25, workers=0))
    assert summary.exit_status == 0
    return sorted(output.glob("*.zarr"))


@pytest.fixture(scope="session")
def faulty(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of damaged slides, one fault per file."""
    script = data_dir / "slides" / "make_faults.py"
    spec = importlib.util.spec_from_file_location("make_faults", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_faults"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("faulty")
    source = data_dir / "slides" / "real" / "CMU-1-Small-Region.svs"
    assert module.main(["--src", str(source), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic slide of 2048 x 1536 px at 0.5 um/px with 2 levels: 48 tiles of 256 px."""
    path = tmp_path_factory.mktemp("slide") / "synthetic.svs"
    return write_synthetic_slide(path, width=2048, height=1536, mpp_um=0.5, levels=2)


def _needed(folder: Path) -> Path:
    """A folder of shared data; without it the test skips, but fails where CI promises it."""
    if not folder.is_dir():
        reason = f"no test data at {folder} (set WSI_NORM_TEST_DATA)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
