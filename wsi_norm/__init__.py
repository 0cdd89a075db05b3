"""wsi-norm: whole-slide images in, tiles normalised by a learned LStainNorm layer out.

The names below are the public ones. They are imported when they are first used, so that
`import wsi_norm` costs nothing.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_norm.config import RunConfig
    from wsi_norm.loading import ShardSampler, TileDataset, TileStream
    from wsi_norm.lstainnorm import (
        LStainNorm,
        Statistics,
        Template,
        load_checkpoint,
        save_checkpoint,
    )
    from wsi_norm.normalizers.engine import Normalizer
    from wsi_norm.report import RunSummary
    from wsi_norm.runner import run
    from wsi_norm.slide import Slide, open_slide
    from wsi_norm.store import TileStore

_HOMES = {
    "LStainNorm": "lstainnorm",
    "Normalizer": "normalizers.engine",
    "RunConfig": "config",
    "RunSummary": "report",
    "ShardSampler": "loading",
    "Slide": "slide",
    "Statistics": "lstainnorm",
    "Template": "lstainnorm",
    "TileDataset": "loading",
    "TileStore": "store",
    "TileStream": "loading",
    "load_checkpoint": "lstainnorm",
    "open_slide": "slide",
    "run": "runner",
    "save_checkpoint": "lstainnorm",
}

__all__ = [
    "LStainNorm",
    "Normalizer",
    "RunConfig",
    "RunSummary",
    "ShardSampler",
    "Slide",
    "Statistics",
    "Template",
    "TileDataset",
    "TileStore",
    "TileStream",
    "load_checkpoint",
    "open_slide",
    "run",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("wsi-norm")
    if name not in _HOMES:
        raise AttributeError(f"module 'wsi_norm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"wsi_norm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
