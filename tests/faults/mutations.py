"""Five mutants of our own code, as a plugin of pytest: `-p tests.faults.mutations`.

The environment variable WSI_NORM_MUTATION names the one. Each is by names of the package that have
to stay; where one has gone, the plugin fails, and with it whoever believes in the mutant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

VARIABLE = "WSI_NORM_MUTATION"


def shard_skipped() -> None:
    """The first shard that is missing is not missed, so nobody writes it."""
    from wsi_norm.store import TileStore

    missing_shards = TileStore.missing_shards

    def all_but_the_first(self: Any, *arguments: Any, **options: Any) -> list[int]:
        return missing_shards(self, *arguments, **options)[1:]

    TileStore.missing_shards = all_but_the_first  # type: ignore[method-assign]


def shard_written_twice() -> None:
    """A shard is written in the place of the one before it, too."""
    from wsi_norm.store import TileStore

    write_shard = TileStore.write_shard

    def twice(self: Any, shard: int, tiles: Any, flags: Any, *more: Any, **options: Any) -> None:
        write_shard(self, shard, tiles, flags, *more, **options)
        if shard:
            number = self.rows(shard - 1).stop - self.rows(shard - 1).start
            if number == len(tiles):
                write_shard(self, shard - 1, tiles, flags, *more, **options)

    TileStore.write_shard = twice  # type: ignore[method-assign]


def read_error_swallowed() -> None:
    """Tiles that cannot be read are white, and that is all."""
    from wsi_norm.pipeline import shards

    read_tiles = shards.read_tiles

    def without_errors(*arguments: Any, **options: Any) -> Any:
        pixels, errors, *more = read_tiles(*arguments, **options)
        return (pixels, [None for _ in errors], *more)

    shards.read_tiles = without_errors  # type: ignore[assignment]


def flag_dropped() -> None:
    """Flags are worked out and not written."""
    from wsi_norm.store import TileStore

    write_shard = TileStore.write_shard

    def without_flags(self: Any, shard: int, tiles: Any, flags: Any, *more: Any, **o: Any) -> None:
        write_shard(self, shard, tiles, flags * 0, *more, **o)

    TileStore.write_shard = without_flags  # type: ignore[method-assign]


def fingerprint_unchecked() -> None:
    """Every slide looks like any other: fingerprints are equal, no look at files objects."""
    from wsi_norm.slide import slide as slides

    def same(*_: Any, **__: Any) -> str:
        return "0" * 64

    for name, module in [*sys.modules.items()]:
        if name.startswith("wsi_norm"):
            if hasattr(module, "fingerprint"):
                module.fingerprint = same
            if hasattr(module, "SlideFiles"):
                module.SlideFiles.check = lambda *_: None
    slides.Slide.fingerprint = same  # type: ignore[method-assign]


MUTATIONS: dict[str, Callable[[], None]] = {
    "shard_skipped": shard_skipped,
    "shard_written_twice": shard_written_twice,
    "read_error_swallowed": read_error_swallowed,
    "flag_dropped": flag_dropped,
    "fingerprint_unchecked": fingerprint_unchecked,
}


def pytest_configure() -> None:
    if name := os.environ.get(VARIABLE):
        import wsi_norm.runner.entry  # noqa: F401 what is imported later is not mutated

        MUTATIONS[name]()
