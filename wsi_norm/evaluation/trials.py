"""The trials of an evaluation: a training per method, seed and domain left out; what each gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from wsi_norm.cohort.conditions import CONDITIONS
from wsi_norm.cohort.splits import Splits, limited, read_splits
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import EvaluateConfig, TrainConfig
from wsi_norm.config.evaluate import folder_name, merge
from wsi_norm.errors import ConfigError, TrainingError, WsiNormError
from wsi_norm.evaluation.profile import profile
from wsi_norm.location import write_text
from wsi_norm.lstainnorm import save_checkpoint
from wsi_norm.training.front import (
    LAYER,
    Front,
    build_front,
    cohort_template,
    untrained_layer,
)
from wsi_norm.training.judge import judge
from wsi_norm.training.network import network_of
from wsi_norm.training.train import MODEL, NETWORK, changes, check_splits, cut, train
from wsi_norm.training.weights import with_digest

PREDICTIONS, PROFILE, IDENTITY = "predictions.csv", "profile.json", "identity.json"
SEEN = "seen.safetensors"
"""The layer that a trial starts with, where its target is what another network saw."""


@dataclass(frozen=True)
class Trial:
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
    label
        What that image is called.
    """

    method: str
    seed: int
    fold: str = ""
    target: str | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """Of its folder."""
        return folder_name(self.method, str(self.seed), self.fold, self.label)

    def __str__(self) -> str:
        """As an error names it."""
        parts = [f"method {self.method!r}, seed {self.seed}"]
        parts += [f"without domain {self.fold!r}"] if self.fold else []
        parts += [f"target {self.label!r}"] if self.target else []
        return ", ".join(parts)


def trials_of(config: EvaluateConfig, root: Path | None) -> list[list[Trial]]:
    """All trials, in stages: those of a stage need only those of the stages before it.

    Raises
    ------
    ConfigError
        The data do not fit the settings, or two trials would share a folder.
    """
    folds = _domains(config, root) if config.leave_out else [""]
    first: list[Trial] = []
    second: list[Trial] = []
    for name, method in config.methods.items():
        trials = [Trial(name, seed, fold) for seed in config.seeds for fold in folds]
        (first if method.uses is None else second).extend(trials)
    if config.templates is not None:
        first += [
            Trial(config.templates.method, seed, "", target, label)
            for target, label in _labels(template_images(config, root)).items()
            for seed in config.templates.seeds
        ]
    taken: dict[str, Trial] = {}
    for trial in first + second:
        other = taken.setdefault(trial.name.casefold(), trial)
        if other != trial:
            raise ConfigError(f"{other} and {trial} would share a folder: rename one of them")
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


