"""Which slides a run is about: from files, folders, patterns or a table."""

from __future__ import annotations

import glob
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_norm.errors import ConfigError
from wsi_norm.location import Location, is_url, location
from wsi_norm.slide import dicom
from wsi_norm.slide.reach import ANSWER_SECONDS, silent
from wsi_norm.slide.readers.image import SUFFIXES as IMAGE_SUFFIXES
from wsi_norm.tables import Row, Table, misspelt, read_table

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".zvi"}
)
"""What is taken for a slide when a folder is searched; a file named by itself may be anything."""

_OF_SYSTEMS = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})
LISTED = 3
"""DICOM objects of a folder that are named when they are passed over."""

_COLUMNS = {
    "wsi": "path",
    "image_path": "path",
    "mpp": "mpp",
    "spacing_at_level_0": "mpp",
    "mask_path": "mask",
    "roi_path": "roi",
    "name": "name",
}
"""Columns of a table of slides, and what they hold."""

_PATHS = frozenset({"path", "mask", "roi"})

_NOTHING = frozenset({"", "-", "na", "n/a", "#n/a", "nan", "none", "null"})
"""What people and programs write into a cell of a table of slides to leave it empty."""


@dataclass(frozen=True)
class SlideSource:
    """One slide of a run, as the user named it.

    Attributes
    ----------
    path
        File, DICOM folder or URL.
    name
        Of its store, `<name>.zarr`: the file's name without suffix unless the table gives one.
    mpp_um, mask, roi
        What the table says of it: level-0 um/px, a tissue mask image, a GeoJSON file.
    silent
        What of it does not answer, so that nobody should touch it: a path on a mount that is gone.
    """

    path: Location
    name: str
    mpp_um: float | None = None
    mask: Path | None = None
    roi: Path | None = None
    silent: Path | None = None


def find_slides(
    names: Iterable[str],
    table: Path | None = None,
    recursive: bool = False,
    passed_over: Callable[[str], None] = lambda line: None,
) -> list[SlideSource]:
    """The slides that files, folders, glob patterns and a table stand for, each once.

    A file that does not exist is kept: it fails by itself, the others go on. So is what does not
    answer within `ANSWER_SECONDS`: it is `silent`, and not touched. A DICOM slide is its
    series, whichever of its files are named. `passed_over` is told, a line per folder, of DICOM
    objects that are no slides, such as reports and annotations.

    Raises
    ------
    ConfigError
        Nothing is found, or the table cannot be read.
    """
    names = list(names)
    dead = silent(Path(name) for name in [*names, table] if name is not None)
    if table in dead:
        raise ConfigError(f"{table}: does not answer within {ANSWER_SECONDS:g} s (a dead mount?)")
    rows = _read_table(table) if table is not None else []
    said: dict[str, None] = {}  # a folder that is named twice says it once
    alive = [name for name in names if Path(name) not in dead]
    paths = [path for name in alive for path in _expand(name, recursive, dead, said.setdefault)]
    found = {str(path): SlideSource(path, path.stem, silent=path) for path in sorted(dead)}
    for path in _dicom_once(paths, said.setdefault):
        found.setdefault(_identity(path), _source(path))
    for row in rows:  # what a table says of a slide rules over its bare name
        found.pop(str(row.path) if row.silent else _identity(row.path), None)
    sources = [*found.values(), *_rows_once(rows)]
    if not sources:
        beside = f" ({'; '.join(said)})" if said else ""
        raise ConfigError(
            f"no slides{beside}: name slide files, a folder that holds some, or --slides-csv"
        )
    for line in said:
        passed_over(line)
    return sources


def same_names(sources: Iterable[SlideSource]) -> set[str]:
    """Store names that more than one slide would write to (case ignored, as some disks do)."""
    counts = Counter(source.name.casefold() for source in sources)
    return {name for name, count in counts.items() if count > 1}


def _identity(path: Location) -> str:
    """The same for every name of a slide: where it lies, and of DICOM also its series."""
    if is_url(path):
        return str(path)
    series = dicom.series_of(path)
    if series is None:
        return os.path.abspath(path)
    folder = path if os.path.isdir(path) else path.parent
    return f"{os.path.abspath(folder)}: {series}"


def _source(path: Location) -> SlideSource:
    return SlideSource(path, _default_name(path))


def _default_name(path: Location) -> str:
    """A folder's name; a file's without its suffix, which is not the end of a DICOM UID."""
    if not is_url(path) and os.path.isdir(path):
        return path.name
    return path.name if path.suffix[1:].isdecimal() else path.stem


def _rows_once(rows: Iterable[SlideSource]) -> list[SlideSource]:
    """Rows of a table, each DICOM slide once, unless its rows differ in what they say of it."""
    once: dict[object, SlideSource] = {}
    for number, row in enumerate(rows):
        if row.silent is not None:
            once[number] = row
            continue
        series = None if is_url(row.path) else dicom.series_of(row.path)
        bare = series is not None and row.name == _default_name(row.path)
        said = _identity(row.path), row.mpp_um, row.mask, row.roi
        once.setdefault(said if bare else number, row)
    return list(once.values())


