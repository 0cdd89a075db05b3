"""Settings of a training: data, task, normaliser, network, augmentation, recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from wsi_norm.choices import NORMALIZERS, Background, IccChoice, StatisticsMode
from wsi_norm.config.fields import Chosen, Option
from wsi_norm.config.reading import Group, read_yaml, validated

Task = Literal["classification", "segmentation"]


def _as_filter(value: Any) -> Any:
    """{column: value or values} with every value as the text that a table holds."""
    if not isinstance(value, dict):
        return value
    return {
        str(column): [str(v) for v in (accepted if isinstance(accepted, list) else [accepted])]
        for column, accepted in value.items()
    }


RowFilter = Annotated[dict[str, list[str]], BeforeValidator(_as_filter)]
"""Column of the table to the values that are accepted in it."""


class ColumnsConfig(Group):
    """What the table's columns are called."""

    image: str = Field(default="image", description="path of the image")
    label: str | None = Field(default=None, description="class of the image")
    mask: str | None = Field(default=None, description="path of the mask")
    group: str | None = Field(default=None, description="case or slide; none: each image its own")
    domain: str | None = Field(default=None, description="centre or scanner")


class DataConfig(Group):
    """Labelled tiles: a table, a folder per class, or stores with a table of labels."""

    index: Path | None = Field(default=None, description="CSV with a line per image")
    folder: Path | None = Field(default=None, description="folder with one sub-folder per class")
    stores: tuple[Path, ...] = Field(default=(), description="stores that wsi-norm wrote")
    labels: Path | None = Field(default=None, description="CSV of the stores: store, row, label")
    columns: ColumnsConfig = ColumnsConfig()
    where: RowFilter = Field(default={}, description="rows to use at all")
    train: RowFilter = Field(default={}, description="rows to train on; none: all that are left")
    validation: Annotated[float, Field(gt=0, lt=1)] | RowFilter = Field(
        default=0.2, description="rows to select on, or a share of the training groups"
    )
    test: RowFilter = Field(default={}, description="rows to judge on, seen once, at the end")
    classes: tuple[str, ...] = Field(default=(), description="classes in order; none: as found")
    views: dict[str, Literal["center", "corner"]] = Field(
        default={}, description="class to where its tile is cut: every image gives one of each"
    )
    icc: IccChoice = Field(
        default="ignore", description="whether ICC profiles bring images' colours to sRGB first"
    )
    tile_size: int | None = Field(default=None, ge=8, description="edge of the tiles cut, in px")
    downsample: int = Field(default=1, ge=1, le=16, description="images are scaled down by this")
    crops_per_image: int = Field(
        default=1, ge=1, description="tiles cut from an image per epoch, at random places"
    )
    fixed_crops: bool = Field(
        default=False, description="the same places in every epoch, as if only these were labelled"
    )
    limit: int | None = Field(
        default=None,
        ge=2,
        description="at most so many training images, drawn by the seed: of every class and group",
    )

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if sum(map(bool, (self.index, self.folder, self.stores))) != 1:
            raise ValueError("give one of index, folder and stores")
        if bool(self.stores) != bool(self.labels):
            raise ValueError("stores and labels (their table) go together")
        if self.stores and self.icc == "apply":
            raise ValueError("icc: stores hold tiles as their run made them; give it --icc apply")
        if self.views and self.tile_size is None:
            raise ValueError("views need tile_size")
        if self.fixed_crops and (self.tile_size is None or self.views):
            raise ValueError("fixed_crops needs tile_size, and no views")
        return self


def _present_name(kind: Any) -> Any:
    """`layer` is how settings spelled `lstainnorm` at first."""
    return "lstainnorm" if kind == "layer" else kind


class NormalizerConfig(Group):
    """What stands in front of the network."""

    kind: Annotated[str, BeforeValidator(_present_name), Chosen(NORMALIZERS)] = Field(
        default="lstainnorm", description="the learned layer, a classic one, or none"
    )
    preset: str = Field(
        default="single:od", description="single:od (density), paper, product, mean, single:lab ..."
    )
    spaces: tuple[str, ...] = Field(default=("rgb", "lab", "hsv"), description="colour spaces")
    statistics: StatisticsMode = Field(default="slide", description="whose mean and std")
    background: Background = Field(default="preserve", description="whether glass keeps its colour")
    learn: bool = Field(default=True, description="train the layer; false: a fixed target")
    target: int | Literal["seen"] | Path | None = Field(
        default=None,
        description="a training image (its number or an image file) as target; "
        "seen: what the network of a method saw that is used (evaluate); "
        "none: the cohort's tissue (lstainnorm), one drawn by the seed (reinhard, macenko)",
    )
    start: Path | None = Field(
        default=None,
        description="a checkpoint, or a packaged one (density, paper): lstainnorm starts as it, "
        "whose preset, spaces, statistics and background count",
    )

    @model_validator(mode="after")
    def _one_start(self) -> NormalizerConfig:
        if self.start is not None and self.target is not None:
            raise ValueError("give start or target, not both")
        return self


