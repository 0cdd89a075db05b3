"""One evaluation: every run, then tables and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_norm.config import EvaluateConfig
from wsi_norm.evaluation import figures, tables
from wsi_norm.evaluation.runs import PROFILE, Run, collect, perform, runs_of
from wsi_norm.evaluation.scores import METRICS, score_runs, summarise
from wsi_norm.slide import read_image

Progress = Callable[[int, int, Run], None]

KEEP_BYTES = str(1 << 30)
"""Freed memory below this stays with a worker: page faults cost a sixth of a training's time."""

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
        Folder that relative paths of the data start from; None: the folder of the table.
    progress
        Called after each run with runs done, runs in all, and the run.

    Returns
    -------
    DataFrame
        The summary: a row per method, condition and metric, as `summary.csv` holds it.

    Raises
    ------
    ConfigError
        The data do not fit the settings.
    TrainingError
        A training diverged.
    """
    stages = runs_of(config, root)
    total = sum(map(len, stages))
    folders: dict[Run, Path] = {}
    for stage in stages:
        for run, folder in _all(stage, config, root):
            folders[run] = folder
            if progress is not None:
                progress(len(folders), total, run)
    runs = [run for stage in stages for run in stage]
    order = {name: place for place, name in enumerate(config.methods)}
    runs.sort(key=lambda run: order[run.method])
    plain = [run for run in runs if run.target is None]
    task = config.training.task
    predictions = collect(folders[run] for run in plain)
    summary = summarise(predictions, task, config.reference, resamples=config.resamples)
    scores = score_runs(predictions, task)
    predictions.to_csv(config.output / "predictions.csv.gz", index=False)
    tables.write_csv(summary, config.output / "summary.csv")
    tables.write_csv(scores, config.output / "scores.csv")
    text = ["## Scores", tables.markdown(summary, reference=config.reference)]
    text += ["## Per domain", tables.domain_table(scores, METRICS[task][0])]
    metric = METRICS[task][0]
    figures.forest(summary, metric, config.output / f"{metric}.svg", reference=config.reference)
    profiles = _profiles(plain, folders)
    if profiles:
        tables.write_csv(pd.DataFrame(profiles), config.output / "profiles.csv")
        text += ["## The normalisers themselves", _profile_table(profiles)]
    learned = _learned(plain, folders)
    if learned:
        text += ["## What was learned", learned]
    if config.templates is not None:
        text += ["## Choice of the target image", _templates(config, runs, folders, summary)]
    (config.output / "tables.md").write_text("\n\n".join(text) + "\n")
    return summary


def _all(stage: list[Run], config: EvaluateConfig, root: Path | None) -> Iterator[tuple[Run, Path]]:
    """Runs and their folders as they are done, several at a time, one CPU thread each."""
    if config.workers == 1:
        for run in stage:
            yield run, perform(run, config, root, None)
        return
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        os.environ.setdefault(name, KEEP_BYTES)
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(perform, run, config, root, 1): run for run in stage}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _profiles(runs: Iterable[Run], folders: dict[Run, Path]) -> list[dict[str, Any]]:
    """The numbers of each method's normaliser, of its first seed."""
    rows = []
    for run in runs:
        file = folders[run] / PROFILE
        if file.exists():
            facts = json.loads(file.read_text())
            facts["degenerate"] = "; ".join(f"{k}: {v}" for k, v in facts["degenerate"].items())
            rows.append({"method": run.method, **facts})
    return rows


def _profile_table(profiles: list[dict[str, Any]]) -> str:
    lines = ["| Method | " + " | ".join(PROFILE_COLUMNS.values()) + " |"]
    lines.append("| :-- |" + " --: |" * len(PROFILE_COLUMNS))
    for row in profiles:
        cells = ["n/a" if row[key] is None else f"{row[key]:g}" for key in PROFILE_COLUMNS]
        lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    first = profiles[0]
    note = f"Two virtual scans of a tile differ by {first['pair_ciede2000_before']:.2f} before."
    if first["probe_chance"] is not None:
        note += f" The probe's chance level is {first['probe_chance']:g}."
    return "\n".join(lines) + "\n\n" + note


def _learned(runs: Iterable[Run], folders: dict[Run, Path]) -> str:
    """Moves of the template and ablations, means over seeds."""
    moves, ablations = [], []
    for run in runs:
        file = folders[run] / "summary.json"
        facts = json.loads(file.read_text()) if file.exists() else {}
        for space, channels in facts.get("learned", {}).get("target", {}).items():
            moves += [
                {
                    "method": run.method,
                    "space": space,
                    "channel": channel,
                    "from": f["mean"][0],
                    "to": f["mean"][1],
                    "move": f["move"],
                    "std": f["std"][1] / f["std"][0],
                }
                for channel, f in channels.items()
            ]
        for variant, scores in facts.get("ablation", {}).items():
            ablations.append({"method": run.method, "variant": variant, **scores})
    if not moves:
        return ""
    keys = ["method", "space", "channel"]
    table = pd.DataFrame(moves).groupby(keys, sort=False).mean().reset_index()
    moved = table[(table["move"] != 0) | (table["std"] != 1)]
    lines = [
        "| Method | Channel | Mean: template | learned | Move, in template SD | SD, times |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {r.method} | {r.space} {r.channel} | {r[4]:.3f} | {r.to:.3f} | {r.move:+.2f} | "
        f"{r.std:.2f} |"
        for r in moved.itertuples()
    ]
    ablated = pd.DataFrame(ablations).groupby(["method", "variant"], sort=False).mean()
    lines += ["", "| Method | Without | clean | simulated |", "| :-- | :-- | --: | --: |"]
    lines += [
        f"| {method} | {variant} | {row['clean']:.3f} | {row['simulated']:.3f} |"
        for (method, variant), row in ablated.iterrows()
    ]
    return "\n".join(lines)


def _templates(
    config: EvaluateConfig, runs: Iterable[Run], folders: dict[Run, Path], summary: pd.DataFrame
) -> str:
    """Table and figure of a fixed normaliser with many targets beside the learned layer."""
    assert config.templates is not None
    task, metric = config.training.task, METRICS[config.training.task][0]
    aimed = [run for run in runs if run.target is not None]
    predictions = collect(folders[run] for run in aimed)
    predictions["method"] = predictions["target"].map(lambda target: Path(target).stem)
    fixed = summarise(predictions, task, None, resamples=config.resamples)
    fixed = fixed[fixed["metric"] == metric]
    clean = fixed[fixed["condition"] == fixed["condition"].iloc[0]]
    colours = {
        Path(str(run.target)).stem: read_image(Path(str(run.target))).mean((0, 1)) / 255
        for run in aimed
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
    tables.write_csv(fixed, config.output / "templates.csv")
    spread = clean["mean"]
    note = (
        f"{len(spread)} target images: {spread.min():.3f} to {spread.max():.3f}, mean "
        f"{spread.mean():.3f}, SD {spread.std():.3f}. {config.templates.beside}: "
        f"{learned['mean']:.3f} [{learned['low']:.3f}, {learned['high']:.3f}]."
    )
    return tables.markdown(fixed, metric) + "\n" + note