def _expand(
    name: str, recursive: bool, dead: set[Path], passed_over: Callable[[str], None]
) -> Sequence[Location]:
    """What a name stands for; what it leads to and does not answer goes to the `dead`."""
    if not name.strip():
        raise ConfigError("an empty name among the slides (an unset variable?); name a slide")
    path = location(name)
    if is_url(path):
        return [path]
    if os.path.isdir(path):
        return _slides_in(path, recursive, dead, passed_over)
    if not os.path.exists(path) and glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        gone = silent(matches)
        dead |= gone
        alive = [match for match in matches if match not in gone]
        slides = [slide for match in alive for slide in _matched(match, passed_over)]
        if not (slides or gone):
            raise ConfigError(f"no file matches {name}")
        return slides
    return [path]


def _matched(match: Path, passed_over: Callable[[str], None]) -> Sequence[Path]:
    """What a file or folder that matched a pattern can have been meant as."""
    if not match.is_dir():
        return [match]
    slides = _dicom_slides(list(match.iterdir()), passed_over)
    return slides or ([match] if match.suffix.lower() in SLIDE_SUFFIXES else [])


def _slides_in(
    folder: Path, recursive: bool, dead: set[Path], passed_over: Callable[[str], None]
) -> Sequence[Location]:
    """Slides of a folder, and of those below: without `recursive`, DICOM right below alone."""
    gone = silent(Path(entry.path) for entry in os.scandir(folder) if _will_be_touched(entry))
    slides = {path for path in gone if recursive or path.suffix.lower() in SLIDE_SUFFIXES}
    dead |= slides
    said = [f"{path}: passed over: it does not answer" for path in sorted(gone - slides)]
    near = [path for path in folder.iterdir() if path not in gone]
    files = [*near, *(deeper for path in near for deeper in _below(path, recursive))]
    found = [p for p in files if (recursive or p.parent == folder) and _is_slide_file(p)]
    for inside in _by_folder(files).values():
        found += _dicom_slides(inside, said.append)
    for line in said:
        passed_over(line)
    if found or slides:
        return sorted(found)
    return _images_in(folder, files if recursive else near, recursive, said)


def _will_be_touched(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a slide by its name, or may lead to another mount."""
    path = Path(entry.path)
    known = path.suffix.lower() in SLIDE_SUFFIXES or dicom.may_be_dicom(path)
    return known or entry.is_symlink() or entry.is_dir(follow_symlinks=False)


def _below(path: Path, recursive: bool) -> Iterable[Path]:
    """What is in a folder, and deeper with `recursive`, which follows no links."""
    if not path.is_dir() or (recursive and path.is_symlink()):
        return ()
    return path.rglob("*") if recursive else path.glob("*")


def _is_slide_file(path: Path) -> bool:
    return (
        path.suffix.lower() in SLIDE_SUFFIXES
        and path.is_file()
        and not path.name.startswith("._")  # macOS's notes beside files on foreign disks
    )


def _by_folder(files: Iterable[Path]) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    return folders


def _images_in(
    folder: Path, inside: Iterable[Path], recursive: bool, said: Sequence[str]
) -> Sequence[Location]:
    """The plain images of a folder that holds nothing else: fields, each of them a slide."""
    paths = [path for path in sorted(inside) if not _is_hidden(path.relative_to(folder))]
    files = [path for path in paths if path.is_file()]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if images and len(images) == len(files if recursive else paths):
        return images
    if images:
        commonest, _ = Counter(path.suffix for path in images).most_common(1)[0]
        pattern = folder / f"{'**/' * recursive}*{commonest}"
        raise ConfigError(
            f"{folder}: no slides in this folder; images that lie beside other things are slides "
            f"if they are named: '{pattern}'"
        )
    kinds = Counter(path.suffix.lower() or "without suffix" for path in files).most_common(5)
    held = ", ".join(f"{count} {kind}" for kind, count in kinds) or "no files"
    held = "; ".join([held, *said])
    deeper = "" if recursive else "; add --recursive to search its subfolders"
    raise ConfigError(f"{folder}: no slides in this folder ({held}){deeper}")


def _is_hidden(path: Path) -> bool:
    """Whether a name on the way begins with a dot, or is one of a system's own."""
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in path.parts)


def _dicom_slides(inside: Sequence[Path], passed_over: Callable[[str], None]) -> list[Path]:
    """DICOM slides among all files of a folder: the folder if it is one, else a file of each.

    Files that say they are DICOM and are not readable are among them, to fail by themselves.
    """
    found = dicom.contents(inside)
    _tell(found, passed_over)
    files = [instances[0] for instances in found.slides.values()]
    if any(_is_slide_file(path) for path in inside) or len(files) > 1:
        return files + found.broken
    if files:
        return [files[0].parent, *found.broken]
    return [path.parent for path in found.broken[:1]]


