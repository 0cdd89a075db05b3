"""The network behind the normaliser: by name from a library, or from the user's own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_norm.cohort.index import listed
from wsi_norm.config import TrainConfig
from wsi_norm.config.reading import nearest
from wsi_norm.config.train import Task
from wsi_norm.errors import ConfigError, WsiNormError
from wsi_norm.training.weights import load_into

Arguments = Mapping[str, Any]


def network_of(
    config: TrainConfig, classes: Sequence[str], size: int | tuple[int, int]
) -> nn.Module:
    """The network of the settings, with its weights; a frozen one is in evaluation mode.

    Parameters
    ----------
    config
        Settings.
    classes, size
        As in `build_network`.

    Raises
    ------
    ConfigError
        It cannot be built, its weights do not fit, or it is frozen and its weights are random.
    """
    asked = config.network
    if asked.frozen and asked.weights is None and asked.name.partition(":")[0] in _BUILDERS:
        raise ConfigError(
            f"network.frozen: the weights of {asked.name!r} would be random; give network.weights, "
            "or a function of your own that loads them (package.module:function)"
        )
    network = build_network(
        asked.name, asked.arguments, task=config.task, classes=classes, size=size
    )
    if asked.weights is not None:
        load_into(network, asked.weights)
    return network.requires_grad_(False).eval() if asked.frozen else network


def build_network(
    spec: str,
    arguments: Arguments,
    *,
    task: Task,
    classes: Sequence[str],
    size: int | tuple[int, int],
) -> nn.Module:
    """A network, tried out on a batch of two.

    Parameters
    ----------
    spec
        "monai:NAME", "transformers:MODEL_TYPE", "timm:NAME", "smp:NAME", or
        "package.module:function", which returns an `nn.Module`. Libraries are imported when named.
    arguments
        Keyword arguments. The number of classes is added for transformers, timm and smp unless
        they hold it; weights are random unless they ask for others.
    task, classes, size
        What it has to turn float32 (N, 3, H, W) into: logits (N, K) of the K classes for
        classification, (N, K, H, W) for segmentation; `size` is H and W, or one number for both.

    Raises
    ------
    ConfigError
        No such network, arguments that do not fit, or an output of another shape: one line.
    """
    library, _, name = spec.partition(":")
    if not library or not name:
        raise ConfigError(
            f"network.name {spec!r}: expected monai:NAME, transformers:TYPE, timm:NAME, smp:NAME "
            "or package.module:function"
        )
    try:
        network = _BUILDERS.get(library, _own)(spec, arguments, task, len(classes))
    except WsiNormError:
        raise
    except Exception as error:  # constructors of others raise what they like
        raise ConfigError(
            f"network.name {spec!r}: cannot be built with these network.arguments: {_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ConfigError(f"network.name {spec!r}: expected a torch.nn.Module, not a {kind}")
    height, width = size if isinstance(size, tuple) else (size, size)
    got, shape = _tried_out(network, spec, (2, 3, height, width)), (2, len(classes))
    expected = (*shape, height, width) if task == "segmentation" else shape
    if got != expected:
        raise ConfigError(
            f"network.name {spec!r}: the output for images {(2, 3, height, width)} has to be of "
            f"shape {expected} but is {got}; check network.arguments and the classes, of which "
            f"{len(classes)} were found: {listed(classes)}"
        )
    return network


class LogitsOf(nn.Module):
    """The logits alone of a Hugging Face model: (N, K), or (N, K, H, W) resized to the input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of float32 (N, 3, H, W)."""
        logits: Tensor = self.model(pixel_values=images).logits
        if logits.ndim == 4 and logits.shape[-2:] != images.shape[-2:]:
            return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        return logits


def _monai(spec: str, arguments: Arguments, task: Task, classes: int) -> Any:
    return _named(spec, _import("monai.networks.nets", spec, "train"))(**arguments)


def _transformers(spec: str, arguments: Arguments, task: Task, classes: int) -> Any:
    kind = spec.partition(":")[2]
    library = _import("transformers", spec, "train")
    names = _import("transformers.models.auto.modeling_auto", spec, "train")
    if task == "classification":
        known, auto = names.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "ImageClassification"
    else:
        known, auto = names.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, "SemanticSegmentation"
    if kind not in known:
        raise _unknown(spec, kind, list(known), f" for {task}")
    defaults = library.AutoConfig.for_model(kind)
    for argument in arguments:  # transformers would keep a misspelt one without a word
        if not hasattr(defaults, argument):
            hint = nearest(argument, list(defaults.to_dict()))
            raise ConfigError(
                f"network.arguments: {type(defaults).__name__} has no {argument!r}{hint}"
            )
    config = library.AutoConfig.for_model(kind, **{"num_labels": classes, **arguments})
    return LogitsOf(getattr(library, f"AutoModelFor{auto}").from_config(config))


def _timm(spec: str, arguments: Arguments, task: Task, classes: int) -> Any:
    timm, name = _import("timm", spec, "zoo"), spec.partition(":")[2]
    known = timm.list_models()
    # A suffix after a dot names weights; a name with a colon comes from a hub or a folder.
    if ":" not in name and name.partition(".")[0] not in known:
        raise _unknown(spec, name, known)
    return timm.create_model(name, **{"num_classes": classes, **arguments})


def _smp(spec: str, arguments: Arguments, task: Task, classes: int) -> Any:
    build = _named(spec, _import("segmentation_models_pytorch", spec, "zoo"))
    # By default it would download weights.
    return build(**{"encoder_weights": None, "classes": classes, **arguments})


def _own(spec: str, arguments: Arguments, task: Task, classes: int) -> Any:
    return _named(spec, _import(spec.partition(":")[0], spec, None))(**arguments)


_BUILDERS = {"monai": _monai, "transformers": _transformers, "timm": _timm, "smp": _smp}


def _import(module: str, spec: str, extra: str | None) -> Any:
    try:
        return importlib.import_module(module)
    # Beside another build of torch, torchvision fails with the last two.
    except (ImportError, RuntimeError, AttributeError) as error:
        help_ = f"pip install 'wsi-norm[{extra}]'" if extra else "is it on PYTHONPATH?"
        raise ConfigError(
            f"network.name {spec!r}: cannot import {module} ({_line(error)}); {help_}"
        ) from error


def _named(spec: str, module: Any) -> Callable[..., Any]:
    name = spec.partition(":")[2]
    if not callable(found := getattr(module, name, None)):
        known = [key for key in dir(module) if key[0] != "_" and callable(getattr(module, key))]
        raise _unknown(spec, name, known)
    return found  # type: ignore[no-any-return]


def _unknown(spec: str, name: str, known: Collection[str], what: str = "") -> ConfigError:
    library = spec.partition(":")[0]
    return ConfigError(
        f"network.name {spec!r}: {library} has no {name!r}{what}{nearest(name, known)}"
    )


def _tried_out(network: nn.Module, spec: str, shape: tuple[int, ...]) -> tuple[int, ...] | str:
    """Shape of the output for images of a shape, or what it is instead of a tensor."""
    batch = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    network.eval()  # so that the batch leaves no trace in running statistics
    try:
        with torch.no_grad():
            output = network(batch)
    except Exception as error:  # whatever a network of others raises
        raise ConfigError(
            f"network.name {spec!r}: fails on images of {shape[3]} x {shape[2]} px: {_line(error)}"
        ) from error
    finally:
        network.train()
    return tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"


def _line(error: BaseException, most: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."