class NetworkConfig(Group):
    """The network behind it."""

    name: str = Field(
        description="monai:NAME, transformers:TYPE, timm:NAME, smp:NAME or package.module:function"
    )
    arguments: dict[str, Any] = Field(default={}, description="keyword arguments")
    weights: Path | None = Field(
        default=None, description="file of a state dict that it starts with (.safetensors, .pt)"
    )
    sha256: str | None = Field(
        default=None, description="digest of that file: no other is taken; none: any"
    )
    frozen: bool = Field(default=False, description="it stays as it is: only the layer learns")

    @model_validator(mode="after")
    def _digest_of_something(self) -> NetworkConfig:
        if self.sha256 is not None and self.weights is None:
            raise ValueError("sha256 is that of the weights, and there are none")
        return self


class AugmentationConfig(Group):
    """What happens to training tiles before the normaliser."""

    flips: bool = Field(default=True, description="flips and quarter turns")
    jitter: float = Field(
        default=0, ge=0, le=1, description="colour jitter: brightness, contrast, saturation, hue"
    )
    scanners: float = Field(
        default=0, ge=0, le=3, description="strength of random virtual scanners; 1 is typical"
    )


class RecipeConfig(Group):
    """How it is trained."""

    epochs: int = Field(default=10, ge=1, description="each ends with a validation")
    steps_per_epoch: int | None = Field(
        default=None, ge=1, description="batches per epoch; none: every tile once"
    )
    batch_size: int = Field(default=32, ge=1, description="tiles per step")
    tiles_per_group: int = Field(
        default=8, ge=1, description="tiles of one case or slide in a batch; they share statistics"
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="of the network")
    layer_learning_rate: float = Field(default=1e-2, gt=0, description="of the layer")
    weight_decay: float = Field(default=1e-2, ge=0, description="of the network; the layer has 0")
    warmup_steps: int = Field(default=20, ge=0, description="linear warm-up, then cosine to zero")
    class_weights: Literal["balanced", "none"] = Field(
        default="balanced", description="of the cross-entropy: inverse class frequency, or none"
    )
    patience: int | None = Field(
        default=None, ge=1, description="epochs without a better validation before it stops"
    )
    select_under_scanners: bool = Field(
        default=True,
        description="validate under virtual scanners: plain validation cannot tell methods apart",
    )
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field(
        default="32", description="of the arithmetic"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to train")
    devices: int | Literal["auto"] = Field(default="auto", description="how many GPUs")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none: PyTorch's")


class TrainConfig(Group):
    """Everything that `wsi-norm train` is told."""

    output: Annotated[Path, Option(("-o",))] = Field(
        default=Path("trained"), description="folder of the results"
    )
    task: Task = Field(description="classification or segmentation")
    data: DataConfig
    normalizer: NormalizerConfig = NormalizerConfig()
    network: NetworkConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    recipe: RecipeConfig = RecipeConfig()
    seed: Annotated[int, Option(metavar="N")] = Field(
        default=0, ge=0, lt=2**31, description="of everything random"
    )
    tensorboard: bool = Field(default=False, description="write TensorBoard logs beside the CSV")
    provenance: dict[str, str] = Field(
        default={}, description="for the model card: data, licence, intended use ..."
    )

    @property
    def learns(self) -> bool:
        """Whether a training would change anything: the network, or the layer."""
        layer = self.normalizer.kind == "lstainnorm" and self.normalizer.learn
        return layer or not self.network.frozen

    @model_validator(mode="after")
    def _fits_the_task(self) -> TrainConfig:
        columns = self.data.columns
        if self.task == "segmentation" and (columns.mask is None or not self.data.index):
            raise ValueError("segmentation needs data.index and data.columns.mask")
        labelled = columns.label is not None or not self.data.index
        if self.task == "classification" and labelled == bool(self.data.views):
            raise ValueError("classification needs data.columns.label, or data.views; not both")
        return self


def train_config(file: Path, **options: Any) -> TrainConfig:
    """Settings from a YAML file; options that are not None rule over the file.

    Raises
    ------
    ConfigError
        One line that names the file and the key.
    """
    return validated(TrainConfig, file, read_yaml(file), options)
