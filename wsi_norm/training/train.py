"""One training, from settings to a checkpoint that `wsi-norm run` takes."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from safetensors.torch import save_file

from wsi_norm.config import TrainConfig, read_yaml
from wsi_norm.errors import TrainingError
from wsi_norm.lstainnorm import LStainNorm, save_checkpoint
from wsi_norm.training.data import LabelledTiles, loader, training_batches, whole_groups
from wsi_norm.training.front import LayerFront, build_front
from wsi_norm.training.index import Splits, check_masks, check_sizes, read_splits
from wsi_norm.training.judge import TILES_AT_ONCE, judge, mean_score
from wsi_norm.training.learned import ablation, learned_facts
from wsi_norm.training.network import build_network
from wsi_norm.training.task import StainTask

SETTINGS, MODEL, NETWORK, SUMMARY = (
    "config.yaml",
    "model.safetensors",
    "network.safetensors",
    "summary.json",
)

MAY_DIFFER = ("output", "recipe.device", "recipe.devices", "recipe.threads", "provenance")
"""Settings that a resumed training may change: they do not change what is learned."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes
    ----------
    task
        With the weights of the epoch that was best on the validation split.
    tiles
        The splits "train", "validation" and "test", cut for judging.
    summary
        What `summary.json` holds: scores, epochs, what was learned.
    """

    task: StainTask
    tiles: dict[str, LabelledTiles]
    classes: tuple[str, ...]
    summary: dict[str, Any]


class TileData(pl.LightningDataModule):
    """Loaders of a training; each epoch has its own batches."""

    def __init__(self, train: LabelledTiles, validation: LabelledTiles, config: TrainConfig):
        super().__init__()
        self.train, self.validation, self.config = train, validation, config

    def train_dataloader(self) -> Any:
        """Batches of the current epoch."""
        assert self.trainer is not None
        batches = training_batches(
            self.train,
            self.config,
            self.trainer.current_epoch,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        return loader(self.train, batches)

    def val_dataloader(self) -> Any:
        """Whole groups."""
        return loader(self.validation, whole_groups(self.validation, TILES_AT_ONCE))


def train(
    config: TrainConfig,
    root: Path | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
    splits: Splits | None = None,
    judged: bool = True,
) -> Trained:
    """Train a front and a network; write checkpoints, logs and what was learned.

    Parameters
    ----------
    config
        Settings.
    root
        Folder that relative paths of the data start from; None: the folder of the table.
    overwrite
        Start anew where the folder holds a training; else go on with it.
    progress
        Progress bars on stderr.
    splits
        Instead of those that the settings describe.
    judged
        Score the test split and the layer without its parts at the end.

    Raises
    ------
    ConfigError
        The data, the network or the normaliser do not fit the settings.
    TrainingError
        The loss is no longer finite, or the folder holds a training with other settings.
    """
    _prepare_folder(config, overwrite)
    if config.recipe.threads:
        torch.set_num_threads(config.recipe.threads)
    splits = splits or read_splits(config.data, config.task, root, config.seed)
    check_splits(splits, config)
    tiles = cut(splits, config)
    torch.manual_seed(config.seed)
    task = build_task(config, tiles["train_cuts"], len(splits.classes))
    best = _fit(task, config, tiles["train_cuts"], tiles["validation"], progress)
    summary = _finish(task, config, tiles, splits, best, judged)
    return Trained(task, tiles, splits.classes, summary)


def check_splits(splits: Splits, config: TrainConfig) -> None:
    """ConfigError for images or masks of sizes that cannot be trained on."""
    images = [*splits.train, *splits.validation, *splits.test]
    check_sizes(images, config.data.tile_size, config.data.downsample)
    if config.task == "segmentation":
        check_masks(images)


def cut(splits: Splits, config: TrainConfig) -> dict[str, LabelledTiles]:
    """The splits as tiles: "train_cuts" for training, the others for judging."""
    classes = len(splits.classes)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    tiles = {
        name: LabelledTiles(images, config, classes, training=False)
        for name, images in parts.items()
    }
    tiles["train_cuts"] = LabelledTiles(splits.train, config, classes, training=True)
    return tiles


def build_task(config: TrainConfig, tiles: LabelledTiles, classes: int) -> StainTask:
    """An untrained task; weights follow torch's present seed."""
    size = config.data.tile_size or tiles.pixels(0).shape[0]
    front = build_front(config.normalizer, tiles, config.seed)
    network = build_network(
        config.network.name,
        config.network.arguments,
        task=config.task,
        classes=classes,
        size=size,
    )
    weights = None
    if config.task == "classification" and config.recipe.class_weights == "balanced":
        counts = np.bincount(tiles.labels(), minlength=classes)
        weights = (counts.sum() / (classes * counts)).tolist()
    steps = config.recipe.epochs * len(training_batches(tiles, config, 0))
    return StainTask(front, network, config, classes, weights, steps)