def _dicom_once(
    paths: Sequence[Location], passed_over: Callable[[str], None]
) -> Iterator[Location]:
    """Paths with one file for those of a DICOM slide, and without other DICOM objects."""
    files = [path for path in paths if not is_url(path) and dicom.may_be_dicom(path)]
    first: dict[Path, Path | None] = {}
    for inside in _by_folder(files).values():
        found = dicom.contents(inside)
        _tell(found, passed_over)
        first.update(dict.fromkeys(found.others))
        for instances in found.slides.values():
            first.update(dict.fromkeys(instances, instances[0]))
    for path in paths:
        slide = path if is_url(path) else first.get(path, path)
        if slide is not None:
            yield slide


def _tell(found: dicom.Contents, passed_over: Callable[[str], None]) -> None:
    if not found.others:
        return
    listed = [f"{path.name} ({kind})" for path, kind in found.others.items()]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    folder = next(iter(found.others)).parent
    passed_over(f"{folder}: passed over, no whole slides: {', '.join(listed[:LISTED])}{more}")


def _read_table(path: Path) -> list[SlideSource]:
    table = read_table(path, "a header with a column 'wsi' (or 'image_path'), then a row per slide")
    columns = _known_columns(table)
    rows = [_Fields.of(path, columns, row) for row in table.rows]
    dead = silent(place for row in rows for place in row.places())
    return [row.source(dead) for row in rows]


def _known_columns(table: Table) -> dict[str, str]:
    """What a column is for, to its name in the table; other columns are people's own notes."""
    found: dict[str, str] = {}
    for column in table.columns:
        role = _COLUMNS.get(column.lower())
        if role is not None and found.setdefault(role, column) != column:
            raise ConfigError(
                f"{table.path}: the columns {found[role]!r} and {column!r} say the same; "
                "leave one of them out"
            )
    lacking = [name for name, role in _COLUMNS.items() if role not in found]
    for column in table.columns:
        if column.lower() not in _COLUMNS and (meant := misspelt(column.lower(), lacking)):
            raise ConfigError(
                f"{table.path}: unknown column {column!r}; did you mean {meant!r}? Rename it"
            )
    if "path" not in found:
        raise ConfigError(
            f"{table.path}: expected a column 'wsi' (or 'image_path'), but its first line names "
            f"{', '.join(map(repr, table.columns))}"
        )
    return found


@dataclass(frozen=True)
class _Fields:
    """A row of a table of slides: where it stands, and its cells by what they hold."""

    table: Path
    where: str
    cells: Mapping[str, str]

    @classmethod
    def of(cls, table: Path, columns: Mapping[str, str], row: Row) -> _Fields:
        """Cells that are not empty."""
        cells = {
            role: row.fields[column]
            for role, column in columns.items()
            if row.fields[column].casefold() not in _NOTHING
        }
        if "path" not in cells:
            raise ConfigError(f"{table}: {row.where} names no slide")
        return cls(table, row.where, cells)

    def places(self) -> Iterator[Path]:
        """All that the row may mean: files that it names, as they stand and beside the table."""
        for role in _PATHS.intersection(self.cells):
            yield Path(self.cells[role])
            yield self.table.parent / self.cells[role]

    def source(self, dead: Set[Path]) -> SlideSource:
        """The slide; of what does not answer nothing is touched."""
        lost = next((place for place in self.places() if place in dead), None)
        if lost is None:
            source = _source(location(self._beside("path")))
        else:
            path = Path(self.cells["path"])
            source = SlideSource(path, path.stem, silent=lost)
        name = self.cells.get("name", source.name)
        if Path(name).name != name:
            raise ConfigError(f"{self.table}: {self.where}: the name {name!r} must not be a path")
        source = replace(source, name=name)
        if "mpp" in self.cells:
            source = replace(source, mpp_um=_number(self.table, self.where, self.cells["mpp"]))
        if lost is None:
            found = {
                role: Path(self._beside(role)) for role in ("mask", "roi") if role in self.cells
            }
            source = replace(source, **found)  # type: ignore[arg-type]
        return source

    def _beside(self, role: str) -> str:
        """A path of the table: as it stands, else relative to the table's folder."""
        name = self.cells[role]
        beside = self.table.parent / name
        return str(beside) if not os.path.exists(name) and os.path.exists(beside) else name


def _number(table: Path, where: str, text: str) -> float:
    try:
        number = float(text.replace(",", "."))  # a decimal comma, as half of Europe writes it
    except ValueError as error:
        raise ConfigError(f"{table}: {where}: mpp {text!r} is not a number") from error
    if not 0 < number < math.inf:
        raise ConfigError(f"{table}: {where}: mpp {text!r} is no size of a pixel, in um")
    return number
