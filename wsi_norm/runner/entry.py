"""`run`: from the names of slides to their stores, the report, and what happened."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from wsi_norm.config import RunConfig
from wsi_norm.errors import ReportError
from wsi_norm.location import write_text
from wsi_norm.machine import default_workers, resolve_device, versions
from wsi_norm.pipeline.slides import SOFTWARE
from wsi_norm.report import RunSummary, profile_table, write_report
from wsi_norm.runner.checks import check_output, checked_model
from wsi_norm.runner.drive import Drive
from wsi_norm.runner.events import OnEvent, PassedOver, Stopped, WorkersBounded
from wsi_norm.runner.forkserver import fork_server
from wsi_norm.runner.inline import Inline, is_inline
from wsi_norm.runner.processes import check_processes, starts_processes
from wsi_norm.slide.apart import end_idle
from wsi_norm.sources import find_slides

PACKAGES = (
    "wsi-norm",
    *SOFTWARE,
    "dask",
    "distributed",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "tifffile",
    "simplejpeg",
)
"""What the report gives the versions of."""


def run(
    slides: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    config: RunConfig | None = None,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Normalise slides into stores: what `wsi-norm run` does.

    Worker processes import the calling script, so call this under `if __name__ == "__main__":`, or
    set `workers=0`, which starts none.

    Parameters
    ----------
    slides
        Files, folders, DICOM folders or glob patterns, in addition to those of the config.
    config
        Settings; None takes the defaults.
    on_event
        Called in this thread as slides are planned, shards written and slides finished.

    Returns
    -------
    RunSummary
        One slide's failure is in its result and never stops the others.

    Raises
    ------
    ConfigError, CheckpointError
        Before any slide is touched: nothing to do, no such device, no place to write, ...
    ReportError
        The report cannot be written; finished stores stay.
    KeyboardInterrupt
        Interrupted; the report is written, and the same call continues.
    """
    if not isinstance(config, RunConfig | None):
        raise TypeError(f"config must be a RunConfig (see run_config), not {type(config).__name__}")
    config = (config or RunConfig()).absolute()
    if starts_processes(config):
        check_processes()
    slides = [slides] if isinstance(slides, str | os.PathLike) else slides
    started, clock = datetime.now(UTC), time.perf_counter()
    names = [os.fspath(slide) for slide in slides] + list(config.slides)
    passed_over: list[str] = []
    sources = find_slides(names, config.slides_csv, config.recursive, passed_over.append)
    if on_event is not None:
        for line in passed_over:
            on_event(PassedOver(line))
    model, facts = checked_model(config)
    if not config.dry_run:
        check_output(config.output)
    drive = Drive(config, model, sources, on_event)
    interrupted, starting = False, 0.0
    try:
        if drive.begin():
            if on_event is not None and (why := _bounded(config)) is not None:
                on_event(WorkersBounded(why))
            with fork_server(config), _workers(config) as client:
                starting = time.perf_counter() - clock
                drive.run(client)
    except KeyboardInterrupt:
        interrupted = True
        drive.interrupt()
    finally:
        end_idle()
    summary = RunSummary(
        slides=drive.results(),
        seconds=time.perf_counter() - clock,
        seconds_starting=starting,
        threads=drive.threads,
        peak_memory_bytes=drive.peak_memory_bytes,
        settings=config.model_dump(mode="json"),
        model=facts,
        versions=versions(PACKAGES),
        started=started.isoformat(timespec="seconds"),
        interrupted=interrupted,
        passed_over=tuple(passed_over),
    )
    try:
        if not config.dry_run:
            _write(summary, config)
    except ReportError as error:
        if not interrupted:
            raise
        if on_event is not None:
            on_event(Stopped(str(error)))
    if interrupted:
        raise KeyboardInterrupt
    return summary


def _bounded(config: RunConfig) -> str | None:
    """Why fewer worker processes than cores are started here, if it is not the settings' wish."""
    if config.workers is not None or config.gpus or not starts_processes(config):
        return None
    return default_workers()[1] if resolve_device(config.device) == "cpu" else None


def _workers(config: RunConfig) -> AbstractContextManager[Any]:
    """Where the work is done, to be entered."""
    if is_inline(config):
        return Inline(config)
    from wsi_norm.runner.cluster import workers  # dask is imported where it is used

    return workers(config)


def _write(summary: RunSummary, config: RunConfig) -> None:
    """What stands beside the stores, as far as it is asked for."""
    try:
        if config.report:
            write_report(summary, config.output)
        if config.profile:
            write_text(config.output / "profile.md", profile_table(summary))
    except OSError as error:
        raise ReportError(
            f"{config.output}: the report cannot be written: {error.strerror or error}; make that "
            "right and run the same command again (stores that are there and whole are kept)"
        ) from error
