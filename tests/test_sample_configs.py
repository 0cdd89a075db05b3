"""Every sample configuration is explained line by line, and runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from distributed import LocalCluster
from wsi_norm_cli.main import main

from wsi_norm import TileStore
from wsi_norm.config import RunConfig, run_config
from wsi_norm.synthetic import write_synthetic_slide

FOLDER = Path(__file__).parent.parent / "sample_configs"
RUNS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "slurm")


@pytest.fixture(scope="module")
def fine_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1536 px at 0.25 um/px, so that 40x can be asked for."""
    path = tmp_path_factory.mktemp("slide") / "fine.svs"
    return write_synthetic_slide(path, width=1536, height=1536, mpp_um=0.25, levels=2)


def status(*arguments: object) -> int:
    """Exit status of the command line in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_samples_that_users_are_told_of_exist() -> None:
    assert {"he_20x", "he_40x", "gpu", "cluster"} <= set(RUNS)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_line_has_a_comment(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert not line or "#" in line or line.endswith(":"), line


@pytest.mark.parametrize("name", RUNS)
def test_a_sample_runs(name: str, fine_slide: Path, tmp_path: Path) -> None:
    """As it stands, but for what is not here: a GPU, a scheduler at that address, a table."""
    file = FOLDER / f"{name}.yaml"
    output = tmp_path / "out"
    given = ["run", fine_slide, "--config", file, "-o", output, "-q", "--device", "cpu"]
    settings = yaml.safe_load(file.read_text())
    if settings.get("slides_csv"):
        (tmp_path / "slides.csv").write_text(f"wsi\n{fine_slide}\n")
        given += ["--slides-csv", tmp_path / "slides.csv"]
    if settings.get("scheduler"):
        with LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster:
            assert status(*given, "--scheduler", cluster.scheduler_address) == 0
    else:
        assert status(*given, "-n", 0) == 0
    store = TileStore.open(output / "fine.zarr")
    assert store.meta.tiling.mpp_um == settings["mpp"]
    assert store.meta.tiling.tile_size_px == settings["tile_size"]
    assert len(store) > 0


def test_the_samples_name_settings_as_they_are() -> None:
    """Unchanged, every sample is a valid configuration (its values, too)."""
    for name in RUNS:
        assert isinstance(run_config(FOLDER / f"{name}.yaml"), RunConfig)


def test_the_cluster_description_fits_dask_jobqueue() -> None:
    """Its arguments make a SLURM job script; no SLURM is needed to write one."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    description = yaml.safe_load((FOLDER / "slurm.yaml").read_text())
    assert description["class"] == "dask_jobqueue.SLURMCluster"
    script = jobqueue.slurm.SLURMJob(
        scheduler="tcp://127.0.0.1:1", name="job", **description["arguments"]
    ).job_script()
    assert "#SBATCH -t 04:00:00" in script
    assert "#SBATCH --cpus-per-task=8" in script
