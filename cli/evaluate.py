"""`wsi-norm evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_norm.config import EvaluateConfig, evaluate_config
from wsi_norm.text import shown

from .group import FILE, dashes
from .options import options_of
from .output import on_terminal, say, say_lines
from .train import data_root_option, needs_training_extra

if TYPE_CHECKING:
    from wsi_norm.evaluation.trials import Trial


@click.command("evaluate", context_settings={"token_normalize_func": dashes})
@click.argument("config", type=FILE)
@data_root_option
@options_of(EvaluateConfig, ["output", "workers"])
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no table.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks.")
def command(
    config: Path,
    data_root: Path | None,
    output: Path | None,
    workers: int | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Compare normalisers, as CONFIG (YAML) describes: seeds, unseen domains, intervals.

    Options rule over CONFIG. Finished runs are kept: the same command goes on where it was
    interrupted.
    """
    settings = evaluate_config(config, output=output, workers=workers)
    needs_training_extra()
    from tqdm import tqdm

    from wsi_norm.evaluation.evaluate import evaluate

    with tqdm(unit="trial", disable=quiet or not on_terminal()) as bar:

        def show(done: int, total: int, trial: Trial) -> None:
            bar.total = total
            bar.set_postfix_str(shown(trial.name), refresh=False)
            bar.update(done - bar.n)

        evaluate(settings, data_root, show)
    if not quiet:
        say_lines((settings.output / "tables.md").read_text(encoding="utf-8"))
    say(f"{settings.output}: tables.md, summary.csv, scores.csv, predictions.csv.gz, figures")
