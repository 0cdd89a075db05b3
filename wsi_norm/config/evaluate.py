"""Settings of an evaluation: methods, seeds, conditions around one training."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from wsi_norm.config.fields import Option
from wsi_norm.config.reading import Group, first_problem, read_yaml, validated
from wsi_norm.config.train import TrainConfig

Condition = Literal["clean", "simulated"]

OWN = ("task", "output", "seed")
"""Settings of a training that the evaluation gives to all methods."""

BEFORE_A_NETWORK = {
    "network": ("frozen",),
    "data": ("limit", "crops_per_image", "fixed_crops"),
}
"""What may differ of these where the layer learns before the networks of another method."""

MIN_TILE_PX = 16
"""Smaller tiles hold no window of SSIM and no power spectrum: no profile of a normaliser."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is listed twice")
    return values


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**31)], ...],
    Field(min_length=1),
    AfterValidator(_distinct),
]


class MethodConfig(Group):
    """One line of the table: how it differs from the common training."""

    change: dict[str, Any] = Field(
        default={}, description="settings of the training that differ, as in its YAML"
    )
    uses: str | None = Field(
        default=None,
        description="another method: its trained networks, with only the normaliser changed; "
        "with network: {frozen: true} the layer learns before them",
    )


class TemplatesConfig(Group):
    """Template sensitivity: one method with many single target images, beside another."""

    method: str = Field(description="method whose target is replaced by one training image")
    beside: str = Field(description="method that learns its target")
    images: int = Field(default=10, ge=2, description="target images, each of another group")
    seeds: Seeds = Field(default=(0,), description="of the trainings")


class EvaluateConfig(Group):
    """Everything that `wsi-norm evaluate` is told."""

    output: Annotated[Path, Option(("-o",))] = Field(
        default=Path("evaluated"), description="folder of the results"
    )
    training: TrainConfig = Field(description="what the methods have in common")
    methods: dict[str, MethodConfig] = Field(description="name to what is different", min_length=1)
    reference: str | None = Field(default=None, description="method that others are compared with")
    seeds: Seeds = Field(default=(0, 1, 2, 3, 4), description="of the trainings of each method")
    conditions: Annotated[tuple[Condition, ...], AfterValidator(_distinct)] = Field(
        default=("clean", "simulated"), min_length=1, description="as scanned; virtual scanners"
    )
    leave_out: bool = Field(
        default=False, description="judge each training domain by a training without it"
    )
    templates: TemplatesConfig | None = Field(
        default=None, description="how much depends on the choice of a single target image"
    )
    resamples: int = Field(default=2000, ge=100, description="of the bootstrap")
    workers: Annotated[int, Option(("-n",), "N")] = Field(
        default=1, ge=1, description="trainings at a time, one CPU thread each"
    )

    @model_validator(mode="after")
    def _names_exist(self) -> EvaluateConfig:
        _refuse_like_folders(self.methods)
        for name, method in self.methods.items():
            _refuse_foreign_changes(name, method)
            if method.uses is not None:
                self._check_uses(name, method.uses)
        named: list[tuple[str, str | None]] = [("reference", self.reference)]
        if self.templates is not None:
            named += [
                (f"templates.{key}", getattr(self.templates, key)) for key in ("method", "beside")
            ]
        for key, name_of in named:
            if name_of is not None and name_of not in self.methods:
                raise ValueError(f"{key} {name_of!r} is none of the methods")
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> EvaluateConfig:
        for name in self.methods:
            data = self.of(name).data
            if self.leave_out and data.columns.domain is None and not data.stores:
                raise ValueError("leave_out needs training.data.columns.domain")
            if not self.leave_out and not data.test:
                raise ValueError(
                    f"method {name!r} has nothing to be judged on: "
                    "give training.data.test, or leave_out: true"
                )
            if data.tile_size is not None and data.tile_size < MIN_TILE_PX:
                raise ValueError(f"method {name!r}: data.tile_size must be at least {MIN_TILE_PX}")
            self._check_seen(name)
        return self

    @model_validator(mode="after")
    def _templates_fit(self) -> EvaluateConfig:
        if self.templates is None:
            return self
        name = self.templates.method
        if self.leave_out:
            raise ValueError("templates are judged on training.data.test: not with leave_out")
        if self.training.data.stores:
            raise ValueError("templates need image files, but training.data are stores")
        if self.methods[name].uses is not None:
            raise ValueError(f"templates.method {name!r} must be one that is trained, not 'uses'")
        if self.of(name).normalizer.kind == "none":
            raise ValueError(f"templates.method {name!r} has no normaliser, so no target")
        return self

    def _check_seen(self, name: str) -> None:
        normalizer, uses = self.of(name).normalizer, self.methods[name].uses
        if normalizer.target == "seen" and (uses is None or normalizer.kind != "lstainnorm"):
            raise ValueError(
                f"method {name!r}: normalizer.target 'seen' needs 'uses' and the kind lstainnorm"
            )

    def _check_uses(self, name: str, used: str) -> None:
        if used not in self.methods:
            raise ValueError(f"method {name!r} uses {used!r}, which is none of the methods")
        if self.methods[used].uses is not None:
            raise ValueError(f"method {name!r} uses {used!r}, which is not trained but uses one")
        if self.of(used).network.frozen:
            raise ValueError(
                f"method {name!r} uses {used!r}, which trains no network: leave out 'uses'"
            )
        change = self.methods[name].change
        if change.get("network") == {"frozen": True}:
            _refuse_other_networks(name, used, change)
            return
        for key in change:
            if key != "normalizer":
                raise ValueError(
                    f"method {name!r} uses the networks of {used!r}: "
                    f"it can change the normalizer, not {key!r}; for a layer that learns before "
                    "them, give network: {frozen: true}"
                )

    def of(self, method: str, **settings: Any) -> TrainConfig:
        """The training of one method, with other settings changed too.

        A method that `uses` another has the settings of that one, but for the normaliser.
        """
        merged = self.training.model_dump(mode="json", exclude_unset=True)
        own = self.methods[method]
        if own.uses is not None:
            used = self.methods[own.uses].change
            merged = merge(merged, {k: v for k, v in used.items() if k != "normalizer"})
        merged = merge(merge(merged, own.change), settings)
        try:
            return TrainConfig.model_validate(merged)
        except ValidationError as error:
            raise ValueError(f"method {method!r}: {first_problem(error)}") from error


