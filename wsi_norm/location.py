"""Where a file is: a path of this machine, or a URL that fsspec can open; and what is done there.

Stores and reports touch their place through these functions alone, so that a place of another kind
is a change here. So far only paths are written to; slides are read from URLs, too.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from wsi_norm.errors import ConfigError

if TYPE_CHECKING:  # it brings fsspec, which paths of this machine do without
    from typing_extensions import TypeIs
    from upath import UPath

Location: TypeAlias = "Path | UPath"

Stamp = tuple[int, int, int]


def location(name: str | Location | os.PathLike[str]) -> Location:
    """A URL (`s3://...`, `https://...`) as a UPath, anything else as a Path.

    Raises
    ------
    ConfigError
        The URL's protocol is none that fsspec knows, or it is no name of a file.
    """
    text = str(name)
    if "\0" in text:
        raise ConfigError(f"{text}: no name of a file: it holds a byte of 0")
    if "://" not in text:
        return Path(text)
    from upath import UPath

    try:
        place = UPath(text)
        str(place)  # which parses it
        return place
    except ValueError as error:
        raise ConfigError(f"{text}: {error}; check the part before '://'") from error


def is_url(place: Location) -> TypeIs[UPath]:
    """Whether a place is a URL, and no path of this machine."""
    upath = sys.modules.get("upath")
    return upath is not None and isinstance(place, upath.UPath)


# What follows raises OSError and nothing else where a place does not do what is asked of it.


def exists(place: Path) -> bool:
    """Whether an object or a folder is there."""
    return os.path.exists(place)


def size(place: Path) -> int:
    """Bytes of an object; 0 where there is none."""
    try:
        return place.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def sizes(folder: Path, names: Iterable[str]) -> list[int]:
    """Bytes of objects below a folder; 0 where there is none."""
    found = []
    for name in names:
        try:
            found.append(os.stat(f"{folder}/{name}").st_size)  # noqa: PTH116 # a Path takes thrice
        except (FileNotFoundError, NotADirectoryError):
            found.append(0)
    return found


def names(folder: Path) -> set[str]:
    """Names of what is in a folder; none where there is none."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208 # a Path for each takes ten times as long
    except (FileNotFoundError, NotADirectoryError):
        return set()


def stamp(place: Path) -> Stamp | None:
    """What changes when an object is written anew; None where there is none."""
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def read_bytes(place: Path) -> bytes:
    """A whole object."""
    return place.read_bytes()


def read_bounded(place: Path, most: int) -> bytes:
    """A whole file, after `check_file`."""
    check_file(place, most)
    with place.open("rb") as stream:
        return stream.read(most)


def check_file(place: Path, most: float = math.inf) -> None:
    """OSError for more than `most` bytes, and for a pipe or a device, which may never end."""
    status = place.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(place))
    if status.st_size > most:
        size = f"larger than {most / (1 << 20):g} MiB, the most it may be"
        raise OSError(errno.EFBIG, size, str(place))


def read_tail(place: Path, length: int) -> tuple[int, bytes]:
    """The size of an object, and its last `length` bytes (all of them, if it has fewer)."""
    with place.open("rb") as stream:
        whole = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, whole - length))
        return whole, stream.read()


def read_parts(
    place: Path, length: int, parts: Callable[[int, bytes], Iterable[tuple[int, int]]]
) -> Iterator[bytes]:
    """Pieces of an object: each (offset, bytes) of `parts`, which sees its size and its tail."""
    with place.open("rb", buffering=0) as stream:
        whole = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, whole - length))
        for offset, size in parts(whole, stream.read(length)):
            stream.seek(offset)
            yield stream.read(size)


def write_whole(
    place: Path, pieces: Iterable[Any], before: Callable[[], None] = lambda: None
) -> Path:
    """Write an object that appears under its name only when whole, with its folder.

    Whatever happens, an older object of that name stays until then. Nothing is synced to disk by
    force. A writer that is killed leaves a `*.partial` file, which `sweep` removes. `before` is
    called when all is written; if it raises, nothing appears.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f"{place.name}.{uuid4().hex}.partial")
    try:
        with draft.open("xb") as stream:
            stream.writelines(pieces)
        before()
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return place


def write_text(place: Path, text: str) -> Path:
    """As `write_whole`, in UTF-8; of a file name that is not, its bytes are shown escaped."""
    return write_whole(place, [text.encode("utf-8", errors="backslashreplace")])


def listing(folder: Path, pattern: str) -> list[Path]:
    """What in a folder has a name like the pattern, sorted."""
    return sorted(folder.glob(pattern))


def files_below(folder: Path) -> list[Path]:
    """All objects in a folder and below; none where there is none."""
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]


def remove(place: Path) -> None:
    """Remove an object, if it is there."""
    place.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, or an object, if it is there."""
    if os.path.isfile(folder):
        remove(folder)
    elif exists(folder):
        with suppress(FileNotFoundError):  # another process removes it, too
            shutil.rmtree(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, if it is there and nothing is in it."""
    if exists(folder) and not any(folder.iterdir()):
        folder.rmdir()


def draft_of(folder: Path) -> Path:
    """A hidden place beside a folder in which to make it; nobody else's."""
    return folder.with_name(f".{_short(folder.name)}.{uuid4().hex}.draft")


def _short(name: str) -> str:
    """For a name that may be as long as names can be."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def publish(draft: Path, folder: Path, replace: bool = True) -> bool:
    """Give a finished folder, or an object, its name; whether it got it.

    What had the name goes, or with `replace=False` keeps it: then, and only then, False.
    """
    while True:
        if not replace and exists(folder):  # an object would go without an error
            return False
        try:
            draft.rename(folder)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
                raise
        else:
            return True
        if not replace:
            return False
        with suppress(FileNotFoundError):  # somebody else was faster to take it away
            old = draft_of(folder)
            folder.rename(old)  # at once: nobody finds half a folder
            remove_tree(old)


def sweep_drafts(folder: Path) -> None:
    """Remove drafts of a folder that killed writers left behind."""
    for litter in folder.parent.glob(f".{_short(folder.name)}.*.draft"):
        remove_tree(litter)


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind, in all folders below."""
    for litter in folder.rglob("*.partial"):
        remove(litter)


def check_writable(folder: Path) -> None:
    """Make a folder, and find out whether objects can be made in it; OSError if not."""
    remove(write_whole(folder / f".{uuid4().hex}", []))


def clock_ns(folder: Path) -> int:
    """What a folder's disk takes for the time now, ns: to be compared with times of its files."""
    probe = write_whole(folder / f".{uuid4().hex}", [])
    try:
        return probe.stat().st_mtime_ns
    finally:
        remove(probe)


def free_bytes(folder: Path) -> int:
    """Bytes that can be written there; the folder need not exist yet."""
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if exists(place))
    return shutil.disk_usage(there).free
