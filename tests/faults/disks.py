"""Outputs that are full, read-only, gone or somebody else's during a run."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from tests.faults.commands import Command, complaint, wait_for
from tests.faults.outcomes import Outcome
from tests.faults.truth import Go, shards_in

MIB = 1 << 20
LINES = 4
"""Of errors at most: one a slide, one of the report, one of the run."""

Change = Callable[[Path], None]
Place = AbstractContextManager[None]


def campaign(go: Go) -> Iterator[Outcome]:
    faults: dict[str, tuple[Change, Change, Callable[[Path], Place]]] = {
        "output deleted during the run": (delete, nothing, ordinary),
        "output replaced by a file during the run": (to_file, Path.unlink, ordinary),
        "store deleted during the run": (delete_stores, nothing, ordinary),
        "disk full during the run": (fill, unfill, small_disk),
        "disk read-only during the run": (read_only, writable, small_disk),
    }
    if go.quick:
        faults = {name: faults[name] for name in ("output deleted during the run",)}
    for _ in range(go.times(3, 1)):
        for fault, (change, undo, place) in faults.items():
            yield from disturbed(go, fault, change, undo, place)
        if not go.quick:
            yield size_limited(go)
    if not go.quick:
        yield stdout_full(go)
        yield report_in_the_way(go)


def disturbed(
    go: Go, fault: str, change: Change, undo: Change, place: Callable[[Path], Place]
) -> Iterator[Outcome]:
    """A run whose output changes after its second shard; then the run that puts it right."""
    output = go.place("disk")
    try:
        with place(output):
            with go.run(output, "-n", go.times(2, 0)) as command:
                if not command.wait_for(lambda: shards_in(output) > 1):
                    yield Outcome(fault, False, why=f"no shard: {command.lines}")
                    return
                change(output)
                failed = failure(command)
            undo(output)
            yield replace(failed or go.ended(output), fault=fault)
    except PermissionError:  # no right to mount: what cannot be tried is not counted
        return


def failure(command: Command, lines: int = LINES) -> Outcome | None:
    """What is wrong with the end of a run that cannot write: 1 and some lines are right."""
    status = command.status()
    if status is None:
        return Outcome("", False, hang=True, why=f"it does not end: {command.lines}")
    said = " / ".join(command.lines)
    wrong = complaint(command.lines, lines) or ("" if command.lines else "not a word")
    if status != 1:
        wrong = f"exit status {status}: {said}"
    if "are written" in said:
        wrong = f"it says that stores are written: {said}"
    return Outcome("", False, silent=status == 0, why=wrong) if wrong else None


def size_limited(go: Go) -> Outcome:
    """No file may grow beyond 1 MiB, as under a quota: no shard can be written."""
    fault, output = "files limited to 1 MiB (as a quota)", go.place("disk")
    with go.run(output, "-n", 0, limits={resource.RLIMIT_FSIZE: MIB}) as command:
        failed = failure(command)
    return replace(failed or go.ended(output), fault=fault)


def stdout_full(go: Go) -> Outcome:
    """Nobody can read the summary; the stores are done all the same."""
    fault, output = "standard output full (/dev/full)", go.place("disk")
    with go.run(output, "-n", 0, stdout=Path("/dev/full")) as command:
        status = command.status()
    end = go.ended(output)
    why = end.why or ("" if status == 0 else f"exit status {status}: {command.lines}")
    return replace(end, fault=fault, survived=end.survived and status == 0, why=why)


def report_in_the_way(go: Go) -> Outcome:
    """The report cannot be written: this is said, with exit status 1; the stores are right."""
    fault, output = "a folder where the report is to be", go.place("disk")
    (output / "report.html" / "something").mkdir(parents=True)
    with go.run(output, "-n", 0) as command:
        status = command.status()
    shutil.rmtree(output / "report.html")
    end = go.ended(output)
    wrong = complaint(command.lines, 1) or ("" if status == 1 else f"exit status {status}")
    why = end.why or wrong
    return replace(end, fault=fault, survived=end.survived and not wrong, why=why)


# --- places and what becomes of them


def ordinary(folder: Path) -> Place:
    return nullcontext()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own in memory; PermissionError where nothing may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "wsi-norm-faults", folder]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        raise PermissionError("no right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Take all that is left, also of what drafts give back."""
    with (folder / "ballast").open("wb", buffering=0) as ballast:
        piece = bytes(MIB)
        try:
            while ballast.write(piece):
                pass
        except OSError:
            return


def unfill(folder: Path) -> None:
    (folder / "ballast").unlink()


def read_only(folder: Path) -> None:
    """As soon as nobody is just writing."""
    remount = ["mount", "-o", "remount,ro", folder]
    wait_for(lambda: subprocess.run(remount, capture_output=True).returncode == 0)


def writable(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


def nothing(folder: Path) -> None:
    pass


def delete(folder: Path) -> None:
    """At one blow: what is written meanwhile would keep a folder that is emptied file by file."""
    away = folder.with_name(f"{folder.name}.deleted")
    folder.rename(away)
    while away.exists():  # what was on its way there arrives as it is emptied
        shutil.rmtree(away, ignore_errors=True)


def to_file(folder: Path) -> None:
    delete(folder)
    folder.write_text("somebody else's")


def delete_stores(folder: Path) -> None:
    for store in folder.glob("*.zarr"):
        delete(store)
