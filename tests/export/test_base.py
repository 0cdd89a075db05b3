"""What holds for every format: whole or not at all, never over something else."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders import exit_status, refusal, tree, written_store
from tests.export.conftest import Made
from wsi_norm import location
from wsi_norm.choices import EXPORTS
from wsi_norm.export import Outcome, export
from wsi_norm.export.base import Format, Job, read_origin, write_origin

REAL = [name for name in EXPORTS if name != "lines"]


@dataclass(frozen=True)
class Options:
    mark: str = "-"

    def __post_init__(self) -> None:
        if len(self.mark) != 1:
            raise ValueError("mark is one character")


def write_lines(job: Job, draft: Path) -> None:
    draft.mkdir()
    (draft.parent / "scratch").write_text("on the way")
    for index, tile in enumerate(job.store):
        (draft / f"{index}.txt").write_text(job.options.mark * int(tile.mean()))
        job.advance(1)
    write_origin(draft, job.origin)


@pytest.fixture(autouse=True)
def lines() -> Iterator[None]:
    """A format of the tests: a folder of text files."""
    EXPORTS.add("lines", Format("_lines", write_lines, read_origin, Options))
    yield
    EXPORTS.remove("lines")


def exported(*stores: Path, to: str = "lines", **how: Any) -> list[Outcome]:
    return list(export(stores, to, **how))


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_each_store_beside_itself_or_in_a_folder(make: Made, tmp_path: Path) -> None:
    first, second = make("first").path, make("second", seed=1).path
    seen: list[tuple[Path, int, int]] = []
    outcomes = exported(first, second, watch=lambda *event: seen.append(event))
    assert [outcome.place for outcome in outcomes] == [
        tmp_path / "first_lines",
        tmp_path / "second_lines",
    ]
    tiles = len(list((tmp_path / "first_lines").glob("*.txt")))
    assert [event for event in seen if event[0] == first] == [
        (first, done, tiles) for done in range(tiles + 1)
    ]
    (other,) = exported(first, output=tmp_path / "new" / "folder")
    assert tree(other.place) == tree(tmp_path / "first_lines")
    assert [path.name for path in other.place.parent.iterdir()] == ["first_lines"]


def test_an_export_of_the_same_content_and_options_is_skipped(make: Made) -> None:
    store = make().path
    (outcome,) = exported(store)
    before = location.stamp(outcome.place / "0.txt")
    assert statuses(exported(store)) == ["skipped"]
    assert statuses(exported(store, mark="-")) == ["skipped"]
    assert location.stamp(outcome.place / "0.txt") == before
    assert statuses(exported(store, overwrite=True)) == ["written"]
    assert location.stamp(outcome.place / "0.txt") != before


def test_nothing_is_written_over_silently(make: Made, tmp_path: Path) -> None:
    store = make().path
    exported(store, output=tmp_path / "out")
    whole = tree(tmp_path / "out")
    (other,) = exported(store, output=tmp_path / "out", mark="+")
    assert other.status == "failed"
    assert "use --overwrite" in other.error
    make(seed=1)  # the store of the name is another one
    assert statuses(exported(store, output=tmp_path / "out")) == ["failed"]
    assert tree(tmp_path / "out") == whole
    assert statuses(exported(store, output=tmp_path / "out", mark="+", overwrite=True)) == [
        "written"
    ]
    assert tree(tmp_path / "out") != whole


@pytest.mark.parametrize("to", REAL)
def test_what_is_no_export_keeps_its_name(make: Made, tmp_path: Path, to: str) -> None:
    store = make().path
    place = tmp_path / f"case{EXPORTS[to].suffix}"
    for content in (b"", b"somebody's", b"II*\0" + bytes(100)):
        place.write_bytes(content)
        (outcome,) = exported(store, to=to)
        assert outcome.status == "failed"
        assert str(place) in outcome.error
        assert place.read_bytes() == content
    place.unlink()
    place.mkdir()
    (place / "mine").touch()
    assert statuses(exported(store, to=to)) == ["failed"]
    assert [file.name for file in place.iterdir()] == ["mine"]
    assert statuses(exported(store, to=to, overwrite=True)) == ["written"]
    assert statuses(exported(store, to=to)) == ["skipped"]


@pytest.mark.parametrize("to", REAL)
def test_equal_stores_give_equal_bytes(make: Made, tmp_path: Path, to: str) -> None:
    store = make().path
    for name in ("a", "b"):
        (outcome,) = exported(store, to=to, output=tmp_path / name)
        assert outcome.status == "written", outcome.error
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert first == second
    assert first


@pytest.mark.parametrize("to", REAL)
def test_a_store_without_tiles(make: Made, tmp_path: Path, to: str) -> None:
    (outcome,) = exported(make(share=0).path, to=to)
    assert outcome.status == "written", outcome.error


@pytest.mark.parametrize("to", REAL)
def test_a_disk_that_is_full_leaves_nothing(
    make: Made, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last write fails: what is under the name is whole, or is not there."""
    store = make().path

    def full(draft: Path, place: Path, replace: bool = True) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(location, "publish", full)
    (outcome,) = exported(store, to=to, output=tmp_path / "out")
    assert outcome.status == "failed"
    assert outcome.error == f"{outcome.place}: cannot write the export: No space left on device"
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_goes(make: Made, tmp_path: Path) -> None:
    store = make().path
    litter = location.draft_of(tmp_path / "case_lines")
    litter.mkdir()
    (litter / "half").touch()
    exported(store)
    assert not list(tmp_path.glob(".*.draft"))


