"""What the pixels of a plan are computed from: its slide and its normaliser, found and proven."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_norm.choices import CHECKPOINTS, NORMALIZERS
from wsi_norm.errors import CheckpointError, ConfigError, SlideError, WsiNormError
from wsi_norm.location import Location, location
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline.origin import files_of, is_model, run_beside
from wsi_norm.slide import SlideFiles
from wsi_norm.store import ModelMeta, StoreMeta

Slides = str | Path | Iterable[str | Path] | Mapping[str, str | Path]
"""A folder, files and folders, or names of slides with their files."""


@dataclass(frozen=True)
class Origin:
    """The slide of a plan, its files as they were seen, and its normaliser by digest."""

    slide: Location
    files: SlideFiles
    model: Model


def origins_of(
    plans: Mapping[Path, StoreMeta], slides: Slides | None, ckpt: str | Path | None
) -> dict[Path, Origin]:
    """Of each plan, by its path.

    Raises
    ------
    ConfigError
        Nothing says where a slide is.
    SlideError
        The slide is gone, or it is another.
    CheckpointError
        No checkpoint has the digest that a plan was made with.
    """
    candidates = None if slides is None else _Candidates(slides)
    models: dict[str, Model] = {}
    found = {}
    for store, meta in plans.items():
        said = meta.model.model_dump_json(exclude={"provenance"})
        if said not in models:
            models[said] = _model(store, meta.model, ckpt)
        slide, files = _slide(store, meta, candidates)
        found[store] = Origin(slide, files, models[said])
    return found


class _Candidates:
    """What `slides` may mean: by the slide's name where it is a mapping, else by the file's."""

    def __init__(self, slides: Slides) -> None:
        self.is_named = isinstance(slides, Mapping)
        self.places: dict[str, list[Location]] = {}
        if isinstance(slides, Mapping):
            self.places = {name: [location(place)] for name, place in slides.items()}
            return
        for place in [slides] if isinstance(slides, str | Path) else slides:
            for file in _files_at(location(place)):
                self.places.setdefault(file.name, []).append(file)

    def of(self, store: Path, meta: StoreMeta) -> list[Location]:
        """Those that the slide of a plan may be; SlideError if there are none."""
        said = meta.slide
        wanted = said.name if self.is_named else said.file_name
        if wanted not in self.places:
            raise SlideError(f"{store}: its slide {wanted} is not in slides=; name it there")
        return self.places[wanted]


def _files_at(place: Location) -> Iterator[Location]:
    """A file, or those in a folder and below it."""
    if not isinstance(place, Path):
        yield place
        return
    if not os.path.exists(place):
        raise ConfigError(f"{place}: no such file or folder; check slides=")
    if not os.path.isdir(place):
        yield place
    for folder, _, names in os.walk(place):
        for name in names:
            yield Path(folder, name)


def _slide(
    store: Path, meta: StoreMeta, candidates: _Candidates | None
) -> tuple[Location, SlideFiles]:
    """The slide of a plan, and its files."""
    problems = []
    for place in [_slide_of_run(store)] if candidates is None else candidates.of(store, meta):
        try:
            files = files_of(place, meta.slide)
        except (OSError, SlideError) as error:
            problems.append(f"{store}: its slide cannot be read: {error}")
            continue
        if files is not None:
            return place.absolute() if isinstance(place, Path) else place, files
        problems.append(f"{place}: not the slide that {store} is a plan of, or changed since")
    raise SlideError(f"{problems[0]}; if it has moved, name the file or its folder in slides=")


def _slide_of_run(store: Path) -> Location:
    try:
        return run_beside(store)[0]
    except ConfigError as error:
        raise ConfigError(f"{error}, or name the slide in slides=") from error


def _model(store: Path, meta: ModelMeta, ckpt: str | Path | None) -> Model:
    """The normaliser of a plan, bound to its digest, loaded and warm in this process."""
    if meta.normalizer not in NORMALIZERS:
        raise ConfigError(
            f"{store}: made with the normaliser {meta.normalizer!r}, which is not known here; "
            "import what adds it first"
        )
    tried = []
    for model in _models(store, meta, ckpt):
        try:
            made = model.load("cpu")
        except WsiNormError as error:
            tried.append(str(error))
            continue
        if is_model(made, meta):
            made.warm_up()  # here, once: forked workers have it then
            bound = model.fixed(made)
            _loaded[_key(bound)] = made
            return bound
        tried.append(f"{model.file}: another")
    raise CheckpointError(
        f"{store}: made with {meta.normalizer} of digest {meta.sha256}; "
        f"name its file in ckpt= ({'; '.join(dict.fromkeys(tried))})"
    )


def _models(store: Path, meta: ModelMeta, ckpt: str | Path | None) -> Iterator[Model]:
    """What the normaliser may be: set as the plan says, or as run.json does, if there is one."""
    said = Model(
        meta.normalizer,
        statistics=None if meta.statistics == "none" else meta.statistics,
        background=meta.background,
    )
    if ckpt is not None:
        path = Path(ckpt) if str(ckpt) in CHECKPOINTS else Path(ckpt).absolute()
        yield replace(said, path=path)
    else:
        for name in CHECKPOINTS:
            yield replace(said, path=Path(name))
    with suppress(ConfigError):
        ran = Model.of(run_beside(store)[1])
        yield ran if ckpt is None else replace(ran, path=path)


_loaded: dict[object, StainNormalizer] = {}
"""Normalisers of this process by what decides their bytes; forked workers have their parent's."""


def loaded(model: Model) -> StainNormalizer:
    """A bound model at work, loaded once per process."""
    key = _key(model)
    if key not in _loaded:
        _loaded[key] = model.load("cpu")
    return _loaded[key]


def _key(model: Model) -> object:
    return model.normalizer, model.sha256, model.statistics, model.background
