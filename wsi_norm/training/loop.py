"""The training loop: Lightning's, with what it keeps, logs and resumes from."""

from __future__ import annotations

import csv
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from wsi_norm.cohort.batches import loader, training_batches, whole_groups
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.errors import CheckpointError, ConfigError, TrainingError
from wsi_norm.lstainnorm.pickled import load_weights
from wsi_norm.training.judge import TILES_AT_ONCE
from wsi_norm.training.task import StainTask

SCORE = "validation/score"
LAST = Path("checkpoints", "last.ckpt")
LOG = Path("log", "metrics.csv")
"""Inside the folder of the results."""


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


class Keeper(ModelCheckpoint):
    """Keeps one epoch; its folder may have been moved when a training goes on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """State with its paths in this folder."""
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: self._here(state_dict[key]) for key in paths}
        models = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": models, "dirpath": self.dirpath}
        )

    def _here(self, path: str) -> str:
        assert self.dirpath is not None
        return str(Path(self.dirpath) / Path(path).name) if path else path


class Patience(EarlyStopping):
    """Early stopping; a training that it has stopped does not go on when called again."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops at once where there was no patience left."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class EpochLog(Checkpoint):  # called after the task's own hooks, so that it sees what they log
    """A CSV with a line per epoch; a training that goes on adds to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops lines of epochs that are done again."""
        if trainer.is_global_zero and self.path.exists():
            self._write([row for row in self._read() if int(row["epoch"]) < trainer.current_epoch])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the line."""
        if trainer.is_global_zero:
            seen = trainer.callback_metrics.items()
            values = {name: float(f"{float(value):.6g}") for name, value in seen}
            row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **values}
            self._write([*(self._read() if self.path.exists() else []), row])

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        columns = dict.fromkeys(name for row in rows for name in row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns) or ["epoch"])
            writer.writeheader()
            writer.writerows(rows)


def fit(
    task: StainTask,
    config: TrainConfig,
    train_tiles: LabelledTiles,
    validation: LabelledTiles,
    progress: bool,
) -> float | None:
    """Run the loop, or go on after the last epoch that is there.

    Returns
    -------
    Validation score of the best epoch, whose weights `task` has afterwards; None, and those of
    the last epoch, where there is nothing to validate on.

    Raises
    ------
    ConfigError
        The device, the precision or the patience cannot be had.
    TrainingError
        The loss is no longer finite, the memory ran out, or the last epoch cannot be read.
    """
    folder = config.output.resolve()
    best = Keeper(
        folder / LAST.parent, "best", monitor=SCORE, mode="max", enable_version_counter=False
    )
    # After `best`, so that what it knows is in it; at the very end of an epoch.
    last = Keeper(
        folder / LAST.parent, LAST.stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    watched = len(validation) > 0
    if config.recipe.patience is not None and not watched:
        raise ConfigError("recipe.patience needs a validation split, and data.validation is empty")
    with _quiet(), _interruptible():
        trainer = _trainer(config, [best, last] if watched else [last], progress)
        batches = training_batches(train_tiles, config, 0, 0, trainer.world_size)
        task.total_steps = config.recipe.epochs * len(batches)
        data = TileData(train_tiles, validation, config)
        there = (folder / LAST).exists()
        if there:
            _weights(folder / LAST)
        try:
            trainer.fit(
                task,
                datamodule=data,
                ckpt_path=folder / LAST if there else None,
                weights_only=True,
            )
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "the memory of the device ran out: lower recipe.batch_size or data.tile_size"
            ) from error
    kept = best if watched else last
    task.load_state_dict(task.completed(_weights(Path(kept.best_model_path))))
    return None if best.best_model_score is None else float(best.best_model_score)


def _trainer(config: TrainConfig, keepers: list[Any], progress: bool) -> pl.Trainer:
    recipe = config.recipe
    folder = config.output.resolve()
    callbacks: list[Any] = [EpochLog(folder / LOG), *keepers]
    if recipe.patience is not None:
        callbacks.append(Patience(SCORE, mode="max", patience=recipe.patience))
    if progress:
        callbacks.append(TQDMProgressBar(leave=True))
    try:
        return pl.Trainer(
            accelerator=device_of(config).type,
            devices=recipe.devices,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            callbacks=callbacks,
            logger=TensorBoardLogger(folder, name=None, version="tensorboard")
            if config.tensorboard
            else False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if len(keepers) > 1 else 0,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError, RuntimeError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"recipe: no training with device {recipe.device}, devices {recipe.devices}, precision "
            f"{recipe.precision} here: {' '.join(str(error).split())}"
        ) from error


def device_of(config: TrainConfig) -> torch.device:
    """Where to train: the device of the settings, which "auto" leaves to what there is."""
    device = config.recipe.device
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def is_first_process() -> bool:
    """Whether this process is the one, of one per GPU, that writes files."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _weights(path: Path) -> Any:
    """Weights of a kept epoch."""
    try:
        return load_weights(path)["state_dict"]
    except CheckpointError as error:
        raise TrainingError(
            f"{path}: damaged, so the training cannot go on; start anew with --overwrite"
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt: Lightning makes SystemExit of it, and ignores the next ones."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if in_main and handler is not None:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hints, which are about its own defaults."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
