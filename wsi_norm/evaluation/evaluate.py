"""One evaluation: every trial, then tables and figures."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wsi_norm.config import EvaluateConfig
from wsi_norm.errors import TrainingError
from wsi_norm.evaluation import figures, presentation
from wsi_norm.evaluation.scores import METRICS, score_runs, summarise
from wsi_norm.evaluation.trials import (
    PROFILE,
    Trial,
    collect,
    is_first,
    is_trained,
    perform,
    trials_of,
)
from wsi_norm.location import write_text
from wsi_norm.machine import malloc_environment
from wsi_norm.signals import deaf_thread, end_with_parent
from wsi_norm.slide import read_image
from wsi_norm.training.train import SUMMARY

Progress = Callable[[int, int, Trial], None]

PROFILE_COLUMNS = {
    "pair_ciede2000": "Pair CIEDE2000",
    "ssim": "SSIM",
    "gradient_correlation": "Gradient correlation",
    "seam_step": "Seam step",
    "background_drift": "Background drift",
    "degenerate_failures": "Degenerate tiles failed",
    "probe_colour": "Probe, six colours",
    "probe_rich": "Probe, rich",
}
"""Numbers of a normaliser itself, and what the table calls them."""


def evaluate(
    config: EvaluateConfig, root: Path | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Train and judge every method with every seed; write tables and figures.

    Parameters
    ----------
    config
        Settings.
    root
        Folder that relative paths of the data start from; None: the current one.
    progress
        Called after each trial with trials done, trials in all, and the trial.

    Returns
    -------
    DataFrame
        The summary: a row per method, condition and metric, as `summary.csv` holds it.

    Raises
    ------
    ConfigError
        The data do not fit the settings.
    TrainingError
        A training diverged, or a worker died. What is finished stays.
    """
    stages = trials_of(config, root)
    places = {trial: place for place, trial in enumerate(itertools.chain(*stages))}
    folders: dict[Trial, Path] = {}
    for trial, folder in _all(stages, config, root):
        folders[trial] = folder
        if progress is not None:
            progress(len(folders), len(places), trial)
    order = {name: place for place, name in enumerate(config.methods)}
    trials = sorted(folders, key=lambda trial: (order[trial.method], places[trial]))
    return _report(config, {trial: folders[trial] for trial in trials})


def _report(config: EvaluateConfig, folders: dict[Trial, Path]) -> pd.DataFrame:
    """Write tables and figures of finished trials; the summary."""
    task, metric = config.training.task, METRICS[config.training.task][0]
    plain = {trial: folder for trial, folder in folders.items() if trial.target is None}
    predictions = collect(plain.values())
    summary = summarise(predictions, task, config.reference, resamples=config.resamples)
    scores = score_runs(predictions, task)
    predictions.to_csv(config.output / "predictions.csv.gz", index=False)
    presentation.write_csv(summary, config.output / "summary.csv")
    presentation.write_csv(scores, config.output / "scores.csv")
    figures.forest(summary, metric, config.output / f"{metric}.svg", reference=config.reference)
    parts = {
        "Scores": presentation.markdown(summary, reference=config.reference),
        "Per domain": presentation.domain_table(scores, metric),
        "Validation": _validation(config, plain),
        "The normalisers themselves": _profiles(config, plain),
        "What was learned": _learned(config, plain),
    }
    if config.templates is not None:
        parts["Choice of the target image"] = _templates(config, folders, summary)
    text = "\n\n".join(f"## {title}\n\n{part.strip()}" for title, part in parts.items() if part)
    write_text(config.output / "tables.md", text + "\n")
    return summary


def _all(
    stages: list[list[Trial]], config: EvaluateConfig, root: Path | None
) -> Iterator[tuple[Trial, Path]]:
    """Trials and their folders as they are done, several at a time, one CPU thread each."""
    if config.workers > 1:
        yield from _in_workers(stages, config, root)
        return
    threads = torch.get_num_threads()
    try:
        for trial in itertools.chain(*stages):
            yield trial, perform(trial, config, root, 1)
    finally:
        torch.set_num_threads(threads)


def _in_workers(
    stages: list[list[Trial]], config: EvaluateConfig, root: Path | None
) -> Iterator[tuple[Trial, Path]]:
    os.environ.update(malloc_environment())
    pool = ProcessPoolExecutor(config.workers, get_context("spawn"), end_with_parent)
    with deaf_thread() as thread, pool:
        try:
            for stage in stages:
                starting = {  # processes are started as there is work for them
                    trial: thread.submit(pool.submit, perform, trial, config, root, 1)
                    for trial in stage
                }
                futures = {future.result(): trial for trial, future in starting.items()}
                for future in as_completed(futures):
                    yield futures[future], future.result()
        except KeyboardInterrupt:
            thread.submit(_kill_workers).result()  # trainings go on from their last epoch
            raise
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker ended without a word (out of memory?): lower workers, or batch sizes, "
                "and run the same command again to go on"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _kill_workers() -> None:
    for worker in active_children():
        worker.kill()


def _validation(config: EvaluateConfig, folders: dict[Trial, Path]) -> str:
    """What each method scored where its epoch was selected: all that a choice may rest on."""
    seen: dict[str, list[float]] = {}
    for trial, folder in folders.items():
        if is_trained(trial, config):
            scores = json.loads((folder / SUMMARY).read_text())["scores"]
            if scores["validation_selected"] is not None:
                seen.setdefault(trial.method, []).append(scores["validation_selected"])
    cells = [
        [
            method,
            f"{np.mean(values):.3f}" + (f" ({np.std(values, ddof=1):.3f})" if values[1:] else ""),
        ]
        for method, values in seen.items()
    ]
    return presentation.table(["Method", "Best epoch: mean (SD)"], cells) if cells else ""


