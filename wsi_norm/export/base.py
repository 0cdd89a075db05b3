"""The door of exports: complete stores go in, files of other tools come out, whole or not at all.

A format is a `Format` in a module of its own, named in `wsi_norm.choices.EXPORTS`. It says how a
store is written to a draft and what a finished export says of its origin. The door does the rest:
which stores, which names, what is there already, drafts, errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from wsi_norm import location
from wsi_norm.choices import EXPORTS
from wsi_norm.errors import ConfigError, ExportError, StoreError, WsiNormError
from wsi_norm.store import REMEDY, TileStore

ORIGIN = "wsi_norm.json"
"""In an export that is a folder: where it says its origin."""

QUALITY = 90
"""Of JPEG, if nothing else is asked for."""


@dataclass(frozen=True)
class Job:
    """A store on its way out.

    Attributes
    ----------
    store
        Complete. Read tiles by `store[i]`, slices or iteration; of a damaged one that raises
        StoreError, which the format lets pass.
    options
        An instance of the format's `options`.
    origin
        A line of text that the export carries, and that `Format.origin` gives back.
    advance
        To be called with numbers of tiles as they are done; `len(store)` in all.
    """

    store: TileStore
    options: Any
    origin: str
    advance: Callable[[int], object]


@dataclass(frozen=True)
class NoOptions:
    """Of a format that has none."""


def checked_quality(quality: int | None) -> int:
    """The quality of JPEG, 90 if none is given; ValueError if it is none."""
    quality = QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is 1 to 100, not {quality}")
    return quality


@dataclass(frozen=True)
class Format:
    """What the door has to know of a format.

    Attributes
    ----------
    suffix
        Of exports' names, behind the store's: ".ome.tiff". Never ".zarr", which stores have.
    write
        (job, draft): make `draft`, a file or a folder. The folder around it is the draft's own, for
        whatever is needed on the way. OSError and StoreError pass; ExportError says what the
        format cannot hold. Equal stores and options give equal bytes, as far as it can.
    origin
        (place) -> the origin that was written there; None of what is no export of this format.
        Raises nothing but OSError.
    options
        A frozen dataclass: names, defaults, and ValueError for what makes no sense.
    """

    suffix: str
    write: Callable[[Job, Path], None]
    origin: Callable[[Path], str | None]
    options: Callable[..., Any] = NoOptions


@dataclass(frozen=True)
class Outcome:
    """What became of a store: exported now, exported before, or why not.

    Attributes
    ----------
    store, place
        The store, and where its export is or should be.
    error
        One line, where it failed.
    """

    store: Path
    place: Path
    status: Literal["written", "skipped", "failed"]
    error: str = ""


Watch = Callable[[Path, int, int], object]
"""(store, tiles done, tiles in all)."""


def export(
    stores: Iterable[str | Path],
    to: str,
    output: str | Path | None = None,
    *,
    overwrite: bool = False,
    watch: Watch = lambda store, done, tiles: None,
    **options: Any,
) -> Iterator[Outcome]:
    """Export stores, one after the other; a store that fails does not keep the others.

    Parameters
    ----------
    stores
        Paths of complete stores.
    to
        Name of a format, see `wsi_norm.choices.EXPORTS`.
    output
        Folder for the exports; None: each beside its store.
    overwrite
        Write anew what is there; else an export of the same content with the same options is
        skipped, and anything else that has the name is an error of that store.
    options
        Those of the format.

    Raises
    ------
    ConfigError
        No such format, or it has no such option.
    """
    if to not in EXPORTS:
        raise ConfigError(f"format {to!r} is none of {', '.join(EXPORTS)}")
    form: Format = EXPORTS[to]
    settings = _settings(to, form, options)
    paths = list({Path(store).absolute(): Path(store) for store in stores}.values())

    def outcomes() -> Iterator[Outcome]:
        taken: dict[Path, Path] = {}
        for path in paths:
            folder = path.parent if output is None else Path(output)
            place = folder / f"{path.absolute().name.removesuffix('.zarr')}{form.suffix}"
            try:
                if (other := taken.setdefault(place.absolute(), path)) != path:
                    raise ExportError(
                        f"{path}: its export would have the name of that of {other}, {place}; "
                        "use another --output for it"
                    )
                written = _exported(path, place, to, form, settings, overwrite, watch)
            except WsiNormError as error:
                yield Outcome(path, place, "failed", str(error))
            except OSError as error:
                why = f"{place}: cannot write the export: {error.strerror or error}"
                yield Outcome(path, place, "failed", str(ExportError(why)))
            else:
                yield Outcome(path, place, "written" if written else "skipped")

    return outcomes()


def _settings(to: str, form: Format, given: dict[str, Any]) -> Any:
    known = [field.name for field in fields(form.options)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            those = ", ".join(known) or "none"
            raise ConfigError(f"the format {to} has no option {name} (its options: {those})")
    try:
        return form.options(**given)
    except ValueError as error:
        raise ConfigError(f"the format {to}: {error}") from error


def _exported(
    path: Path, place: Path, to: str, form: Format, settings: Any, overwrite: bool, watch: Watch
) -> bool:
    """Whether a store was exported now; else its export was there."""
    stamp = TileStore.stamp(path)
    store = _complete(path)
    content = store.meta.content_sha256 or store.identity
    said = {"format": to, "content_sha256": content, "options": asdict(settings)}
    origin = json.dumps(said, sort_keys=True)
    if location.exists(place) and not overwrite:
        if form.origin(place) == origin:
            return False
        raise _in_the_way(path, place)
    done, tiles = 0, len(store)

    def advance(number: int) -> None:
        nonlocal done
        done += number
        watch(path, done, tiles)

    advance(0)
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # somebody else writes there, or sweeps
        location.sweep_drafts(place)
    draft = location.draft_of(place)
    try:
        draft.mkdir()
        form.write(Job(store, settings, origin, advance), draft / place.name)
        if TileStore.stamp(path) != stamp:
            raise StoreError(f"{path}: written to during the export; export it again")
        if not location.publish(draft / place.name, place, replace=overwrite):
            raise _in_the_way(path, place)
    finally:
        with suppress(OSError):  # the next export sweeps it
            location.remove_tree(draft)
    return True


def _complete(path: Path) -> TileStore:
    """A store that lacks nothing; whether its tiles are damaged shows as they are read."""
    store = TileStore.open(path)
    if missing := store.missing_shards():
        raise StoreError(f"{path}: damaged: shards {missing} are missing or cut; {REMEDY}")
    if damage := store.damaged_beside():
        raise StoreError(f"{path}: damaged: {damage[0]}; {REMEDY}")
    return store


def _in_the_way(path: Path, place: Path) -> ExportError:
    return ExportError(
        f"{place}: is there, and not as the export of {path} with these options; use --overwrite, "
        "or another --output"
    )


def write_origin(folder: Path, origin: str) -> None:
    """Say the origin of an export that is a folder."""
    location.write_text(folder / ORIGIN, f"{origin}\n")


def read_origin(folder: Path) -> str | None:
    """What `write_origin` wrote."""
    try:
        return location.read_bytes(folder / ORIGIN).decode().strip()
    except (OSError, ValueError):
        return None
