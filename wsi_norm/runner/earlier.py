"""An earlier run, by what it left beside its stores."""

from __future__ import annotations

from pathlib import Path

from wsi_norm.pipeline import SlideJob
from wsi_norm.pipeline.origin import run_beside
from wsi_norm.runner.checks import checked_model
from wsi_norm.sources import SlideSource


def job_of(store: Path) -> SlideJob:
    """What the last run in a store's folder would be given to do for it: slide, settings, model.

    Raises
    ------
    ConfigError, CheckpointError
        There is no run.json beside the store, it does not name the store, or what it names is gone.
    """
    slide, config = run_beside(store)
    model, _ = checked_model(config)
    return SlideJob(SlideSource(slide, store.stem), store, config, model, apart=True)