def folder_name(*parts: str) -> str:
    """Parts that are not empty, as one name that every file system takes."""
    return re.sub(r"[^\w.+-]+", "_", "--".join(part for part in parts if part))


def _refuse_like_folders(names: Collection[str]) -> None:
    """Each method has its folders; some file systems do not tell capitals apart."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folder_name(name).casefold(), name)
        if other != name:
            raise ValueError(
                f"methods {other!r} and {name!r} would share a folder: rename one of them"
            )


def _refuse_foreign_changes(name: str, method: MethodConfig) -> None:
    for key in OWN:
        if key in method.change:
            raise ValueError(f"method {name!r} changes {key!r}, which all methods have in common")


def _refuse_other_networks(name: str, used: str, change: Mapping[str, Any]) -> None:
    """What the layer learns before has to be the network of `used`, and what it is judged on."""
    for key, parts in BEFORE_A_NETWORK.items():
        for part in change.get(key) or ():
            if part not in parts:
                raise ValueError(
                    f"method {name!r} learns before the networks of {used!r}: "
                    f"of {key} it can change {', '.join(parts)}, not {part!r}"
                )


def evaluate_config(file: Path, **options: Any) -> EvaluateConfig:
    """Settings from a YAML file; options that are not None rule over the file.

    `training` may name a training's own YAML file, relative to this one.

    Raises
    ------
    ConfigError
        One line that names the file and the key.
    """
    settings = read_yaml(file)
    if isinstance(settings.get("training"), str):
        settings["training"] = read_yaml(file.parent / settings["training"])
    return validated(EvaluateConfig, file, settings, options)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `change`; mappings are merged key by key."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
