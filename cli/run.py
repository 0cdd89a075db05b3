"""`wsi-norm run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsi_norm.config import RunConfig, run_config

from .main import dashes

FILE = click.Path(path_type=Path)


def help_of(setting: str, text: str | None = None) -> str:
    """A setting's help and default, from the one place where both stand."""
    field = RunConfig.model_fields[setting]
    text = text or str(field.description)
    if field.default in (None, (), False, True):
        return text
    default = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return f"{text} [default: {default}]"


def join_gpus(arguments: list[str]) -> list[str]:
    """`--gpus 0 1` as `--gpus 0,1`: other tools of the field take several numbers there."""
    joined: list[str] = []
    for argument in arguments:
        after_gpus = len(joined) >= 2 and joined[-2] == "--gpus"
        if after_gpus and argument.isdigit() and joined[-1].replace(",", "").isdigit():
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


class RunCommand(click.Command):
    """A command that takes `--gpus 0 1`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the numbers behind --gpus before click sees them."""
        return super().parse_args(ctx, join_gpus(args))


def _gpus(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of GPU numbers") from error


@click.command("run", cls=RunCommand, context_settings={"token_normalize_func": dashes})
@click.argument("slides", nargs=-1)
@click.option("--config", type=FILE, help="YAML with any of these settings; options rule over it.")
@click.option("--ckpt", type=FILE, help=help_of("ckpt"))
@click.option("--template", type=FILE, help=help_of("template"))
@click.option("-o", "--output", type=FILE, help=help_of("output"))
@click.option(
    "--slides-csv", type=FILE, help="Table: wsi, optional mpp, mask_path, roi_path, name."
)
@click.option("--recursive", is_flag=True, default=None, help=help_of("recursive"))
@click.option("--tile-size", "--patch-size", type=int, metavar="PX", help=help_of("tile_size"))
@click.option("--mpp", type=float, metavar="UM", help=help_of("mpp"))
@click.option("--mag", type=float, metavar="X", help="Target magnification: --mag 20 is --mpp 0.5.")
@click.option("--overlap", type=int, metavar="PX", help=help_of("overlap"))
@click.option("--step", type=int, metavar="PX", help="Tile size less overlap, said directly.")
@click.option("--default-mpp", type=float, metavar="UM", help=help_of("default_mpp"))
@click.option(
    "--min-tissue", "--tissue-threshold", type=float, metavar="SHARE", help=help_of("min_tissue")
)
@click.option("--segmenter", type=click.Choice(["otsu", "hsv", "none"]), help=help_of("segmenter"))
@click.option("--no-seg", is_flag=True, help="The same as --segmenter none.")
@click.option("--roi", type=FILE, help=help_of("roi"))
@click.option("--colour-check", type=click.Choice(["refuse", "warn"]), help=help_of("colour_check"))
@click.option("--statistics", type=click.Choice(["slide", "tile"]), help=help_of("statistics"))
@click.option(
    "--background", type=click.Choice(["preserve", "normalize"]), help=help_of("background")
)
@click.option("--codec", type=click.Choice(["zstd", "blosc", "none"]), help=help_of("codec"))
@click.option(
    "--reader",
    type=click.Choice(["auto", "direct", "openslide", "tiffslide"]),
    help=help_of("reader"),
)
@click.option("--device", help=help_of("device"))
@click.option("--gpus", callback=_gpus, metavar="N [N ...]", help=help_of("gpus"))
@click.option("-b", "--batch-size", type=int, metavar="N", help=help_of("batch_size"))
@click.option("-n", "--workers", type=int, metavar="N", help=help_of("workers"))
@click.option("--scheduler", metavar="ADDRESS", help=help_of("scheduler"))
@click.option("--cluster", type=FILE, help=help_of("cluster"))
@click.option("--resume/--overwrite", "resume", default=None, help="Go on, or start anew. [resume]")
@click.option("--max-unreadable", type=float, metavar="SHARE", help=help_of("max_unreadable"))
@click.option("--dry-run", is_flag=True, default=None, help=help_of("dry_run"))
@click.option("--fail-fast", is_flag=True, default=None, help=help_of("fail_fast"))
@click.option(
    "--report/--no-report", default=None, help="Write report.html, run.json, slides.csv. [report]"
)
@click.option("--profile", is_flag=True, default=None, help=help_of("profile"))
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary; errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks, and every warning in full.")
def command(
    slides: tuple[str, ...],
    config: Path | None,
    no_seg: bool,
    resume: bool | None,
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
    if resume is not None:
        options["overwrite"] = not resume
    settings = run_config(config, **options)
    from wsi_norm.report import profile_table
    from wsi_norm.runner import run

    from .progress import Progress, print_plan, print_summary

    with Progress(quiet, verbose) as progress:
        summary = run(slides, settings, progress)
    if not quiet:
        (print_plan if settings.dry_run else print_summary)(summary, settings.output)
        if settings.profile and not settings.dry_run:
            click.echo(profile_table(summary))
    return summary.exit_status