def perform(trial: Trial, config: EvaluateConfig, root: Path | None, threads: int | None) -> Path:
    """Train (or take what `uses` names), predict under every condition, profile the normaliser.

    A trial whose predictions are there is not done again, if its settings are the same.

    Returns
    -------
    Folder of the trial, with predictions.csv and profile.json.

    Raises
    ------
    WsiNormError
        Of the class that the training raised; its text names the method.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder = config.output / "runs" / trial.name
    settings = _settings(trial, config, folder)
    identity = _identity(trial, config, settings)
    if not _is_done(folder, identity, is_first(trial, config)):
        (folder / IDENTITY).unlink(missing_ok=True)  # what is written from here on is unfinished
        try:
            _do(trial, config, settings, root)
        except WsiNormError as error:
            raise type(error)(f"{trial}: {error}") from error
        write_text(folder / IDENTITY, json.dumps(identity, indent=1) + "\n")
    return folder


def _do(trial: Trial, config: EvaluateConfig, settings: TrainConfig, root: Path | None) -> None:
    splits = _splits(trial, settings, root)
    check_splits(splits, settings)
    if settings.normalizer.target == "seen":
        settings = _with_seen(trial, config, settings, root)
    front, network, tiles = _trained(trial, config, settings, splits)
    _predict(trial, config, front, network, tiles["test"]).to_csv(
        settings.output / PREDICTIONS, index=False
    )
    if is_first(trial, config):
        facts = profile(front, tiles, CONDITIONS["simulated"])
        write_text(settings.output / PROFILE, json.dumps(facts, indent=1) + "\n")


def _splits(trial: Trial, settings: TrainConfig, root: Path | None) -> Splits:
    """The images of a trial: a limit counts what the domain left out leaves."""
    whole = settings.data.model_copy(update={"limit": None})
    splits = read_splits(whole, settings.task, root, trial.seed)
    if trial.fold:
        splits = leave_out(splits, trial.fold)
    return limited(splits, settings.data.limit, trial.seed)


def _with_seen(
    trial: Trial, config: EvaluateConfig, settings: TrainConfig, root: Path | None
) -> TrainConfig:
    """The settings with a start in place of the target: what the used network saw in training."""
    used = _used(trial, config)
    assert used is not None
    theirs = _settings(used, config, config.output / "runs" / used.name)
    normalizer = theirs.normalizer
    if normalizer.kind == LAYER:
        start = theirs.output / MODEL
        normalizer = normalizer.model_copy(update={"start": start, "target": None})
    tiles = cut(_splits(used, theirs, root), theirs)["train_cuts"]
    front = build_front(normalizer, tiles, trial.seed)
    torch.manual_seed(trial.seed)
    own = settings.normalizer
    layer = untrained_layer(own, lambda: cohort_template(tiles, own.statistics, trial.seed, front))
    settings.output.mkdir(parents=True, exist_ok=True)
    save_checkpoint(layer, settings.output / SEEN, {"training": "none: what a network saw"})
    own = own.model_copy(update={"start": settings.output / SEEN, "target": None})
    return settings.model_copy(update={"normalizer": own})


def _predict(
    trial: Trial, config: EvaluateConfig, front: Front, network: nn.Module, tiles: LabelledTiles
) -> pd.DataFrame:
    """What the trial predicts, under every condition; all trials see the same virtual scanners."""
    who = {
        "method": trial.method,
        "target": trial.target or "",
        "seed": trial.seed,
        "fold": trial.fold,
    }
    rows = [
        {**who, "condition": condition, **row}
        for condition in config.conditions
        for row in judge(front, network, tiles, seed=0, strength=CONDITIONS[condition])
    ]
    predictions = pd.DataFrame(rows)
    if predictions.isna().any(axis=None):
        raise TrainingError("the trained network predicts NaN: lower the learning rates")
    return predictions


def leave_out(splits: Splits, domain: str) -> Splits:
    """The domain as test; the rest of training and validation to train and select on.

    A group of several domains (a case that several scanners have seen) is left out in all of them.

    Raises
    ------
    ConfigError
        Too little is left.
    """
    pool = [*splits.train, *splits.validation]
    test = tuple(image for image in pool if image.domain == domain)
    judged = {image.group for image in test}
    train, validation = (
        tuple(image for image in part if image.group not in judged)
        for part in (splits.train, splits.validation)
    )
    if train and splits.validation and not validation:  # those to select on were of that domain
        spare = train[-1].group
        validation = tuple(image for image in train if image.group == spare)
        train = tuple(image for image in train if image.group != spare)
    if not train:
        raise ConfigError("leave_out: the other domains leave no group to train on")
    return Splits(train, validation, test, splits.classes)


def collect(folders: Iterable[Path]) -> pd.DataFrame:
    """Predictions of all trials."""
    kinds = {"fold": str, "domain": str, "group": str, "item": str, "target": str, "method": str}
    frames = [
        pd.read_csv(folder / PREDICTIONS, dtype=kinds, keep_default_na=False) for folder in folders
    ]
    return pd.concat(frames, ignore_index=True)


def _settings(trial: Trial, config: EvaluateConfig, folder: Path) -> TrainConfig:
    change: dict[str, Any] = {"seed": trial.seed, "output": str(folder)}
    if trial.target is not None:
        change = merge(change, {"normalizer": {"target": trial.target, "start": None}})
    if (used := _used(trial, config)) is not None:
        weights = str(config.output / "runs" / used.name / NETWORK)
        change = merge(change, {"network": {"weights": weights, "sha256": None}})
    return config.of(trial.method, **change)


def _used(trial: Trial, config: EvaluateConfig) -> Trial | None:
    """The trial whose network this one uses."""
    uses = config.methods[trial.method].uses
    return None if uses is None else Trial(uses, trial.seed, trial.fold)


def is_trained(trial: Trial, config: EvaluateConfig) -> bool:
    """Whether something learns for this trial; else it is only judged."""
    settings = config.of(trial.method)
    return settings.learns and (_used(trial, config) is None or settings.network.frozen)


def _domains(config: EvaluateConfig, root: Path | None) -> list[str]:
    """Domains of the training, each to be left out once."""
    splits = read_splits(config.training.data, config.training.task, root, 0)
    images = (*splits.train, *splits.validation)
    domains = sorted({image.domain for image in images})
    if "" in domains:
        name = next(image.name for image in images if not image.domain)
        raise ConfigError(f"leave_out: {name} has no domain in data.columns.domain")
    if len(domains) < 2:
        raise ConfigError(f"leave_out: all training images are of the domain {domains[0]!r}")
    return domains


def _labels(targets: Sequence[str]) -> dict[str, str]:
    """Target images and what to call them: their names, with folders where those are alike."""
    paths = [Path(target).with_suffix("").parts for target in targets]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        labels = ["/".join(parts[-depth:]) for parts in paths]
        if len({folder_name(label).casefold() for label in labels}) == len(labels):
            return dict(zip(targets, labels, strict=True))
    return {target: f"target {number}" for number, target in enumerate(targets)}


def _identity(trial: Trial, config: EvaluateConfig, settings: TrainConfig) -> dict[str, Any]:
    """All that a trial's results depend on but the data; weights count by their digest."""
    uses = config.methods[trial.method].uses
    own = with_digest(settings) if uses is None else settings
    identity = {
        "training": own.model_dump(mode="json", exclude={"output": True, "network": {"weights"}}),
        "uses": uses,
        "fold": trial.fold,
        "conditions": list(config.conditions),
    }
    if uses is not None:
        used = config.of(uses, seed=trial.seed)
        identity["network of"] = used.model_dump(mode="json", exclude={"output"})
    return identity


