"""One training, from settings to a checkpoint that `wsi-norm run` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml

from wsi_norm.cohort.batches import training_batches
from wsi_norm.cohort.conditions import CONDITIONS
from wsi_norm.cohort.masks import check_masks, check_sizes
from wsi_norm.cohort.splits import Splits, read_splits
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig, read_yaml
from wsi_norm.config.compare import differences
from wsi_norm.errors import ConfigError, TrainingError
from wsi_norm.location import write_text, write_whole
from wsi_norm.lstainnorm import StainLayer, save_checkpoint
from wsi_norm.training.ablation import ablation, learned_facts
from wsi_norm.training.front import LayerFront, build_front
from wsi_norm.training.judge import judge, mean_score
from wsi_norm.training.loop import LAST, LOG, device_of, fit, is_first_process
from wsi_norm.training.network import network_of
from wsi_norm.training.task import StainTask
from wsi_norm.training.weights import with_digest

SETTINGS, MODEL, NETWORK, SUMMARY = (
    "config.yaml",
    "model.safetensors",
    "network.safetensors",
    "summary.json",
)

MAY_DIFFER = (
    "output",
    "recipe.device",
    "recipe.devices",
    "recipe.threads",
    "network.weights",
    "provenance",
    "tensorboard",
)
"""Settings that a resumed training may change: they do not change what is learned.

Weights may have moved: `network.sha256` says whether they are the same.
"""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes
    ----------
    task
        With the weights of the epoch that was best on the validation split; of the last one where
        there is none.
    tiles
        The splits "train", "validation" and "test", cut for judging.
    summary
        What `summary.json` holds: scores, epochs, what was learned.
    """

    task: StainTask
    tiles: dict[str, LabelledTiles]
    classes: tuple[str, ...]
    summary: dict[str, Any]


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
        Folder that relative paths of the data start from; None: the current one.
    overwrite
        Start anew where the folder holds a training; else go on with it. A finished one is judged
        again.
    progress
        Progress bars on stderr.
    splits
        Instead of those that the settings describe.
    judged
        Score the test split and the layer without its parts at the end.

    Raises
    ------
    ConfigError
        The data, the network, the normaliser or the device do not fit the settings, or there is
        nothing that would learn.
    TrainingError
        The loss is no longer finite, or the folder cannot be written, or holds a training with
        other settings.
    """
    device_of(config)
    _check_learns(config)
    config = with_digest(config)
    _prepare_folder(config, overwrite)
    if config.recipe.threads:
        torch.set_num_threads(config.recipe.threads)
    splits = splits or read_splits(config.data, config.task, root, config.seed)
    check_splits(splits, config)
    tiles = cut(splits, config)
    torch.manual_seed(config.seed)
    task = build_task(config, tiles["train_cuts"], splits.classes)
    _write_settings(config)
    best = fit(task, config, tiles["train_cuts"], tiles["validation"], progress)
    summary = _finish(task, config, tiles, splits, best, judged)
    return Trained(task, tiles, splits.classes, summary)


def _check_learns(config: TrainConfig) -> None:
    if not config.learns:
        raise ConfigError(
            "nothing would learn: network.frozen leaves the network as it is, and the normalizer "
            "has nothing to learn (kind lstainnorm with learn: true has); judge it with 'wsi-norm "
            "evaluate', or make a layer without training with 'wsi-norm fit-template'"
        )


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
    tiles["train_cuts"] = tiles["train"].for_training()
    return tiles


def build_task(config: TrainConfig, tiles: LabelledTiles, classes: Sequence[str]) -> StainTask:
    """An untrained task; weights follow torch's present seed."""
    height, width = tiles.pixels(0).shape[:2]
    front = build_front(config.normalizer, tiles, config.seed)
    network = network_of(config, classes, config.data.tile_size or (height, width))
    weights = None
    if config.task == "classification" and config.recipe.class_weights == "balanced":
        counts = np.bincount(tiles.labels(), minlength=len(classes)).clip(1)
        weights = (counts.sum() / (len(classes) * counts)).tolist()
    steps = config.recipe.epochs * len(training_batches(tiles, config, 0))
    return StainTask(front, network, config, len(classes), weights, steps)


