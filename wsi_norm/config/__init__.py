"""Settings, validated once at the edge; an unknown key is an error.

Those of training and evaluation are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wsi_norm.config.reading import read_yaml
from wsi_norm.config.run import MIN_STEP_PX, RunConfig, run_config

if TYPE_CHECKING:
    from wsi_norm.config.evaluate import EvaluateConfig, evaluate_config
    from wsi_norm.config.train import TrainConfig, train_config

_HOMES = {
    "EvaluateConfig": "evaluate",
    "TrainConfig": "train",
    "evaluate_config": "evaluate",
    "train_config": "train",
}

__all__ = [
    "MIN_STEP_PX",
    "EvaluateConfig",
    "RunConfig",
    "TrainConfig",
    "evaluate_config",
    "read_yaml",
    "run_config",
    "train_config",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
