"""The LStainNorm layer: equations, template, checkpoints."""

from wsi_norm.lstainnorm.checkpoint import load_checkpoint, save_checkpoint
from wsi_norm.lstainnorm.layer import PRESETS, LayerConfig, LStainNorm
from wsi_norm.lstainnorm.template import Statistics, Template

__all__ = [
    "PRESETS",
    "LStainNorm",
    "LayerConfig",
    "Statistics",
    "Template",
    "load_checkpoint",
    "save_checkpoint",
]
