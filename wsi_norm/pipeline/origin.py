"""Where a finished store comes from: its run, its slide, its normaliser; whether these are it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsi_norm.config import RunConfig
from wsi_norm.config.reading import validated
from wsi_norm.errors import ConfigError, SlideError
from wsi_norm.location import Location, Stamp, location, read_bytes, stamp
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.slide import Slide, SlideFiles, fingerprint, slide_files
from wsi_norm.slide.opening import checked_file
from wsi_norm.store import ModelMeta, SlideMeta, StoreMeta


def run_beside(store: Path) -> tuple[Location, RunConfig]:
    """The slide of a store, and the settings, as the last run in its folder had them.

    Raises
    ------
    ConfigError
        There is no run.json beside the store, or it does not name the store.
    """
    place = store.parent / "run.json"
    try:
        slides, config = _run(place, stamp(place))
        slide = slides.get(store.name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{place}: cannot be read, and says which slide {store.name} is of ({error}); run the "
            "same command again"
        ) from error
    if slide is None:
        raise ConfigError(
            f"{place}: does not name the slide of {store.name}; run the same command again"
        )
    return location(slide), config


@lru_cache(4)  # many stores ask for the same file
def _run(place: Path, stamp: Stamp | None) -> tuple[dict[str, str], RunConfig]:
    document: dict[str, Any] = json.loads(read_bytes(place))
    slides = {Path(slide["store"]).name: slide["slide"] for slide in document["slides"]}
    return slides, validated(RunConfig, None, dict(document["settings"]), {})


def files_of(slide: Location, meta: SlideMeta) -> SlideFiles | None:
    """A slide's files, if it is the one that a store is of; None if it is another.

    A slide of one file may have another name by now.

    Raises
    ------
    UnreadableSlideError
        There is no such file, or it is none that libraries may open.
    OSError
        It cannot be read.
    """
    file, _ = checked_file(slide)
    if (file.stat().st_size, fingerprint(file)) != (meta.size_bytes, meta.sha256_first_mib):
        return None
    files = slide_files(slide)
    same = meta.sha256_samples in (None, files.sha256, files.sha256_as(meta.file_name))
    return files if same else None


def check_pixels(slide: Slide, meta: StoreMeta, store: Path) -> None:
    """SlideError, and the slide closed, if it does not give the pixels that a store was planned on.

    Its ICC profile was applied and is not, here and now; or it was decoded reduced, and cannot be.
    """
    if meta.icc.applied and (slide.icc.status, slide.icc.sha256) != ("applied", meta.icc.sha256):
        slide.close()
        raise SlideError(
            f"{slide.path}: its ICC profile is not the one that {store} was planned with; start "
            "anew with --overwrite"
        )
    reduced = meta.tiling.reduced or 1
    if reduced > 1 and reduced not in slide.reducible.get(meta.tiling.level, frozenset()):
        slide.close()
        raise SlideError(
            f"{slide.path}: its JPEG tiles are not decoded at 1/{reduced} here, as {store} was "
            f"planned (reader {slide.reader} {slide.reader_version}); start anew with --overwrite, "
            "and with --resample exact if machines differ in that"
        )


def is_model(normalizer: StainNormalizer, meta: ModelMeta) -> bool:
    """Whether a normaliser is that of a store; what they say of its making does not count."""
    without = {"provenance"}
    facts = ModelMeta(**normalizer.facts())
    return facts.model_dump(exclude=without) == meta.model_dump(exclude=without)
