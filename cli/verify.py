"""`wsi-norm verify`."""

from __future__ import annotations

from pathlib import Path

import click

from .group import FILE
from .output import say


@click.command("verify")
@click.argument("stores", nargs=-1, required=True, type=FILE)
def command(stores: tuple[Path, ...]) -> int:
    """Read every shard of STORES back; exit status 1 if anything is damaged or missing.

    A folder that holds stores stands for all of them.
    """
    from wsi_norm.errors import StoreError
    from wsi_norm.store import TileStore

    status = 0
    for path in [path for store in stores for path in _stores_in(store)]:
        try:
            store = TileStore.open(path)
            problems = store.damage()
        except StoreError as error:
            problems, status = [], 1
            say(f"error: {error}", err=True)
            continue
        for problem in problems:
            status = 1
            say(f"error: {path}: {problem}; delete the store and run it again", err=True)
        if not problems:
            say(f"{path}: {len(store)} tiles in {store.shards} shards, all whole")
    return status


def _stores_in(path: Path) -> list[Path]:
    from wsi_norm.location import listing

    inside = [] if path.suffix == ".zarr" else listing(path, "*.zarr")
    return inside or [path]
