"""The runs of an evaluation: one training per method, seed and domain left out; what each gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from wsi_norm.config import EvaluateConfig, TrainConfig
from wsi_norm.config.evaluate import merge
from wsi_norm.evaluation.profile import profile
from wsi_norm.training.data import LabelledTiles
from wsi_norm.training.front import build_front
from wsi_norm.training.index import Splits, read_splits
from wsi_norm.training.judge import judge
from wsi_norm.training.network import build_network
from wsi_norm.training.train import NETWORK, check_splits, cut, train

PREDICTIONS, PROFILE, IDENTITY = "predictions.csv", "profile.json", "run.json"


@dataclass(frozen=True)
class Run:
    """One training and what it predicts.

    Attributes
    ----------
    method
        Name of the method.
    seed
        Of the training.
    fold
        Domain left out of the training and judged; "" where the test split is judged.
    target
        Image that the normaliser aims at instead of the method's own target; None for that.
    """

    method: str
    seed: int
    fold: str = ""
    target: str | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [self.method, str(self.seed), self.fold, Path(self.target or "").stem]
        return re.sub(r"[^\w.+-]+", "_", "--".join(part for part in parts if part))


def runs_of(config: EvaluateConfig, root: Path | None) -> list[list[Run]]:
    """All runs, in stages: those of a stage need only those of the stages before it."""
    folds = [""]
    if config.leave_out:
        splits = read_splits(config.training.data, config.training.task, root, 0)
        folds = sorted({image.domain for image in (*splits.train, *splits.validation)})
    first: list[Run] = []
    second: list[Run] = []
    for name, method in config.methods.items():
        runs = [Run(name, seed, fold) for seed in config.seeds for fold in folds]
        (first if method.uses is None else second).extend(runs)
    if config.templates is not None:
        targets = template_images(config, root)
        first += [
            Run(config.templates.method, seed, "", target)
            for target in targets
            for seed in config.templates.seeds
        ]
    return [stage for stage in (first, second) if stage]


def template_images(config: EvaluateConfig, root: Path | None) -> list[str]:
    """Target images for the template sensitivity: one each of the first groups of the training."""
    assert config.templates is not None
    splits = read_splits(config.training.data, config.training.task, root, 0)
    chosen: dict[str, str] = {}
    for image in sorted((*splits.train, *splits.validation), key=lambda image: image.name):
        chosen.setdefault(image.group, str(image.path))
    step = max(1, len(chosen) // config.templates.images)
    return list(chosen.values())[::step][: config.templates.images]


def perform(run: Run, config: EvaluateConfig, root: Path | None, threads: int | None) -> Path:
    """Train (or take what `uses` names), predict under every condition, profile the normaliser.

    A run whose predictions are there is not done again, if its settings are the same.

    Returns
    -------
    Folder of the run, with predictions.csv and profile.json.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder = config.output / "runs" / run.name
    settings = _settings(run, config, folder)
    identity = {
        "training": settings.model_dump(mode="json", exclude={"output"}),
        "uses": config.methods[run.method].uses,
        "fold": run.fold,
        "conditions": list(config.conditions),
        "strength": config.scanner_strength,
    }
    if _is_done(folder, identity):
        return folder
    splits = read_splits(settings.data, settings.task, root, run.seed)
    if run.fold:
        splits = leave_out(splits, run.fold)
    check_splits(splits, settings)
    front, network, tiles = _trained(run, config, settings, splits, folder)
    rows = [
        {
            "method": run.method,
            "target": run.target or "",
            "seed": run.seed,
            "fold": run.fold,
            "condition": condition,
            **row,
        }
        for condition in config.conditions
        for row in judge(
            front,
            network,
            tiles["test"],
            seed=0,
            strength=config.scanner_strength if condition == "simulated" else 0.0,
        )
    ]
    pd.DataFrame(rows).to_csv(folder / PREDICTIONS, index=False)
    if _is_first(run, config):
        facts = profile(front, tiles, config.scanner_strength)
        (folder / PROFILE).write_text(json.dumps(facts, indent=1) + "\n")
    (folder / IDENTITY).write_text(json.dumps(identity, indent=1) + "\n")
    return folder


def leave_out(splits: Splits, domain: str) -> Splits:
    """The domain as test; the rest of training and validation to train and select on."""
    pool = [*splits.train, *splits.validation]
    left = {
        name: tuple(image for image in getattr(splits, name) if image.domain != domain)
        for name in ("train", "validation")
    }
    test = tuple(image for image in pool if image.domain == domain)
    if not left["validation"]:  # the only ones to select on were of that domain
        spare = left["train"][-1].group
        left = {
            "validation": tuple(image for image in left["train"] if image.group == spare),
            "train": tuple(image for image in left["train"] if image.group != spare),
        }
    return Splits(left["train"], left["validation"], test, splits.classes)


def collect(folders: Iterable[Path]) -> pd.DataFrame:
    """Predictions of all runs."""
    kinds = {"fold": str, "domain": str, "group": str, "item": str, "target": str, "method": str}
    frames = [
        pd.read_csv(folder / PREDICTIONS, dtype=kinds, keep_default_na=False) for folder in folders
    ]
    return pd.concat(frames, ignore_index=True)


def _settings(run: Run, config: EvaluateConfig, folder: Path) -> TrainConfig:
    change: dict[str, Any] = {"seed": run.seed, "output": str(folder)}
    if run.target is not None:
        change = merge(change, {"normalizer": {"target": run.target}})
    return config.of(run.method, **change)


def _trained(
    run: Run, config: EvaluateConfig, settings: TrainConfig, splits: Splits, folder: Path
) -> tuple[nn.Module, nn.Module, dict[str, LabelledTiles]]:
    uses = config.methods[run.method].uses
    if uses is None:
        trained = train(settings, splits=splits, judged=_is_first(run, config))
        return trained.task.front, trained.task.network, trained.tiles
    folder.mkdir(parents=True, exist_ok=True)
    tiles = cut(splits, settings)
    front = build_front(settings.normalizer, tiles["train_cuts"], run.seed)
    base = config.output / "runs" / Run(uses, run.seed, run.fold).name
    network = build_network(
        settings.network.name,
        settings.network.arguments,
        task=settings.task,
        classes=len(splits.classes),
        size=settings.data.tile_size or tiles["test"].pixels(0).shape[0],
    )
    network.load_state_dict(load_file(base / NETWORK))
    return front, network, tiles


def _is_first(run: Run, config: EvaluateConfig) -> bool:
    """Whether this run stands for its method where one is enough."""
    return run.seed == config.seeds[0] and not run.fold and run.target is None


def _is_done(folder: Path, identity: dict[str, Any]) -> bool:
    try:
        before = json.loads((folder / IDENTITY).read_text())
    except (OSError, ValueError):
        return False
    return bool(before == identity) and (folder / PREDICTIONS).exists()
