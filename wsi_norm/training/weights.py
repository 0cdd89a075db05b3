"""Weights of a network from a file: a state dict that someone else trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from wsi_norm.config import TrainConfig
from wsi_norm.errors import CheckpointError, ConfigError
from wsi_norm.location import check_file
from wsi_norm.lstainnorm.pickled import LARGEST_NETWORK_BYTES, ZIP, is_plain, load_weights

NESTS = ("state_dict", "model")
"""Keys under which files of `torch.save` hold the state dict beside other things."""

PREFIXES = ("module.", "model.")
"""What wrappers (DataParallel, Lightning, our own of Hugging Face models) put before all names."""


def with_digest(config: TrainConfig) -> TrainConfig:
    """The settings bound to the very bytes of `network.weights`, by `network.sha256`.

    Raises
    ------
    ConfigError
        The file cannot be read, or is not the one that the settings name.
    """
    asked = config.network
    if asked.weights is None:
        return config
    try:
        check_file(asked.weights, LARGEST_NETWORK_BYTES)
        with asked.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"network.weights {asked.weights}: cannot read it: {error.strerror}"
        ) from error
    if asked.sha256 not in (None, digest):
        raise ConfigError(
            f"network.weights {asked.weights}: its sha256 is {digest}, "
            f"not the network.sha256 {asked.sha256}"
        )
    return config.model_copy(update={"network": asked.model_copy(update={"sha256": digest})})


def load_into(network: nn.Module, path: Path) -> None:
    """Give a network the weights of a file.

    Parameters
    ----------
    network
        Its weights are replaced, in their own precision.
    path
        `.safetensors`, or what `torch.save` wrote: a state dict, alone or under one of NESTS.

    Raises
    ------
    ConfigError
        The file is missing, damaged or would run code, or what it holds does not fit: one line.
    """
    wanted = network.state_dict()
    state = _renamed(_read(path), wanted)
    _check_fit(path, state, wanted)
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        check_file(path, LARGEST_NETWORK_BYTES)
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":
            return safetensors.torch.load_file(path)
        if not head.startswith((ZIP, b"\x80")):
            raise ConfigError(
                f"network.weights {path}: neither .safetensors nor .pt, going by its first bytes"
            )
        return _state(path, load_weights(path))
    except OSError as error:
        raise ConfigError(f"network.weights {path}: cannot read it: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"network.weights {path}: truncated or damaged ({text})") from error
    except CheckpointError as error:
        raise ConfigError(f"network.weights {error}") from error


def _state(path: Path, data: Any) -> dict[str, Tensor]:
    """The state dict in what `torch.load` gave."""
    for key in NESTS:
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ConfigError(
            f"network.weights {path}: holds no state dict (tensors by name), neither by itself nor "
            f"under {' or '.join(NESTS)}; save network.state_dict()"
        )
    return {str(name): value for name, value in data.items()}


def _renamed(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names without, or with, one of PREFIXES before all of them, where only that fits."""
    for prefix in PREFIXES if state.keys() != wanted.keys() else ():
        bare = {name.removeprefix(prefix): value for name, value in state.items()}
        longer = {prefix + name: value for name, value in state.items()}
        for renamed in (bare, longer):
            if renamed.keys() == wanted.keys():
                return renamed
    return state


def _check_fit(path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    shared = [name for name in wanted if name in state]
    other = [name for name in shared if state[name].shape != wanted[name].shape]
    problems = [
        f"{len(names)} {what} (first: {names[0]})"
        for names, what in ((missing, "missing"), (unknown, "that it does not have"))
        if names
    ]
    if other:
        first = other[0]
        shapes = f"{tuple(state[first].shape)}, not {tuple(wanted[first].shape)}"
        problems.append(f"{len(other)} of another shape (first: {first} is {shapes})")
    if problems:
        raise ConfigError(
            f"network.weights {path}: not those of this network, of whose {len(wanted)} tensors "
            f"there are {', '.join(problems)}; check network.name and network.arguments"
        )
    strange = [n for n in shared if not is_plain(state[n])]
    if strange:
        raise ConfigError(f"network.weights {path}: {strange[0]} holds no plain numbers")
    broken = [n for n in shared if not bool(state[n].isfinite().all())]
    if broken:
        raise ConfigError(f"network.weights {path}: {broken[0]} holds NaN or infinity")
