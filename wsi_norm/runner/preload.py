"""What the fork server imports: all that workers do, and nothing that runs or is open."""

from __future__ import annotations

import gc
import importlib
from contextlib import suppress

from wsi_norm.signals import killed_with_parent

MODULES = (
    "distributed.nanny",
    "wsi_norm.runner.worker",
    "wsi_norm.normalizers.fused",
    "wsi_norm.slide.readers.openslide",
    "wsi_norm.slide.readers.direct",
    "skimage.filters",
    "skimage.measure",
    "skimage.morphology",
)

killed_with_parent()
with suppress(Exception):  # what fails here fails in a worker, where it is told
    for module in MODULES:
        importlib.import_module(module)
gc.freeze()  # else the first collection of every worker writes to, and so copies, all of it
