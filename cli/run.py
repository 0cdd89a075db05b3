"""`wsi-norm run`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import click

from wsi_norm.config import RunConfig, run_config

from .group import FILE, dashes
from .options import SettingsCommand, options_of
from .output import say_lines

OPTIONS = [name for name in RunConfig.model_fields if name != "slides"]  # these are the arguments


@click.command("run", cls=SettingsCommand, context_settings={"token_normalize_func": dashes})
@click.argument("slides", nargs=-1)
@click.option("--config", type=FILE, help="YAML with any of these settings; options rule over it.")
@options_of(RunConfig, OPTIONS)
@click.option("--mag", type=float, metavar="X", help="Target magnification: --mag 20 is --mpp 0.5.")
@click.option("--step", type=int, metavar="PX", help="Tile size less overlap, said directly.")
@click.option("--no-seg", is_flag=True, help="The same as --segmenter none.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary; errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks, and every warning in full.")
def command(
    slides: tuple[str, ...],
    config: Path | None,
    no_seg: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Normalise SLIDES (files, folders, DICOM folders, glob patterns) into zarr stores.

    Each slide becomes OUT/<name>.zarr. A run that was interrupted goes on where it stopped when the
    same command is given again. Exit status: 0 all slides done, 1 some slide is not whole, 2 wrong
    usage, 130 interrupted.
    """
    if no_seg:
        options["segmenter"] = "none"
    settings = run_config(config, **options)
    from wsi_norm.runner.forkserver import fork_server

    with fork_server(settings):  # it imports what is imported here at the same time
        gc.disable()  # what is imported stays: a fifth of the time would go into looking at it
        from wsi_norm.report import profile_table
        from wsi_norm.runner import run

        from .progress import Progress, print_plan, print_summary

        gc.enable()

        with Progress(quiet, verbose) as progress:
            summary = run(slides, settings, progress)
    if not quiet:
        (print_plan if settings.dry_run else print_summary)(summary, settings.output)
        if settings.profile and not settings.dry_run:
            say_lines(profile_table(summary))
    return summary.exit_status
