"""A subject through every method as `run` would: its plan, its white, its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.gallery.drawn import draw
from benchmarks.gallery.faults import UInt8, made
from benchmarks.gallery.subjects import Subject
from wsi_norm.config import run_config
from wsi_norm.geometry import Region
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.pipeline.tiles import STATISTICS_TILES, measure_slide, read_tiles, spread
from wsi_norm.plan import SlidePlan, plan_slide
from wsi_norm.slide import Slide, open_slide
from wsi_norm.sources import SlideSource


@dataclass(frozen=True)
class Result:
    """What one method makes of a subject.

    Attributes
    ----------
    picture
        uint8 (H, W, 3).
    counts
        Pixels with each fault that the input had not.
    note
        Why nothing was done; empty where something was.
    """

    picture: UInt8
    counts: Mapping[str, int]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A subject, its picture before, how many pixels were counted, and what methods make of it."""

    subject: Subject
    before: UInt8
    pixels: int
    results: Mapping[str, Result]


def work(subject: Subject, file: Path, methods: Mapping[str, StainNormalizer]) -> Row:
    """A subject through every method.

    Parameters
    ----------
    file
        Of the subject.
    methods
        By their names.
    """
    with open_slide(file, default_mpp_um=subject.mpp_um) as slide:
        config = run_config(tile_size=subject.tile, mpp=slide.mpp_um, colour_check="warn")
        plan = plan_slide(slide, SlideSource(file, subject.name), config)
        before = _shown(slide, subject)
        counted = _counted(slide, plan, before) if subject.whole else before[None]
        results = {
            name: _result(slide, plan, normalizer, before, counted)
            for name, normalizer in methods.items()
        }
    return Row(subject, before, counted[..., 0].size, results)


def find(subject: Subject, data: Path, scratch: Path) -> Path:
    """Its file; a drawn one is drawn into `scratch`."""
    kind, _, name = subject.file.partition(":")
    if kind != "drawn":
        return data / subject.file
    path = scratch / f"{name}.png"
    if not path.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(name)).save(path)
    return path


def _shown(slide: Slide, subject: Subject) -> UInt8:
    width, height = (
        min(subject.edge, most - start)
        for most, start in zip(slide.dimensions, subject.at, strict=True)
    )
    return slide.read(Region(*subject.at, 0, width, height))


def _counted(slide: Slide, plan: SlidePlan, before: UInt8) -> UInt8:
    tiles = spread(plan.tiles, STATISTICS_TILES)
    return read_tiles(slide, plan.grid, tiles)[0] if tiles else before[None]


def _result(
    slide: Slide, plan: SlidePlan, normalizer: StainNormalizer, before: UInt8, counted: UInt8
) -> Result:
    statistics = None
    if normalizer.statistics == "slide":
        if not plan.tiles:
            return _as_is(before, "no tissue found")
        statistics, problem = measure_slide(slide, plan, normalizer)
        if statistics is None:
            return _as_is(before, problem or "")
    picture = normalizer.normalize(before[None], statistics, plan.white)[0][0]
    after = np.asarray(normalizer.normalize(counted, statistics, plan.white)[0])
    return Result(picture, made(counted, after, plan.white))


def _as_is(before: UInt8, note: str) -> Result:
    return Result(before, made(before, before, (1.0, 1.0, 1.0)), note)
