"""`wsi-norm train`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_norm.config import TrainConfig, train_config

from .group import FILE, dashes
from .options import options_of
from .output import on_terminal, say

if TYPE_CHECKING:
    from wsi_norm.cohort.splits import Splits

data_root_option = click.option(
    "--data-root",
    type=FILE,
    envvar="WSI_NORM_DATA_ROOT",
    show_envvar=True,
    help="Folder that the data's relative paths start from; none: the current one.",
)
"""Shared with `evaluate`."""


@click.command("train", context_settings={"token_normalize_func": dashes})
@click.argument("config", type=FILE)
@data_root_option
@options_of(TrainConfig, ["output", "seed"])
@click.option("--overwrite", is_flag=True, help="Start anew; else an unfinished training goes on.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks.")
def command(
    config: Path,
    data_root: Path | None,
    output: Path | None,
    seed: int | None,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Train the layer in front of a classifier or a segmenter, as CONFIG (YAML) describes.

    Options rule over CONFIG.
    """
    settings = train_config(config, output=output, seed=seed)
    needs_training_extra()
    from wsi_norm.cohort.splits import read_splits
    from wsi_norm.training.loop import is_first_process
    from wsi_norm.training.train import MODEL, train

    progress = on_terminal() and not quiet
    splits = read_splits(settings.data, settings.task, data_root, settings.seed)
    if is_first_process():
        say(f"classes    {_found_classes(splits)}")
    trained = train(settings, data_root, overwrite=overwrite, progress=progress, splits=splits)
    if not is_first_process():  # with several GPUs, one process speaks for all
        return
    scores = trained.summary["scores"]
    for split in ("validation", "test"):
        if f"{split}_clean" in scores:
            say(
                f"{split:10} {trained.summary['score']} {scores[f'{split}_clean']:.3f}, "
                f"under simulated scanners {scores[f'{split}_simulated']:.3f}"
            )
    model = settings.output / MODEL
    if model.exists():
        say(f"{model}: wsi-norm inspect {model}; wsi-norm run SLIDES --ckpt {model}")
    else:
        say(f"{settings.output}: trained without a layer, so there is no checkpoint for run")


def _found_classes(splits: Splits) -> str:
    """Their names, and how many training images have each as their label."""
    counts = Counter(image.label for image in splits.train)
    return ", ".join(
        f"{name} ({counts[number]})" if counts[number] else name
        for number, name in enumerate(splits.classes)
    )


def needs_training_extra() -> None:
    """ConfigError with the remedy, where the packages of training are not installed."""
    from importlib.util import find_spec

    from wsi_norm.errors import ConfigError

    needed = ("lightning", "monai", "sklearn", "pandas", "matplotlib")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}: pip install 'wsi-norm[train]'")
