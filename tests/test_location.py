"""Paths stay paths, URLs become UPaths; what is written is there whole or not at all."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from tests.builders import tree
from wsi_norm.location import (
    check_writable,
    clock_ns,
    draft_of,
    exists,
    free_bytes,
    listing,
    location,
    publish,
    read_bytes,
    read_tail,
    remove,
    remove_if_empty,
    remove_tree,
    size,
    stamp,
    sweep,
    sweep_drafts,
    write_text,
    write_whole,
)


def names(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


PIECES = st.lists(st.binary(max_size=40), max_size=6)


@pytest.mark.parametrize("name", ["a/b.svs", "/a b/ü.svs", "C:/x.svs", Path("a/b.svs")])
def test_paths(name: str | Path) -> None:
    assert location(name) == Path(name)
    assert isinstance(location(name), Path)


@pytest.mark.parametrize("url", ["memory://bucket/a.svs", "file:///a/b.svs"])
def test_urls(url: str) -> None:
    place = location(url)
    assert isinstance(place, UPath)
    assert not isinstance(place, Path)
    assert str(place) == url
    assert location(place) == place
    assert pickle.loads(pickle.dumps(place)) == place


# --- writing


@given(old=st.none() | st.binary(max_size=40), pieces=PIECES)
def test_what_is_written_is_read(old: bytes | None, pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "deep" / "er" / "name"
        if old is not None:
            write_whole(place, [old])
        assert write_whole(place, iter(pieces)) == place
        assert place.read_bytes() == read_bytes(place) == b"".join(pieces)
        assert names(place.parent) == ["name"]


@given(
    old=st.none() | st.binary(max_size=40),
    pieces=PIECES,
    kind=st.sampled_from([OSError, KeyboardInterrupt]),
)
def test_a_writer_that_fails_leaves_the_old_object_and_no_litter(
    old: bytes | None, pieces: list[bytes], kind: type[BaseException]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "name"
        if old is not None:
            place.write_bytes(old)

        def broken() -> Iterator[bytes]:
            yield from pieces
            assert (place.read_bytes() if old is not None else None) == old
            assert not (old is None and place.exists())
            raise kind

        with pytest.raises(kind):
            write_whole(place, broken())
        assert names(folder) == ([] if old is None else ["name"])
        assert old is None or place.read_bytes() == old


KILLED = """
import os, signal, sys
from pathlib import Path
from wsi_norm.location import write_whole

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def pieces(last):
    for number in range(3):
        if number == last:
            die()
        yield b"x" * 100_000

