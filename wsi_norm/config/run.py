"""Settings of a run, validated once at the edge; the options of `run` are derived from them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from wsi_norm.choices import (
    CHECKPOINTS,
    CODECS,
    HOMES,
    LOSSY,
    NORMALIZERS,
    READERS,
    SEGMENTERS,
    Background,
    ColourCheck,
    IccChoice,
    Layout,
    Resample,
    StatisticsMode,
)
from wsi_norm.config.fields import Chosen, Device, Option
from wsi_norm.config.reading import Group, read_yaml, validated

MAGNIFICATION_MPP_UM = 10.0
"""mpp x magnification: 20x is 0.5 um/px."""

MIN_STEP_PX = 2
"""Tiles closer than this would share their level-0 corner."""

UNUSED = {
    "target": ("lstainnorm", "none"),
    "ckpt": ("macenko", "none"),
    "template": ("macenko", "none"),
    "statistics": ("none",),
    "background": ("none",),
}
"""Settings and the normalisers that have no use for them."""

NOT_IN_A_STORE = {
    *(
        "slides",
        "slides_csv",
        "recursive",
        "output",
        "report",
        "profile",
        "overwrite",
        "repair",
        "dry_run",
    ),
    *("device", "gpus", "batch_size", "workers", "scheduler", "cluster", "fail_fast"),
    "task_timeout",
    *("ckpt", "template", "target", "roi"),  # files: what is in them counts, not where they lie
}
"""Settings that say nothing of what a finished store holds; any other may."""

PX, UM, SHARE, N = (Option(metavar=unit) for unit in ("PX", "UM", "SHARE", "N"))


class RunConfig(Group):
    """Everything that `wsi-norm run` can be told; YAML files have these keys.

    `mag` (magnification) is accepted in place of `mpp`, and `step` in place of `overlap`.
    """

    sugar: ClassVar = {"mag": "mpp", "step": "overlap"}

    # what
    slides: tuple[str, ...] = Field(
        default=(), description="files, folders, DICOM folders, glob patterns"
    )
    output: Annotated[Path, Option(("-o",))] = Field(
        default=Path("normalized"), description="folder of the stores and the report"
    )
    slides_csv: Path | None = Field(
        default=None, description="table: wsi, optional mpp, mask_path, roi_path, name"
    )
    recursive: bool = Field(default=False, description="search folders to any depth")

    # normalisation
    normalizer: Annotated[str, Chosen(NORMALIZERS)] = Field(
        default="lstainnorm",
        description="the learned layer, a classic one, or none: tiles stored as they are",
    )
    ckpt: Path | None = Field(
        default=None, description="checkpoint, or a packaged one: density (the default), paper"
    )
    template: Path | None = Field(
        default=None, description="YAML with the template of an authors' ckpt"
    )
    target: Path | None = Field(
        default=None, description="image that macenko or reinhard aim at; none: built in"
    )
    statistics: StatisticsMode | None = Field(
        default=None, description="whose mean and std; none: as the checkpoint was trained"
    )
    background: Background | None = Field(
        default=None,
        description="whether glass keeps its colour; none: as the checkpoint was trained",
    )

    icc: IccChoice = Field(
        default="ignore", description="whether ICC profiles bring colours to sRGB first"
    )

    # tiles
    tile_size: Annotated[int, Option(("--patch-size",), "PX")] = Field(
        default=256, ge=16, le=8192, description="output tile edge in px"
    )
    mpp: Annotated[float, UM] = Field(default=0.5, gt=0, description="target resolution in um/px")
    overlap: Annotated[int, PX] = Field(
        default=0, ge=0, description="overlap of neighbouring tiles in output px"
    )
    default_mpp: Annotated[float | None, UM] = Field(
        default=None, gt=0, description="um/px of slides that state none"
    )
    override_mpp: Annotated[float | None, UM] = Field(
        default=None, gt=0, description="um/px of all slides, whatever they state"
    )

    resample: Resample = Field(
        default="auto",
        description="auto: JPEG decoded at 1/2, 1/4 or 1/8 where that fits; exact: never",
    )

    # tissue
    min_tissue: Annotated[float, Option(("--tissue-threshold",), "SHARE")] = Field(
        default=0.1, ge=0, le=1, description="tissue share that a tile needs"
    )
    whole_slide: bool = Field(
        default=False, description="keep every tile, glass too; tissue alone is measured"
    )
    segmenter: Annotated[str, Chosen(SEGMENTERS)] = Field(
        default="otsu", description="tissue detection"
    )
    roi: Path | None = Field(
        default=None, description="GeoJSON in level-0 px; only tiles inside it"
    )
    colour_check: ColourCheck = Field(
        default="refuse",
        description="what to do with slides that look like no stain on clear glass",
    )

    # output
    layout: Layout = Field(
        default="tiles",
        description="an array of tiles, an OME-Zarr pyramid, both, or a plan without pixels",
    )
    codec: Annotated[str, Chosen(CODECS)] = Field(
        default="zstd", description="compression of tiles; jpeg is lossy"
    )
    quality: Annotated[int | None, N] = Field(
        default=None, ge=1, le=100, description="of jpeg tiles, 1 to 100; none: 90"
    )
    overwrite: Annotated[bool, Option(off="--resume")] = Field(
        default=False, description="start anew where a store exists, or go on"
    )
    repair: bool = Field(
        default=False, description="look at every byte of stores that exist, redo what is damaged"
    )
    report: bool = Field(default=True, description="write report.html, run.json and slides.csv")
    profile: bool = Field(default=False, description="write profile.md: where the time went")

    # work
    reader: Annotated[str, Chosen(READERS, also=("auto",), but=("image",))] = Field(
        default="auto", description="slide reader"
    )
    device: Device = Field(default="auto", description="auto, cpu, cuda or cuda:i")
    gpus: Annotated[tuple[int, ...], Option(metavar="N [N ...]")] = Field(
        default=(), description="one worker process per GPU index"
    )
    batch_size: Annotated[int | None, Option(("-b",), "N")] = Field(
        default=None, ge=1, description="tiles per pass on a GPU; none: fit"
    )
    workers: Annotated[int | None, Option(("-n",), "N")] = Field(
        default=None, ge=0, description="processes; none: one per core, if memory allows; 0: inline"
    )
    scheduler: Annotated[str | None, Option(metavar="ADDRESS")] = Field(
        default=None, description="address of a running dask scheduler"
    )
    cluster: Path | None = Field(
        default=None, description="YAML that describes a dask cluster to start"
    )
    max_unreadable: Annotated[float, SHARE] = Field(
        default=0.2, ge=0, le=1, description="share of unreadable tiles above which a slide fails"
    )
    task_timeout: Annotated[float, Option(metavar="S")] = Field(
        default=600, gt=0, description="seconds without progress after which a worker is replaced"
    )
    fail_fast: bool = Field(default=False, description="stop at the first slide that fails")
    dry_run: bool = Field(default=False, description="plan and estimate only")

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        """`mag` to `mpp`, `step` to `overlap`."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for sugar, key in cls.sugar.items():
            if data.get(sugar) is not None and data.get(key) is not None:
                raise ValueError(f"give either {sugar} or {key}, not both")
        if (mag := data.pop("mag", None)) is not None:
            data["mpp"] = MAGNIFICATION_MPP_UM / _positive(mag, "mag")
        if (step := data.pop("step", None)) is not None:
            tile_size = _positive(data.get("tile_size") or 256, "tile_size")
            if _positive(step, "step") > tile_size:
                raise ValueError(f"step {step} is larger than tile_size {tile_size:g}")
            data["overlap"] = tile_size - _positive(step, "step")
        return data

    @field_validator("output")
    @classmethod
    def _a_folder(cls, output: Path) -> Path:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(output)):
            raise ValueError(f"{output}: stores are written to folders, not yet to URLs")
        return output

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.overlap > self.tile_size - MIN_STEP_PX:
            raise ValueError(
                f"overlap {self.overlap} must be less than tile_size {self.tile_size} by "
                f"{MIN_STEP_PX} px at least"
            )
        if "pyramid" in HOMES[self.layout] and self.overlap:
            raise ValueError(
                f"layout {self.layout}: tiles of a pyramid cannot overlap; leave overlap out, or "
                "take layout tiles"
            )
        if "pyramid" in HOMES[self.layout] and self.codec in LOSSY:
            raise ValueError(
                f"layout {self.layout}: a pyramid is lossless; leave codec {self.codec} out, or "
                "take layout tiles"
            )
        if "tiles" not in HOMES[self.layout] and self.codec != "zstd":
            raise ValueError(
                f"layout {self.layout} has no use for codec {self.codec}; leave it out"
            )
        if self.overwrite and self.repair:
            raise ValueError("give either overwrite or repair, not both")
        if self.gpus and self.device not in {"auto", "cuda"}:
            raise ValueError("give either gpus or device, not both")
        if sum(x is not None for x in (self.scheduler, self.cluster)) + bool(self.gpus) > 1:
            raise ValueError("give one of scheduler, cluster and gpus")
        return self

    @model_validator(mode="after")
    def _used(self) -> Self:
        """What the normaliser would not look at is refused, so that nobody believes it counts."""
        for key, normalizers in UNUSED.items():
            if getattr(self, key) is not None and self.normalizer in normalizers:
                raise ValueError(f"normalizer {self.normalizer} has no use for {key}; leave it out")
        if self.quality is not None and self.codec not in LOSSY:
            raise ValueError(f"codec {self.codec} has no use for quality; leave it out")
        if self.target is not None and self.ckpt is not None:
            raise ValueError("give either target or ckpt (whose template is aimed at), not both")
        return self

    def absolute(self) -> Self:
        """The same with absolute paths: workers may have another working directory.

        Names of packaged checkpoints are no paths.
        """
        paths = {
            name: value
            for name, value in self
            if isinstance(value, Path) and not (name == "ckpt" and str(value) in CHECKPOINTS)
        }
        return self.model_copy(update={name: path.absolute() for name, path in paths.items()})


def run_config(file: Path | None = None, **options: Any) -> RunConfig:
    """Settings from a YAML file and options; options rule over the file, the file over defaults.

    Raises
    ------
    ConfigError
        One line that names the file and the key.
    """
    settings = read_yaml(file) if file is not None else {}
    for pair in RunConfig.sugar.items():
        if any(options.get(key) is not None for key in pair):
            settings = {key: value for key, value in settings.items() if key not in pair}
    return validated(RunConfig, file, settings, options)


def _positive(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, not {value!r}") from error
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be positive, not {value}")
    return number
