"""What the children of trials find imported and compiled already."""

from __future__ import annotations

import importlib

import torch

from wsi_norm import RunConfig
from wsi_norm.runner.checks import checked_model

MODULES = (
    "tests.builders",
    "tests.dicoms",
    "tests.slide.oracle",
    "wsi_norm.pipeline",
    "wsi_norm.runner.entry",
    "wsi_norm.tissue",
    "wsi_norm_cli.export",
    "wsi_norm_cli.run",
    "wsi_norm_cli.verify",
)

for module in MODULES:
    importlib.import_module(module)
torch.set_num_threads(1)
checked_model(RunConfig())[0].load("cpu").warm_up()  # kernels are compiled here, if ever
