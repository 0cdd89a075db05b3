"""What the fork server imports and loads: all that workers do, and nothing that runs or is open."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from wsi_norm.compiled import load_kept
from wsi_norm.signals import killed_with_parent

MODULES = (
    "distributed.nanny",
    "wsi_norm.runner.worker",
    "wsi_norm.normalizers.fused",
    "wsi_norm.slide.readers.openslide",
    "wsi_norm.slide.readers.direct",
    "skimage.filters.thresholding",
    "skimage.measure",
)

COMMAND_LINE = (sys.executable, "-c", "from multiprocessing.spawn import spawn_main; spawn_main()")
"""Of a worker, as if it were spawned."""


def bear_own_name() -> None:
    """Have the system show a forked worker's command line, not that of what it was forked from.

    So `ps` and scripts tell one from the other. It is written where the old one lies, as far as
    there is room.
    """
    said = Path("/proc/self/stat").read_bytes()
    start, end = map(int, said.rpartition(b")")[2].split()[45:47])
    if start and end > start:
        line = b"\0".join(map(os.fsencode, COMMAND_LINE))[: end - start - 1]
        ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


gc.disable()  # all of this stays: to look at it again and again takes a fifth of the time
killed_with_parent()
os.register_at_fork(after_in_child=bear_own_name)
# What fails here fails in a worker, too, where it is told.
with suppress(ImportError, OSError, MemoryError):
    for module in MODULES:
        importlib.import_module(module)
    load_kept()
gc.freeze()  # else the first collection of every worker writes to, and so copies, all of it
gc.enable()