def _trained(
    trial: Trial, config: EvaluateConfig, settings: TrainConfig, splits: Splits
) -> tuple[Front, nn.Module, dict[str, LabelledTiles]]:
    if is_trained(trial, config):
        trained = train(
            settings,
            splits=splits,
            overwrite=_is_other(settings),
            judged=is_first(trial, config),
        )
        return trained.task.front, trained.task.network, trained.tiles
    settings.output.mkdir(parents=True, exist_ok=True)
    tiles = cut(splits, settings)
    front = build_front(settings.normalizer, tiles["train_cuts"], trial.seed)
    height, width = tiles["test"].pixels(0).shape[:2]
    network = network_of(settings, splits.classes, settings.data.tile_size or (height, width))
    return front, network, tiles


def _is_other(settings: TrainConfig) -> bool:
    """Whether what was trained in the folder, perhaps in part, had other settings."""
    try:
        return bool(changes(with_digest(settings)))
    except ConfigError:
        return True


def is_first(trial: Trial, config: EvaluateConfig) -> bool:
    """Whether this trial stands for its method where one is enough."""
    return trial.seed == config.seeds[0] and not trial.fold and trial.target is None


def _is_done(folder: Path, identity: dict[str, Any], profiled: bool) -> bool:
    try:
        before = json.loads((folder / IDENTITY).read_text())
    except (OSError, ValueError):
        return False
    files = [PREDICTIONS, PROFILE] if profiled else [PREDICTIONS]
    return bool(before == identity) and all((folder / name).exists() for name in files)