def _fit(
    task: StainTask,
    config: TrainConfig,
    train_tiles: LabelledTiles,
    validation: LabelledTiles,
    progress: bool,
) -> float:
    """Run the loop, go on from the last epoch if there is one; weights of the best epoch stay."""
    folder = config.output
    recipe = config.recipe
    keep = ModelCheckpoint(
        folder / "checkpoints",
        "best",
        monitor="validation/score",
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )
    callbacks: list[Any] = [keep]
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("validation/score", mode="max", patience=recipe.patience))
    if progress:
        callbacks.append(TQDMProgressBar(leave=True))
    loggers: list[Any] = [CSVLogger(folder, name=None, version="log")]
    if config.tensorboard:
        loggers.append(TensorBoardLogger(folder, name=None, version="tensorboard"))
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if recipe.device == "cuda" else recipe.device,
            devices=recipe.devices,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            callbacks=callbacks,
            logger=loggers,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        last = folder / "checkpoints" / "last.ckpt"
        trainer.fit(
            task,
            datamodule=TileData(train_tiles, validation, config),
            ckpt_path=last if last.exists() else None,
            weights_only=False,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    state = torch.load(keep.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    task.load_state_dict(state)
    return float(keep.best_model_score or 0.0)


def _finish(
    task: StainTask,
    config: TrainConfig,
    tiles: dict[str, LabelledTiles],
    splits: Splits,
    best: float,
    judged: bool,
) -> dict[str, Any]:
    """Judge, ablate, and write the checkpoint, the network and the summary."""
    task.cpu().eval()
    scores = {"validation_selected": best}
    for name in ("validation", "test") if judged else ():
        for condition, strength in (("clean", 0.0), ("simulated", 1.0)):
            if len(tiles[name]):
                rows = judge(
                    task.front, task.network, tiles[name], strength=strength, seed=config.seed
                )
                scores[f"{name}_{condition}"] = mean_score(rows)
    summary: dict[str, Any] = {
        "task": config.task,
        "classes": list(splits.classes),
        "images": {name: len(getattr(splits, name)) for name in ("train", "validation", "test")},
        "score": "balanced accuracy" if config.task == "classification" else "mean Dice",
        "scores": {name: round(value, 4) for name, value in scores.items()},
    }
    if isinstance(task.front, LayerFront):
        layer = task.front.layer
        summary["learned"] = learned_facts(layer)
        if judged:
            summary["ablation"] = ablation(layer, task.network, tiles["validation"], config.seed)
        save_checkpoint(layer, config.output / MODEL, provenance(config, splits, summary))
    state = {name: value.contiguous() for name, value in task.network.state_dict().items()}
    save_file(state, config.output / NETWORK)
    (config.output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def provenance(config: TrainConfig, splits: Splits, summary: dict[str, Any]) -> dict[str, Any]:
    """How the layer came to be, for the checkpoint."""
    domains = sorted({image.domain for image in splits.train if image.domain})
    return {
        **config.provenance,
        "training": f"{config.task} with {config.network.name}, seed {config.seed}",
        "train_domains": domains,
        "train_images": len(splits.train),
        "recipe": config.recipe.model_dump(mode="json"),
        "augmentation": config.augmentation.model_dump(mode="json"),
        "score": summary["score"],
        "scores": summary["scores"],
        "wsi_norm": version("wsi-norm"),
    }


def _prepare_folder(config: TrainConfig, overwrite: bool) -> None:
    """An empty folder, or one of the same settings; TrainingError for another training's."""
    folder = config.output
    if overwrite and (folder / SETTINGS).exists():
        for name in ("checkpoints", "log", "tensorboard"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (SETTINGS, MODEL, NETWORK, SUMMARY):
            (folder / name).unlink(missing_ok=True)
    settings = config.model_dump(mode="json")
    if (folder / SETTINGS).exists():
        before = read_yaml(folder / SETTINGS)
        different = [
            f"{key} was {_flat(before).get(key)!r}, now {_flat(settings).get(key)!r}"
            for key in sorted({*_flat(before), *_flat(settings)})
            if _flat(before).get(key) != _flat(settings).get(key) and not key.startswith(MAY_DIFFER)
        ]
        if different:
            raise TrainingError(
                f"{folder}: holds a training with other settings ({'; '.join(different[:5])}); "
                "choose another output, or start anew with --overwrite"
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False))


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """{"recipe.epochs": 10, ...} of nested settings."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hints, which are about its own defaults."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        try:
            yield
        finally:
            logger.setLevel(level)


def layer_of(task: StainTask) -> LStainNorm | None:
    """The task's layer, if it has one."""
    return task.front.layer if isinstance(task.front, LayerFront) else None
