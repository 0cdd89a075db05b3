"""`wsi-norm verify`."""

from __future__ import annotations

from pathlib import Path

import click

from .group import FILE
from .output import say

DEEP_TILES = 16
NAMED = 5
"""Damaged parts of a store that its line names."""


class VerifyCommand(click.Command):
    """A command whose `--deep` may stand alone before a path."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give `--deep` its number, where none follows it."""
        given: list[str] = []
        for index, argument in enumerate(args):
            following = args[index + 1] if index + 1 < len(args) else ""
            alone = argument == "--deep" and not following.isdecimal()
            given.append(f"--deep={DEEP_TILES}" if alone else argument)
        return super().parse_args(ctx, given)


@click.command("verify", cls=VerifyCommand)
@click.argument("stores", nargs=-1, required=True, type=FILE)
@click.option(
    "--deep",
    type=click.IntRange(1),
    metavar="[N]",
    help=f"Compute N tiles of each store anew from its slide, too. [N: {DEEP_TILES}]",
)
def command(stores: tuple[Path, ...], deep: int | None) -> int:
    """Read STORES back and prove that they are what was written; a line for each.

    A folder that holds stores stands for all of them. Exit status 1 if any of them is incomplete or
    damaged; `run --repair` makes it whole again. --deep asks the run.json beside a store for its
    slide and settings.
    """
    from wsi_norm.slide.apart import end_idle

    try:
        lines = [_line(path, deep) for store in stores for path in stores_in(store)]
    finally:
        end_idle()
    return int(not all(lines))


def _line(path: Path, deep: int | None) -> bool:
    """Say how a store is; whether it is whole."""
    from wsi_norm.errors import WsiNormError
    from wsi_norm.store import REMEDY, TileStore

    try:
        store = TileStore.open(path)
        problems, remedy = store.damage(), REMEDY
        shards = "1 shard" if store.shards == 1 else f"{store.shards} shards"
        said = f"{path}: {len(store)} tiles in {shards}, all whole"
        if store.meta.layout == "plan":
            said = f"{path}: a plan of {len(store)} tiles, without pixels, whole"
        if not store.is_sealed:
            said += " (no digests: of an earlier version, containers only)"
        if deep is not None and not problems:
            number, others = _deep(path, deep)
            same = f"{number} tiles computed anew are" if number else "slide and normaliser are"
            said += f"; {same} the same"
            problems = [f"tile {row}: not what its slide gives" for row in others]
            remedy = "run the same command again with --overwrite"
    except WsiNormError as error:
        text = str(error)
        say(f"error: {text if text.startswith(str(path)) else f'{path}: {text}'}", err=True)
        return False
    if not problems:
        say(said)
        return True
    more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    say(f"error: {path}: {'; '.join(problems[:NAMED])}{more}; {remedy}", err=True)
    return False


def _deep(path: Path, tiles: int) -> tuple[int, list[int]]:
    from wsi_norm.pipeline import other_tiles
    from wsi_norm.runner.earlier import job_of

    return other_tiles(job_of(path), tiles)


def stores_in(path: Path) -> list[Path]:
    """What an argument stands for: a store, or all stores in a folder."""
    from wsi_norm.location import listing

    inside = [] if path.suffix == ".zarr" else listing(path, "*.zarr")
    return inside or [path]
