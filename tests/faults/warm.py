"""What the children of trials find imported already."""

from __future__ import annotations

import importlib

import torch

MODULES = (
    "tests.builders",
    "tests.dicoms",
    "tests.slide.oracle",
    "wsi_norm.pipeline",
    "wsi_norm.runner.entry",
    "wsi_norm.tissue",
    "wsi_norm_cli.run",
    "wsi_norm_cli.verify",
)

for module in MODULES:
    importlib.import_module(module)
torch.set_num_threads(1)
