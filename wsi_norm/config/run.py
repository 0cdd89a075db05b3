"""Settings of a run, validated once at the edge; named as the command-line options."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsi_norm.config.reading import first_problem, nearest, read_yaml
from wsi_norm.errors import ConfigError

MAGNIFICATION_MPP_UM = 10.0
"""mpp x magnification: 20x is 0.5 um/px."""

MIN_STEP_PX = 2
"""Tiles closer than this would share their level-0 corner."""


class RunConfig(BaseModel):
    """Everything that `wsi-norm run` can be told; YAML files have these keys.

    `mag` (magnification) is accepted in place of `mpp`, and `step` in place of `overlap`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # what
    slides: tuple[str, ...] = Field(
        default=(), description="files, folders, DICOM folders, glob patterns"
    )
    slides_csv: Path | None = Field(default=None, description="table of slides, see docs")
    recursive: bool = Field(default=False, description="search folders to any depth")
    output: Path = Field(
        default=Path("normalized"), description="folder of the stores and the report"
    )
    ckpt: Path | None = Field(default=None, description="checkpoint; none: the packaged one")
    template: Path | None = Field(
        default=None, description="YAML with the template of an authors' ckpt"
    )

    # tiles
    tile_size: int = Field(default=256, ge=16, le=8192, description="output tile edge in px")
    mpp: float = Field(default=0.5, gt=0, description="target resolution in um/px")
    overlap: int = Field(default=0, ge=0, description="overlap of neighbouring tiles in output px")
    default_mpp: float | None = Field(
        default=None, gt=0, description="um/px of slides that state none"
    )

    # tissue
    min_tissue: float = Field(default=0.1, ge=0, le=1, description="tissue share that a tile needs")
    segmenter: Literal["otsu", "hsv", "none"] = Field(
        default="otsu", description="tissue detection"
    )
    roi: Path | None = Field(
        default=None, description="GeoJSON in level-0 px; only tiles inside it"
    )
    colour_check: Literal["refuse", "warn"] = Field(
        default="refuse", description="what to do with slides whose glass is not neutral"
    )

    # normalisation
    statistics: Literal["slide", "tile"] | None = Field(
        default=None, description="whose mean and std; none: as the checkpoint was trained"
    )
    background: Literal["preserve", "normalize"] | None = Field(
        default=None,
        description="whether glass keeps its colour; none: as the checkpoint was trained",
    )

    # output
    codec: Literal["zstd", "blosc", "none"] = Field(
        default="zstd", description="lossless compression"
    )
    overwrite: bool = Field(
        default=False, description="start anew where a store exists, else resume"
    )
    report: bool = Field(default=True, description="write report.html, run.json and slides.csv")
    profile: bool = Field(default=False, description="write profile.md: where the time went")

    # work
    reader: Literal["auto", "direct", "openslide", "tiffslide"] = Field(
        default="auto", description="slide reader"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:i")
    gpus: tuple[int, ...] = Field(default=(), description="one worker process per GPU index")
    batch_size: int | None = Field(
        default=None, ge=1, description="tiles per pass on a GPU; none: fit"
    )
    workers: int | None = Field(
        default=None, ge=0, description="processes; none: one per core; 0: inline"
    )
    scheduler: str | None = Field(default=None, description="address of a running dask scheduler")
    cluster: Path | None = Field(
        default=None, description="YAML that describes a dask cluster to start"
    )
    max_unreadable: float = Field(
        default=0.2, ge=0, le=1, description="share of unreadable tiles above which a slide fails"
    )
    fail_fast: bool = Field(default=False, description="stop at the first slide that fails")
    dry_run: bool = Field(default=False, description="plan and estimate only")

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        """`mag` to `mpp`, `step` to `overlap`; an unknown key names the nearest known one."""
        if not isinstance(data, dict):
            raise ValueError("settings must be 'key: value' lines")
        data = dict(data)
        for sugar, key in (("mag", "mpp"), ("step", "overlap")):
            if data.get(sugar) is not None and data.get(key) is not None:
                raise ValueError(f"give either {sugar} or {key}, not both")
        if (mag := data.pop("mag", None)) is not None:
            data["mpp"] = MAGNIFICATION_MPP_UM / _positive(mag, "mag")
        if (step := data.pop("step", None)) is not None:
            tile_size = _positive(data.get("tile_size") or 256, "tile_size")
            if _positive(step, "step") > tile_size:
                raise ValueError(f"step {step} is larger than tile_size {tile_size:g}")
            data["overlap"] = tile_size - _positive(step, "step")
        known = [*cls.model_fields, "mag", "step"]
        for key in data:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}{nearest(key, known)}")
        return data

    @field_validator("output")
    @classmethod
    def _a_folder(cls, output: Path) -> Path:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(output)):
            raise ValueError(f"{output}: stores are written to folders, not yet to URLs")
        return output

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.overlap > self.tile_size - MIN_STEP_PX:
            raise ValueError(
                f"overlap {self.overlap} must be less than tile_size {self.tile_size} by "
                f"{MIN_STEP_PX} px at least"
            )
        if self.gpus and self.device not in {"auto", "cuda"}:
            raise ValueError("give either gpus or device, not both")
        if sum(x is not None for x in (self.scheduler, self.cluster)) + bool(self.gpus) > 1:
            raise ValueError("give one of scheduler, cluster and gpus")
        return self


def run_config(file: Path | None = None, **options: Any) -> RunConfig:
    """Settings from a YAML file and options; options rule over the file, the file over defaults.

    Raises
    ------
    ConfigError
        One line that names the file and the key.
    """
    settings = read_yaml(file) if file is not None else {}
    for sugar, key in (("mag", "mpp"), ("step", "overlap")):
        if options.get(key) is not None or options.get(sugar) is not None:
            settings = {k: v for k, v in settings.items() if k not in {key, sugar}}
    settings |= {key: value for key, value in options.items() if value is not None}
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        keys = [str(part) for part in error.errors()[0]["loc"]]
        at_fault = file is not None and all(options.get(key) is None for key in keys)
        raise ConfigError((f"{file}: " if at_fault else "") + first_problem(error)) from error


def _positive(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, not {value!r}") from error
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be positive, not {value}")
    return number
