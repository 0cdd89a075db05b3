"""`wsi-norm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsi_norm.choices import EXPORTS
from wsi_norm.config.fields import Chosen

from .group import FILE, dashes
from .options import Registered
from .output import on_terminal, say
from .verify import stores_in


@click.command("export", context_settings={"token_normalize_func": dashes})
@click.argument("stores", nargs=-1, required=True, type=FILE)
@click.option("--to", required=True, type=Registered(Chosen(EXPORTS)), help="The format.")
@click.option("-o", "--output", type=FILE, help="Folder. [default: beside each store]")
@click.option("--overwrite", is_flag=True, help="Write anew what is there.")
@click.option(
    "--compression",
    type=click.Choice(["lossless", "jpeg"]),
    help="Of ome-tiff. [default: lossless]",
)
@click.option("--quality", type=click.IntRange(1, 100), metavar="Q", help="Of JPEG. [default: 90]")
@click.option(
    "--image",
    type=click.Choice(["slide", "pyramid"]),
    help="Of h5, trident, spatialdata: whose px coordinates are. [default: slide]",
)
@click.option("--pixels", flag_value=True, default=None, help="Of h5, trident: tiles, too.")
@click.option(
    "--encoding",
    type=click.Choice(["png", "jpeg", "npy"]),
    help="Of tiles in webdataset. [default: png]",
)
@click.option(
    "--shard-mib", type=click.IntRange(1), metavar="MIB", help="Of webdataset. [default: 256]"
)
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    stores: tuple[Path, ...],
    to: str,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write complete STORES in a format of other tools; a line for each.

    A folder that holds stores stands for all of them. An export that is there is skipped if it is
    of the same tiles with the same options. Exit status 1 if any of them could not be written.
    """
    from tqdm import tqdm

    from wsi_norm.export import export
    from wsi_norm.text import shown

    given = {name: value for name, value in options.items() if value is not None}
    paths = [path for store in stores for path in stores_in(store)]
    failed = False
    with tqdm(unit="tile", disable=quiet or not on_terminal(), dynamic_ncols=True) as bar:

        def watch(store: Path, done: int, tiles: int) -> None:
            if done == 0:
                bar.reset(tiles)
                bar.set_description_str(shown(store.name))
            bar.update(done - bar.n)

        for outcome in export(paths, to, output, overwrite=overwrite, watch=watch, **given):
            with tqdm.external_write_mode():
                if outcome.status == "failed":
                    failed = True
                    say(f"error: {outcome.error}", err=True)
                elif not quiet:
                    there = "" if outcome.status == "written" else " (there already)"
                    say(f"{outcome.store}: {outcome.place}{there}")
    return int(failed)
