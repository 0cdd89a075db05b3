"""What the children of trials find imported and compiled already."""

from __future__ import annotations

import torch
import wsi_norm_cli.run  # noqa: F401
import wsi_norm_cli.verify  # noqa: F401

import tests.builders  # noqa: F401
import tests.dicoms  # noqa: F401
import tests.slide.oracle  # noqa: F401
import wsi_norm.pipeline
import wsi_norm.runner.entry
import wsi_norm.tissue  # noqa: F401

torch.set_num_threads(1)