def _finish(
    task: StainTask,
    config: TrainConfig,
    tiles: dict[str, LabelledTiles],
    splits: Splits,
    best: float | None,
    judged: bool,
) -> dict[str, Any]:
    """Judge, ablate, and write the checkpoint, the network and the summary."""
    judged = judged and is_first_process()
    task.to(device_of(config) if judged else "cpu").eval()
    scores = {"validation_selected": best}
    for name in ("validation", "test") if judged else ():
        for condition, strength in CONDITIONS.items():
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
        "scores": {
            name: value if value is None else round(value, 4) for name, value in scores.items()
        },
    }
    if isinstance(task.front, LayerFront):
        layer = task.front.layer
        summary["learned"] = learned_facts(layer)
        if judged and len(tiles["validation"]):
            summary["ablation"] = ablation(layer, task.network, tiles["validation"], config.seed)
    task.cpu()
    if is_first_process():
        _write(task, config, splits, summary)
    return summary


def _write(task: StainTask, config: TrainConfig, splits: Splits, summary: dict[str, Any]) -> None:
    if (layer := layer_of(task)) is not None:
        save_checkpoint(layer, config.output / MODEL, provenance(config, splits, summary))
    if not config.network.frozen:  # else it is what it was
        _write_network(task, config.output / NETWORK)
    write_text(config.output / SUMMARY, json.dumps(summary, indent=1) + "\n")


def _write_network(task: StainTask, path: Path) -> None:
    # cloned: a file of tensors cannot hold two that share their memory, as tied weights do
    state = {name: value.clone().contiguous() for name, value in task.network.state_dict().items()}
    write_whole(path, [safetensors.torch.save(state)])


def provenance(config: TrainConfig, splits: Splits, summary: dict[str, Any]) -> dict[str, Any]:
    """How the layer came to be, for the checkpoint."""
    domains = sorted({image.domain for image in splits.train if image.domain})
    return {
        **config.provenance,
        "training": f"{config.task} with {config.network.name}, seed {config.seed}",
        **({"network_frozen": True} if config.network.frozen else {}),
        **({"network_sha256": config.network.sha256} if config.network.sha256 else {}),
        **({"icc": "apply"} if config.data.icc == "apply" else {}),
        "classes": list(splits.classes),
        "train_domains": domains,
        "train_images": len(splits.train),
        "recipe": config.recipe.model_dump(mode="json"),
        "augmentation": config.augmentation.model_dump(mode="json"),
        "score": summary["score"],
        "scores": summary["scores"],
        **({"ablation": summary["ablation"]} if "ablation" in summary else {}),
        "wsi_norm": version("wsi-norm"),
    }


def _prepare_folder(config: TrainConfig, overwrite: bool) -> None:
    """A folder without a training, or with one of the same settings; else TrainingError."""
    folder = config.output
    if overwrite and (folder / SETTINGS).exists() and is_first_process():
        for part in (LAST.parent, LOG.parent, "tensorboard"):
            shutil.rmtree(folder / part, ignore_errors=True)
        for name in (MODEL, NETWORK, SUMMARY, SETTINGS):
            (folder / name).unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot write there: {error.strerror}") from error
    if not (folder / LAST).exists():  # nothing has been learned there yet
        return
    if different := changes(config):
        raise TrainingError(
            f"{folder}: holds a training with other settings ({'; '.join(different[:5])}); "
            "choose another output, or start anew with --overwrite"
        )


def changes(config: TrainConfig) -> list[str]:
    """What differs from the training in the folder of the results, but for what may.

    Raises
    ------
    ConfigError
        No settings are there, or they are damaged.
    """
    before = read_yaml(config.output / SETTINGS)
    if isinstance(data := before.get("data"), dict):
        data.setdefault("icc", "ignore")  # what earlier versions did
    return differences(before, config.model_dump(mode="json"), MAY_DIFFER)


def _write_settings(config: TrainConfig) -> None:
    settings = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    try:
        write_text(config.output / SETTINGS, settings)
    except OSError as error:
        raise TrainingError(f"{config.output}: cannot write there: {error.strerror}") from error


def layer_of(task: StainTask) -> StainLayer | None:
    """The task's layer, if it has one."""
    return task.front.layer if isinstance(task.front, LayerFront) else None
