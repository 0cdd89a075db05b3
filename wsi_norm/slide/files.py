"""The files of a slide, so that a slide that changes while it is read is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wsi_norm.errors import SlideError
from wsi_norm.location import Location, is_url
from wsi_norm.slide import dicom

BLOCK_BYTES = 1 << 14
BLOCKS = 64
"""Samples of a file: 1 MiB in all, spread over it."""

FEWEST_BLOCKS = 4
"""Of each file, where a slide has many."""

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class SlideFile:
    """One file as it was seen.

    Attributes
    ----------
    stamp
        Size, inode, and times of modification and change: a cheap look.
    blocks, sha256
        How many samples were taken, and their digest.
    """

    path: Path
    stamp: Stamp
    blocks: int
    sha256: str


@dataclass(frozen=True)
class SlideFiles:
    """All files of a slide as they were seen; none of one that lies at a URL.

    A slide of several files is DICOM, MIRAX, or Hamamatsu's VMS or VMU.
    """

    files: tuple[SlideFile, ...]

    @property
    def sha256(self) -> str | None:
        """Digest of their names, sizes and samples; None of a URL."""
        return _digest(self.files, [file.path.name for file in self.files])

    def sha256_as(self, name: str) -> str | None:
        """The digest that one file would have under another name."""
        return _digest(self.files, [name]) if len(self.files) == 1 else self.sha256

    def check(self, slide: Location) -> None:
        """SlideError if one of them is another by now; see `changed`."""
        if (file := self.changed()) is not None:
            which = "" if str(file) == str(slide) else f" ({file.name})"
            raise SlideError(
                f"{slide}: changed during the run{which}; its tiles so far are of the slide as "
                "it was. Let it be as it was and run the same command again, or run it with "
                "--overwrite"
            )

    def changed(self) -> Path | None:
        """The first file that is another by now; None: none is. One that is gone is for the reader.

        A file whose size is the same and whose stamp is not is sampled again: one that was only
        touched, or copied over by itself, is no other.

        Raises
        ------
        SlideError
            A file cannot be read any more.
        """
        for file in self.files:
            try:
                now = _stamp(file.path)
                same = now == file.stamp or (
                    now[0] == file.stamp[0] and _samples(file.path, now, file.blocks) == file.sha256
                )
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SlideError(
                    f"{file.path}: cannot be read any more: {error.strerror}; run the same command "
                    "again when it can"
                ) from error
            if not same:
                return file.path
        return None


def slide_files(slide: Location) -> SlideFiles:
    """Look at a slide's files; OSError if one cannot be read."""
    paths = [] if is_url(slide) else _files_of(slide)
    blocks = max(FEWEST_BLOCKS, BLOCKS // max(1, len(paths)))
    seen = []
    for path in paths:
        stamp = _stamp(path)
        seen.append(SlideFile(path, stamp, blocks, _samples(path, stamp, blocks)))
    return SlideFiles(tuple(seen))


def _digest(files: Sequence[SlideFile], names: Sequence[str]) -> str | None:
    if not files:
        return None
    said = [
        f"{name} {file.stamp[0]} {file.sha256}\n" for name, file in zip(names, files, strict=True)
    ]
    return hashlib.sha256("".join(said).encode(errors="surrogateescape")).hexdigest()


def _files_of(slide: Path) -> Sequence[Path]:
    if not (os.path.isfile(slide) or os.path.isdir(slide)):
        return []
    series = dicom.series_of(slide)
    if series is not None:
        folder = slide if os.path.isdir(slide) else slide.parent
        return dicom.contents(folder.iterdir()).slides.get(series, [])
    if not os.path.isfile(slide):
        return []
    suffix = slide.suffix.lower()
    beside: list[Path] = []
    if suffix == ".mrxs" and os.path.isdir(slide.with_suffix("")):
        beside = sorted(slide.with_suffix("").iterdir())
    elif suffix in {".vms", ".vmu"}:
        beside = sorted(path for path in slide.parent.iterdir() if path.name.startswith(slide.stem))
    return [slide, *(path for path in beside if path != slide and os.path.isfile(path))]


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(1 << 10)  # many shards ask for the same file
def _samples(path: Path, stamp: Stamp, blocks: int) -> str:
    """SHA-256 of blocks spread evenly over a file, its first and last bytes among them."""
    digest = hashlib.sha256()
    last = max(0, stamp[0] - BLOCK_BYTES)
    with path.open("rb", buffering=0) as stream:
        for at in sorted({last * index // (blocks - 1) for index in range(blocks)}):
            stream.seek(at)
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()
