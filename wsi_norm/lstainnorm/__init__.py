"""The LStainNorm layer: equations, template, checkpoints."""

from wsi_norm.lstainnorm.base import PRESETS, LayerConfig, StainLayer
from wsi_norm.lstainnorm.checkpoint import load_checkpoint, save_checkpoint
from wsi_norm.lstainnorm.layer import LStainNorm, make_layer
from wsi_norm.lstainnorm.template import Statistics, Template

__all__ = [
    "PRESETS",
    "LStainNorm",
    "LayerConfig",
    "StainLayer",
    "Statistics",
    "Template",
    "load_checkpoint",
    "make_layer",
    "save_checkpoint",
]
