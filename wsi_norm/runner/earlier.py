"""An earlier run, by what it left beside its stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsi_norm.config import RunConfig
from wsi_norm.config.reading import validated
from wsi_norm.errors import ConfigError
from wsi_norm.location import location, read_bytes
from wsi_norm.pipeline import SlideJob
from wsi_norm.runner.checks import checked_model
from wsi_norm.sources import SlideSource


def job_of(store: Path) -> SlideJob:
    """What the last run in a store's folder would be given to do for it: slide, settings, model.

    Raises
    ------
    ConfigError, CheckpointError
        There is no run.json beside the store, it does not name the store, or what it names is gone.
    """
    place = store.parent / "run.json"
    try:
        document: dict[str, Any] = json.loads(read_bytes(place))
        names = {Path(slide["store"]).name: slide["slide"] for slide in document["slides"]}
        slide = names.get(store.name)
        config = validated(RunConfig, None, dict(document["settings"]), {})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{place}: cannot be read, and says which slide {store.name} is of ({error}); run the "
            "same command again"
        ) from error
    if slide is None:
        raise ConfigError(
            f"{place}: does not name the slide of {store.name}; run the same command again"
        )
    model, _ = checked_model(config)
    return SlideJob(SlideSource(location(slide), store.stem), store, config, model, apart=True)