Path.replace = die
write_whole(Path(sys.argv[1]), pieces(int(sys.argv[2])))
"""


@pytest.mark.parametrize("last", [0, 2, -1], ids=["first piece", "midway", "before the rename"])
def test_a_kill_leaves_the_old_object_and_a_partial_file(tmp_path: Path, last: int) -> None:
    place = write_whole(tmp_path / "c" / "0", [b"old"])
    ended = subprocess.run([sys.executable, "-c", KILLED, str(place), str(last)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert place.read_bytes() == b"old"
    (litter,) = (path for path in place.parent.iterdir() if path != place)
    assert litter.match("0.*.partial")
    sweep(tmp_path)
    assert names(place.parent) == ["0"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_any_other_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        place = write_whole(tmp_path / "name", [b"x"])
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o666 & ~umask


def test_text_with_what_is_no_unicode(tmp_path: Path) -> None:
    place = write_text(tmp_path / "name", "ü\r\n\udcff")
    assert place.read_bytes() == b"\xc3\xbc\r\n\\udcff"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        write_whole(tmp_path / "file" / "name", [b"x"])
    with pytest.raises(OSError):
        check_writable(tmp_path / "file")
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_whether_a_folder_can_be_written_is_found_out_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no folder for temporary files, too."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


# --- reading


@given(data=st.binary(max_size=50), length=st.integers(0, 60))
def test_a_tail(data: bytes, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "name"
        place.write_bytes(data)
        assert read_tail(place, length) == (len(data), data[max(0, len(data) - length) :])
        assert size(place) == len(data)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for place in (tmp_path / "none", tmp_path / "none" / "either", tmp_path / "file" / "below"):
        assert not exists(place)
        assert size(place) == 0
        assert stamp(place) is None
        for read in (read_bytes, lambda place: read_tail(place, 4)):
            with pytest.raises(OSError):
                read(place)
    assert exists(tmp_path)
    assert exists(tmp_path / "file")
    assert not exists(tmp_path / ("n" * 300))


def test_a_stamp_changes_when_an_object_is_written_anew(tmp_path: Path) -> None:
    place = write_whole(tmp_path / "name", [b"same"])
    first = stamp(place)
    assert first == stamp(place)
    write_whole(place, [b"same"])
    assert stamp(place) not in {first, None}


def test_a_listing_is_sorted(tmp_path: Path) -> None:
    for name in ("b.zarr", "a.zarr", "c.zarr.txt", "deep/d.zarr"):
        write_whole(tmp_path / name, [])
    assert listing(tmp_path, "*.zarr") == [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    assert listing(tmp_path / "none", "*") == []


def test_free_space_is_that_of_the_folder_to_be_made(tmp_path: Path) -> None:
    """Another process may write meanwhile: to a hundredth of the disk."""
    disk = shutil.disk_usage(tmp_path)
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        assert free_bytes(folder) == pytest.approx(disk.free, abs=disk.total / 100)


# --- removing and renaming


def test_removing_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    place = write_whole(tmp_path / "deep" / "er" / "name", [b"x"])
    remove(place)
    remove(place)
    assert not place.exists()
    remove_tree(tmp_path / "deep")
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_folder_goes(tmp_path: Path) -> None:
    place = write_whole(tmp_path / "folder" / "name", [b"x"])
    remove_if_empty(tmp_path / "folder")
    assert place.exists()
    remove(place)
    remove_if_empty(tmp_path / "folder")
    remove_if_empty(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", [False, True])
def test_a_draft_gets_its_name(tmp_path: Path, old: bool) -> None:
    if old:
        write_whole(tmp_path / "store" / "old", [b"x"])
    write_whole(tmp_path / ".draft" / "new", [b"x"])
    publish(tmp_path / ".draft", tmp_path / "store")
    assert names(tmp_path) == ["store"]
    assert names(tmp_path / "store") == ["new"]


@pytest.mark.parametrize("of_file", [False, True])
@pytest.mark.parametrize("over_file", [False, True])
def test_files_and_folders_get_names_of_each_other(
    tmp_path: Path, of_file: bool, over_file: bool
) -> None:
    for place, is_file in ((tmp_path / ".draft", of_file), (tmp_path / "name", over_file)):
        write_whole(place if is_file else place / "in", [place.name.encode()])
    name = tmp_path / "name"
    before = tree(tmp_path)
    assert not publish(tmp_path / ".draft", name, replace=False)
    assert tree(tmp_path) == before
    assert publish(tmp_path / ".draft", name)
    assert (name if of_file else name / "in").read_bytes() == b".draft"
    assert names(tmp_path) == ["name"]
    remove_tree(name)
    assert names(tmp_path) == []


def test_a_draft_leaves_a_folder_that_is_to_be_kept(tmp_path: Path) -> None:
    folder, draft = tmp_path / "store [1]", draft_of(tmp_path / "store [1]")
    assert draft.name.startswith(".")
    assert draft != draft_of(folder)
    for place in (folder / "old", draft / "new", tmp_path / ".store 1.x.draft" / "mine"):
        write_whole(place, [b"x"])
    assert not publish(draft, folder, replace=False)
    assert names(folder) == ["old"]
    sweep_drafts(folder)
    assert names(tmp_path) == [".store 1.x.draft", "store [1]"]


def test_a_draft_of_the_longest_name(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 250 + ".zarr")
    write_whole(draft_of(folder) / "new", [b"x"])
    sweep_drafts(folder)
    assert names(tmp_path) == []


def test_what_is_not_to_appear_does_not(tmp_path: Path) -> None:
    place = write_whole(tmp_path / "name", [b"old"])

    def refuse() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_whole(place, [b"new"], refuse)
    assert names(tmp_path) == ["name"]
    assert place.read_bytes() == b"old"


def test_the_clock_of_a_folder_goes_on(tmp_path: Path) -> None:
    began = clock_ns(tmp_path)
    assert names(tmp_path) == []
    assert began <= write_whole(tmp_path / "name", []).stat().st_mtime_ns


def test_litter_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in ("0", "deep/0.ab.partial", "1.partial", "partial", "deep/x.partial.txt"):
        write_whole(tmp_path / name, [b"x"])
    sweep(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"0", "partial", "deep/x.partial.txt"}
