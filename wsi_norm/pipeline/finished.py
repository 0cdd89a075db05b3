"""Slides that an earlier run finished: known without opening the slide or its store's arrays."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from wsi_norm.config.run import NOT_IN_A_STORE
from wsi_norm.errors import ConfigError
from wsi_norm.machine import package_version
from wsi_norm.pipeline.job import Prepared, SlideJob
from wsi_norm.plan import regions_sha256
from wsi_norm.slide import fingerprint
from wsi_norm.stages import Seconds, Stage
from wsi_norm.store import StoreMeta, finished


def finished_before(job: SlideJob) -> Prepared | None:
    """What a store says that is finished, whole, and just what the job asks for; None: look closer.

    The same file, the same settings and the same version: then a look at the slide and at every
    setting could only say the same. What differs in any of these has to be looked at.
    """
    if job.config.repair:  # which looks closer at all
        return None
    seconds = Seconds()
    with seconds.spent(Stage.PLANNING):
        meta = finished(job.store)
        if meta is None or meta.counts is None or not _is_asked(job, meta):
            return None
    return Prepared(
        tiles=meta.counts["tiles"],
        missing={},
        finished=True,
        damaged=meta.slide.damage is not None,
        warnings=meta.warnings,
        seconds=seconds,
        counts=meta.counts,
    )


def _is_asked(job: SlideJob, meta: StoreMeta) -> bool:
    try:
        return meta.asked_sha256 is not None and meta.asked_sha256 == asked_sha256(job)
    except (OSError, ConfigError):  # whoever looks closer says what is wrong
        return False


def asked_sha256(job: SlideJob) -> str | None:
    """Digest of all that a job asks for, and of which file; no path and no machine counts.

    None for what is no single file of this machine (a DICOM folder, a URL), or is not there.
    """
    path = job.source.path
    if not isinstance(path, Path) or not os.path.isfile(path):
        return None
    model = job.model
    asked = {
        "package_version": package_version(),
        "name": job.source.name,
        "file": [path.name, path.stat().st_size, fingerprint(path)],
        "mpp": job.source.mpp_um,
        "regions": regions_sha256(job.source, job.config),
        "settings": job.config.model_dump(mode="json", exclude=NOT_IN_A_STORE),
        "model": [model.normalizer, model.statistics, model.background, model.sha256],
        "template": model.template,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
