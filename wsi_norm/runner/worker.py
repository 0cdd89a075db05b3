"""What a worker process does as it starts (dask's preload): seconds that all take together."""

from __future__ import annotations

from typing import Any

import wsi_norm.pipeline  # noqa: F401
from wsi_norm.signals import end_with_parent


def dask_setup(worker: Any) -> None:
    """End with the run that started it, even where it stands still."""
    end_with_parent()
