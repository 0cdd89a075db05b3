"""The LStainNorm layer: equations, template, checkpoints.

What is a module of PyTorch is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wsi_norm.lstainnorm.checkpoint import load_checkpoint, save_checkpoint
from wsi_norm.lstainnorm.config import PRESETS, LayerConfig
from wsi_norm.lstainnorm.state import LayerState
from wsi_norm.lstainnorm.template import Statistics, Template

if TYPE_CHECKING:
    from wsi_norm.lstainnorm.base import StainLayer
    from wsi_norm.lstainnorm.layer import LStainNorm, make_layer

_HOMES = {"LStainNorm": "layer", "StainLayer": "base", "make_layer": "layer"}

__all__ = [
    "PRESETS",
    "LStainNorm",
    "LayerConfig",
    "LayerState",
    "StainLayer",
    "Statistics",
    "Template",
    "load_checkpoint",
    "make_layer",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
