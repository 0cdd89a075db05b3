"""Settings, validated once at the edge; an unknown key is an error."""

from wsi_norm.config.evaluate import EvaluateConfig, evaluate_config
from wsi_norm.config.reading import read_yaml
from wsi_norm.config.run import MIN_STEP_PX, RunConfig, run_config
from wsi_norm.config.train import TrainConfig, train_config

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