def _profiles(config: EvaluateConfig, folders: dict[Trial, Path]) -> str:
    """The numbers of each method's normaliser, of its first seed; profiles.csv."""
    rows: list[dict[str, Any]] = []
    for trial, folder in folders.items():
        if is_first(trial, config):
            facts = json.loads((folder / PROFILE).read_text())
            facts["degenerate"] = "; ".join(f"{k}: {v}" for k, v in facts["degenerate"].items())
            rows.append({"method": trial.method, **facts})
    if not rows:
        return ""
    presentation.write_csv(pd.DataFrame(rows), config.output / "profiles.csv")
    cells = [
        [
            row["method"],
            *("n/a" if row[key] is None else f"{row[key]:g}" for key in PROFILE_COLUMNS),
        ]
        for row in rows
    ]
    note = f"Two virtual scans of a tile differ by {rows[0]['pair_ciede2000_before']:.2f} before."
    if rows[0]["probe_chance"] is not None:
        note += f" The probe's chance level is {rows[0]['probe_chance']:g}."
    return presentation.table(["Method", *PROFILE_COLUMNS.values()], cells) + "\n\n" + note


def _learned(config: EvaluateConfig, folders: dict[Trial, Path]) -> str:
    """Moves of the template and ablations, means over seeds."""
    moves: list[dict[str, Any]] = []
    ablations: list[dict[str, Any]] = []
    for trial, folder in folders.items():
        if not is_trained(trial, config):
            continue  # it has learned nothing of its own
        facts = json.loads((folder / SUMMARY).read_text())
        moves += _moves(trial.method, facts.get("learned", {}).get("target", {}))
        ablations += [
            {"method": trial.method, "variant": variant, **scores}
            for variant, scores in facts.get("ablation", {}).items()
        ]
    parts = []
    if moves:
        header = ["Method", "Channel", "Mean: template", "learned", "Move, in template SD"]
        parts.append(presentation.table([*header, "SD, times"], _move_cells(moves), left=2))
    if ablations:
        mean = pd.DataFrame(ablations).groupby(["method", "variant"], sort=False).mean()
        cells = [
            [method, variant, f"{row['clean']:.3f}", f"{row['simulated']:.3f}"]
            for (method, variant), row in mean.iterrows()
        ]
        parts.append(presentation.table(["Method", "Variant", "clean", "simulated"], cells, left=2))
    return "\n\n".join(parts)


def _moves(method: str, target: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per channel of a learned target."""
    return [
        {
            "method": method,
            "channel": f"{space} {channel}",
            "template": facts["mean"][0],
            "learned": facts["mean"][1],
            "move": facts["move"],
            "times": facts["std"][1] / facts["std"][0] if facts["std"][0] else math.nan,
        }
        for space, channels in target.items()
        for channel, facts in channels.items()
    ]


def _move_cells(moves: list[dict[str, Any]]) -> list[Sequence[str]]:
    """Rows of the channels that moved."""
    mean = pd.DataFrame(moves).groupby(["method", "channel"], sort=False).mean()
    return [
        (
            method,
            channel,
            f"{row['template']:.3f}",
            f"{row['learned']:.3f}",
            f"{row['move']:+.2f}",
            f"{row['times']:.2f}",
        )
        for (method, channel), row in mean.iterrows()
        if row["move"] != 0 or row["times"] != 1
    ]


def _templates(config: EvaluateConfig, folders: dict[Trial, Path], summary: pd.DataFrame) -> str:
    """Table and figure of a fixed normaliser with many targets beside the learned layer."""
    assert config.templates is not None
    task, metric = config.training.task, METRICS[config.training.task][0]
    labels = {trial.target: trial.label for trial in folders if trial.target is not None}
    predictions = collect(folder for trial, folder in folders.items() if trial.target is not None)
    predictions["method"] = predictions["target"].map(labels)
    fixed = summarise(predictions, task, None, resamples=config.resamples)
    fixed = fixed[fixed["metric"] == metric]
    clean = fixed[fixed["condition"] == fixed["condition"].iloc[0]]
    icc = config.training.data.icc
    colours = {
        label: read_image(Path(target), icc).mean((0, 1)) / 255 for target, label in labels.items()
    }
    own = summary[(summary["method"] == config.templates.beside) & (summary["metric"] == metric)]
    learned = own[own["condition"] == fixed["condition"].iloc[0]].iloc[0]
    figures.sensitivity(
        [
            (row.method, row.mean, row.low, row.high, tuple(colours[row.method]))
            for row in clean.itertuples()
        ],
        (config.templates.beside, learned["mean"], learned["low"], learned["high"]),
        config.output / "templates.svg",
        metric,
        normaliser=config.templates.method,
    )
    presentation.write_csv(fixed, config.output / "templates.csv")
    spread = clean["mean"]
    note = (
        f"{len(spread)} target images: {spread.min():.3f} to {spread.max():.3f}, mean "
        f"{spread.mean():.3f}, SD {spread.std():.3f}. {config.templates.beside}: "
        f"{learned['mean']:.3f} [{learned['low']:.3f}, {learned['high']:.3f}]."
    )
    return presentation.markdown(fixed, metric) + "\n" + note
