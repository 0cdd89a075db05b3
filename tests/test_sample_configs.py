"""Every sample configuration is explained line by line, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai
import pytest
import yaml
from distributed import LocalCluster
from safetensors.torch import save_file

from tests.builders import TEMPLATE, exit_status
from wsi_norm import LStainNorm, TileStore, save_checkpoint
from wsi_norm.config import RunConfig, evaluate_config, run_config, train_config
from wsi_norm.config.evaluate import merge
from wsi_norm.synthetic import write_synthetic_slide

FOLDER = Path(__file__).parent.parent / "sample_configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TRAININGS = [name for name in NAMES if name.startswith("train_")]
RUNS = [name for name in NAMES if name not in {*TRAININGS, "evaluate", "slurm"}]

FEW: dict[str, dict[str, list[str]]] = {
    "train_classifier": {
        "case": [f"MIDOG21_{number:03}" for number in (3, 4, 5, 8, 54, 55, 105, 104)]
    },
    "train_segmenter": {
        "file": [
            f"images/TCGA-{name}-01Z-00-DX1.webp"
            for name in ("18-5592", "38-6178", "49-4488", "A7-A13E")
        ]
    },
}
FEW["train_frozen"] = FEW["train_segmenter"]
"""Cases that are enough to run a sample: some to train on, some to judge on."""


@pytest.fixture(scope="module")
def fine_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1536 px at 0.25 um/px, so that 40x can be asked for."""
    path = tmp_path_factory.mktemp("slide") / "fine.svs"
    return write_synthetic_slide(path, width=1536, height=1536, mpp_um=0.25, levels=2)


def test_the_samples_that_users_are_told_of_exist() -> None:
    assert {"he_20x", "he_40x", "gpu", "cluster"} <= set(RUNS)
    assert TRAININGS == ["train_classifier", "train_frozen", "train_segmenter"]
    assert {"evaluate", "slurm"} <= set(NAMES)


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
            assert exit_status(*given, "--scheduler", cluster.scheduler_address) == 0
    else:
        assert exit_status(*given, "-n", 0) == 0
    store = TileStore.open(output / "fine.zarr")
    assert store.meta.tiling.mpp_um == settings["mpp"]
    assert store.meta.tiling.tile_size_px == settings["tile_size"]
    assert len(store) > 0


def test_the_samples_name_settings_as_they_are() -> None:
    """Unchanged, every sample is a valid configuration (its values, too)."""
    for name in RUNS:
        assert isinstance(run_config(FOLDER / f"{name}.yaml"), RunConfig)
    tasks = [train_config(FOLDER / f"{name}.yaml").task for name in TRAININGS]
    assert tasks == ["classification", "segmentation", "segmentation"]
    evaluation = evaluate_config(FOLDER / "evaluate.yaml")
    assert evaluation.training == train_config(FOLDER / "train_classifier.yaml")
    assert len(evaluation.methods) * len(evaluation.seeds) == 18  # as its first lines say


def shrunk(name: str, folder: Path) -> Path:
    """A copy of a training's sample that takes seconds: little of the data, two steps."""
    settings = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    less: dict[str, Any] = {
        "data": {"where": FEW[name]},
        "recipe": {"epochs": 1, "steps_per_epoch": 2, "device": "cpu"},
    }
    if "weights" in settings["network"]:
        less |= made_before(settings["network"], folder)
    copy = folder / f"{name}.yaml"
    copy.write_text(yaml.safe_dump(merge(settings, less)))
    return copy


def made_before(network: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A network and a layer, as the sample supposes them: somebody else's, untrained."""
    made = getattr(monai.networks.nets, network["name"].removeprefix("monai:"))
    weights, colours = folder / network["weights"], folder / "colours.safetensors"
    save_file(made(**network["arguments"]).state_dict(), weights)
    save_checkpoint(LStainNorm("mean", template=TEMPLATE), colours)
    return {"network": {"weights": str(weights)}, "normalizer": {"start": str(colours)}}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_runs_and_its_checkpoint_normalises(
    name: str, data_dir: Path, fine_slide: Path, tmp_path: Path
) -> None:
    output = tmp_path / "trained"
    file = shrunk(name, tmp_path)
    assert exit_status("train", file, "--data-root", data_dir / "tiles", "-o", output, "-q") == 0
    model = output / "model.safetensors"
    given = ["run", fine_slide, "--mpp", "1", "-n", 0, "-q", "--device", "cpu"]
    assert exit_status(*given, "--ckpt", model, "-o", tmp_path / "out") == 0
    assert len(TileStore.open(tmp_path / "out" / "fine.zarr")) > 0


def test_the_evaluation_runs(data_dir: Path, tmp_path: Path) -> None:
    shrunk("train_classifier", tmp_path)
    settings = yaml.safe_load((FOLDER / "evaluate.yaml").read_text())
    methods = {name: settings["methods"][name] for name in ("none", "fixed lab")}
    settings |= {"methods": methods, "seeds": [0], "workers": 1, "resamples": 100}
    file = tmp_path / "evaluate.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    output = tmp_path / "evaluated"
    assert exit_status("evaluate", file, "--data-root", data_dir / "tiles", "-o", output, "-q") == 0
    table = (output / "tables.md").read_text(encoding="utf-8")
    assert "| fixed lab | " in table


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
