"""`wsi-norm demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .group import FILE
from .output import say

if TYPE_CHECKING:
    from wsi_norm.config import RunConfig


@click.command("demo")
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=FILE,
    help="Folder for the slide, the store and the pictures.",
)
@click.option(
    "--size",
    default=8192,
    show_default=True,
    type=click.IntRange(1024, 40_000),
    metavar="PX",
    help="Edge of the slide.",
)
@click.option(
    "-n",
    "--workers",
    type=click.IntRange(0),
    metavar="N",
    help="Processes. [default: one per core]",
)
def command(output: Path, size: int, workers: int | None) -> int:
    """Make a synthetic H&E slide and normalise it with the packaged checkpoint."""
    from wsi_norm.config import RunConfig
    from wsi_norm.errors import ConfigError
    from wsi_norm.runner.forkserver import fork_server

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # blocks are drawn in as many threads
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{output}: cannot write there: {error.strerror}") from error
    config = RunConfig(output=output / "normalized", workers=workers)
    with fork_server(config):  # it makes itself ready while the slide is drawn
        return _demo(output, size, config)


def _demo(output: Path, size: int, config: RunConfig) -> int:
    from PIL import Image

    from wsi_norm.runner import run
    from wsi_norm.store import TileStore
    from wsi_norm.synthetic import write_synthetic_slide

    from .progress import Progress, print_summary

    slide = output / "synthetic.svs"
    say(f"writing {slide} ({size} x {size} px, two stain appearances) ...")
    write_synthetic_slide(slide, width=size, height=size)
    with Progress(quiet=False, verbose=False) as progress:
        summary = run([slide], config, progress)
    print_summary(summary, config.output)
    if summary.exit_status:
        return summary.exit_status
    store = TileStore.open(config.output / "synthetic.zarr")
    for name, image in (("before", store.thumbnail), ("after", store.thumbnail_normalized)):
        picture = output / f"{name}.png"
        Image.fromarray(image).save(picture)
        say(f"{name}: {picture}")
    say(f"tiles: {store.path}  (wsi_norm.TileStore.open, or plain zarr)")
    return 0
