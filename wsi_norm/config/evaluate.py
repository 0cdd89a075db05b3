"""Settings of an evaluation: methods, seeds, conditions around one training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from wsi_norm.config.reading import Settings, first_problem, read_yaml
from wsi_norm.config.train import TrainConfig
from wsi_norm.errors import ConfigError

Condition = Literal["clean", "simulated"]


class MethodConfig(Settings):
    """One line of the table: how it differs from the common training."""

    change: dict[str, Any] = Field(
        default={}, description="settings of the training that differ, as in its YAML"
    )
    uses: str | None = Field(
        default=None,
        description="another method: its trained networks, with only the normaliser changed",
    )


class TemplatesConfig(Settings):
    """Template sensitivity: one method with many single target images, beside another."""

    method: str = Field(description="method whose target is replaced by one training image")
    beside: str = Field(description="method that learns its target")
    images: int = Field(default=10, ge=2, description="target images, each of another group")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)


class EvaluateConfig(Settings):
    """Everything that `wsi-norm evaluate` is told."""

    output: Path = Field(default=Path("evaluated"), description="folder of the results")
    training: TrainConfig = Field(description="what the methods have in common")
    methods: dict[str, MethodConfig] = Field(description="name to what is different", min_length=1)
    reference: str | None = Field(default=None, description="method that others are compared with")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    conditions: tuple[Condition, ...] = Field(
        default=("clean", "simulated"), min_length=1, description="as scanned; virtual scanners"
    )
    scanner_strength: float = Field(default=1.0, gt=0, le=3, description="of the simulated ones")
    leave_out: bool = Field(
        default=False, description="judge each training domain by a training without it"
    )
    templates: TemplatesConfig | None = Field(
        default=None, description="how much depends on the choice of a single target image"
    )
    resamples: int = Field(default=2000, ge=100, description="of the bootstrap")
    workers: int = Field(default=1, ge=1, description="trainings at a time, one CPU thread each")

    @model_validator(mode="after")
    def _names_exist(self) -> EvaluateConfig:
        for name, method in self.methods.items():
            if method.uses is not None and method.uses not in self.methods:
                raise ValueError(f"method {name!r} uses {method.uses!r}, which is none of them")
            self.of(name)
        named: list[tuple[str, str | None]] = [("reference", self.reference)]
        if self.templates is not None:
            named += [
                (f"templates.{key}", getattr(self.templates, key)) for key in ("method", "beside")
            ]
        for key, method_name in named:
            if method_name is not None and method_name not in self.methods:
                raise ValueError(f"{key} {method_name!r} is none of the methods")
        if self.leave_out and self.training.data.columns.domain is None:
            raise ValueError("leave_out needs training.data.columns.domain")
        return self

    def of(self, method: str, **settings: Any) -> TrainConfig:
        """The training of one method, with other settings changed too."""
        common = self.training.model_dump(mode="json", exclude_unset=True)
        merged = merge(merge(common, self.methods[method].change), settings)
        try:
            return TrainConfig.model_validate(merged)
        except ValidationError as error:
            raise ValueError(f"method {method!r}: {first_problem(error)}") from error


def evaluate_config(file: Path, **options: Any) -> EvaluateConfig:
    """Settings from a YAML file; options that are not None rule over the file.

    `training` may name a training's own YAML file, relative to this one.

    Raises
    ------
    ConfigError
        One line that names the file and the key.
    """
    settings = read_yaml(file) | {k: v for k, v in options.items() if v is not None}
    if isinstance(settings.get("training"), str):
        settings["training"] = read_yaml(file.parent / settings["training"])
    try:
        return EvaluateConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_problem(error)}") from error


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `change`; mappings are merged key by key."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
