"""What is settled before a run starts: its normaliser by name, absolute paths, a place to write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_norm.config import RunConfig
from wsi_norm.errors import ConfigError
from wsi_norm.location import check_writable
from wsi_norm.lstainnorm.checkpoint import DEFAULT
from wsi_norm.normalizers.model import Model
from wsi_norm.sources import SlideSource
from wsi_norm.tissue import read_geojson


def checked_model(config: RunConfig) -> tuple[Model, dict[str, Any]]:
    """The normaliser by name, and what the report says of it; loaded once here, to be sure."""
    model = Model.of(config)
    loaded = model.load("cpu")
    if config.roi is not None:
        read_geojson(config.roi)
    facts = loaded.facts()
    checkpoint = str(config.ckpt or DEFAULT) if facts["preset"] and not config.target else None
    target = loaded.target.to_dict() if loaded.target is not None else None
    return model.fixed(loaded), {"checkpoint": checkpoint, **facts, "target": target}


def absolute_source(source: SlideSource) -> SlideSource:
    """A slide with absolute paths; URLs as they are."""
    places = {"path": source.path, "mask": source.mask, "roi": source.roi}
    paths = {name: place for name, place in places.items() if isinstance(place, Path)}
    return replace(source, **{name: path.absolute() for name, path in paths.items()})  # type: ignore[arg-type]


def check_output(folder: Path) -> None:
    """Make the folder, and find out whether files can be made in it; ConfigError if not."""
    try:
        check_writable(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot write there ({error.strerror}); choose another --output"
        ) from error