def test_stores_that_are_not_whole_fail_alone(make: Made, tmp_path: Path) -> None:
    good, cut, lost, flipped = (make(name).path for name in ("good", "cut", "lost", "flipped"))
    written_store(tmp_path / "unfinished.zarr", 9, finish=False)
    (lost / "tiles/c/1/0/0/0").unlink()
    (cut / "coords/c/0/0").unlink()
    shard = flipped / "tiles/c/2/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    (tmp_path / "foreign.zarr").mkdir()
    bad = [cut, tmp_path / "unfinished.zarr", lost, flipped, tmp_path / "foreign.zarr"]
    outcomes = exported(*bad, tmp_path / "nothing.zarr", good, output=tmp_path / "out")
    assert statuses(outcomes) == ["failed"] * 6 + ["written"]
    for outcome in outcomes[:-1]:
        assert outcome.error.startswith(str(outcome.store))
        assert "\n" not in outcome.error
    assert "shards [1]" in outcomes[2].error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good_lines"]


def test_two_stores_of_one_name(make: Made, tmp_path: Path) -> None:
    store = make().path
    other = tmp_path / "other" / "case.zarr"
    other.parent.mkdir()
    make(seed=1).path.rename(other)
    make()
    outcomes = exported(store, other, store, output=tmp_path / "out")
    assert statuses(outcomes) == ["written", "failed"]
    assert str(store) in outcomes[1].error


def test_a_store_that_changes_meanwhile_is_not_exported(make: Made, tmp_path: Path) -> None:
    store = make()

    def change(path: Path, done: int, tiles: int) -> None:
        if done == 1:
            store.reopen()
            store.finish()

    (outcome,) = exported(store.path, watch=change, output=tmp_path / "out")
    assert outcome.status == "failed"
    assert "written to during the export" in outcome.error
    assert list((tmp_path / "out").iterdir()) == []


def test_options_of_another_format_are_refused(make: Made) -> None:
    store = make().path
    assert "no option quality" in refusal(exported, store, quality=3)
    assert "mark is one character" in refusal(exported, store, mark="--")
    assert "none of ome-tiff, " in refusal(exported, store, to="gif")


def test_command(make: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("first")
    make("second")
    written_store(tmp_path / "third.zarr", 5, finish=False)
    assert exit_status("export", tmp_path, "--to", "jpeg", "--quality", 80, "-o", tmp_path) == 1
    said = capsys.readouterr()
    assert [line.split(": ")[1] for line in said.out.splitlines()] == [
        f"{tmp_path}/first_jpeg",
        f"{tmp_path}/second_jpeg",
    ]
    assert said.err.startswith(f"error: {tmp_path}/third.zarr: incomplete")
    assert said.err.count("\n") == 1
    first = tmp_path / "first.zarr"
    assert exit_status("export", first, "--to", "jpeg", "--quality", 80) == 0
    assert capsys.readouterr().out == f"{first}: {tmp_path}/first_jpeg (there already)\n"
    assert exit_status("export", first, "--to", "png", "--quality", 80) == 2
    assert exit_status("export", first, "--to", "gif") == 2
    assert exit_status("export", first, "--to", "png", "-q") == 0
    said = capsys.readouterr()
    assert said.out == ""
    origin = json.loads((tmp_path / "first_jpeg" / "wsi_norm.json").read_text())
    assert (origin["format"], origin["options"]) == ("jpeg", {"quality": 80})
