"""What is settled before a run starts: its checkpoint by name, absolute paths, a place to write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_norm.config import RunConfig, read_yaml
from wsi_norm.errors import ConfigError
from wsi_norm.location import check_writable
from wsi_norm.lstainnorm import load_checkpoint
from wsi_norm.lstainnorm.checkpoint import sha256_of
from wsi_norm.pipeline import Model
from wsi_norm.sources import SlideSource
from wsi_norm.tissue import read_geojson


def named_model(config: RunConfig) -> tuple[Model, dict[str, Any]]:
    """The checkpoint by name, and what the report says of it; loaded once here, to be sure."""
    template = read_yaml(config.template) if config.template is not None else None
    layer = load_checkpoint(config.ckpt, template)
    try:
        layer.configure(config.statistics, config.background)
    except ValueError as error:
        raise ConfigError(f"{config.ckpt or 'packaged checkpoint'}: {error}") from error
    if config.roi is not None:
        read_geojson(config.roi)
    model = Model(config.ckpt, sha256_of(config.ckpt), template)
    return model, {
        "checkpoint": str(config.ckpt) if config.ckpt else "packaged",
        "sha256": model.sha256,
        **layer.config.to_dict(),
        "target": layer.target.to_dict(),
        "provenance": layer.provenance,
    }


def absolute_config(config: RunConfig) -> RunConfig:
    """The settings with absolute paths: workers may have another working directory."""
    return config.absolute()


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
