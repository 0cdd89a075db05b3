"""Checkpoints: one file with weights, configuration, template and provenance; no code runs.

`.safetensors` is the default, and is read without PyTorch. `.pt` holds the same and is read with
its weights-only loader, which refuses any pickle that would call a function.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from wsi_norm.choices import CHECKPOINTS
from wsi_norm.errors import CheckpointError
from wsi_norm.location import read_bounded, write_whole
from wsi_norm.lstainnorm.chebyshev import nodes_of
from wsi_norm.lstainnorm.config import REFERENCE, LayerConfig
from wsi_norm.lstainnorm.state import LayerState, shapes
from wsi_norm.spaces import CHANNELS, RANGES

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_norm.lstainnorm.base import StainLayer

Arrays = dict[str, npt.NDArray[Any]]

FORMAT = "wsi-norm-checkpoint-1"
KEY = "wsi_norm"
"""Where both formats keep the facts, as one JSON text: equal layers are equal files."""

PACKAGED = {name: Path(__file__).parent / f"{name}.safetensors" for name in CHECKPOINTS}
"""The checkpoints inside the package, by the names that stand for them."""

DEFAULT = CHECKPOINTS[0]

LARGEST_BYTES = 1 << 29
"""Of a checkpoint; a layer is a few kilobytes, but the authors' files hold a network beside it."""
MOST_NUMBERS = 1 << 28
"""In the tensors of a checkpoint, which may be views of less."""
MOST_FACTS = 1 << 20
"""Letters of the facts in a checkpoint."""
LEAST_STD = 1e-6
"""Of a template, as a share of what the channel spans."""
LARGEST_WEIGHT = 1e4
"""Weights begin around 1 and are trained by a few units; beyond this, numbers overflow."""
MOST_NODES = 1024
"""Of the attention; weights ask for them, time grows with them, memory with their square."""


class Checkpoint(NamedTuple):
    """What a file holds: the layer, in evaluation mode on the CPU, and the digest of its bytes."""

    layer: StainLayer
    sha256: str


class Read(NamedTuple):
    """What a file holds, as numbers, and the digest of its bytes."""

    state: LayerState
    sha256: str


def save_checkpoint(
    layer: StainLayer, path: str | Path, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a layer to `.safetensors` or `.pt`.

    Parameters
    ----------
    layer
        Any preset.
    path
        The suffix decides the format.
    provenance
        JSON-able facts on how the layer came to be; None keeps `layer.provenance`.

    Raises
    ------
    CheckpointError
        Another suffix, or the file cannot be written.
    """
    path = Path(path)
    state = layer.state()
    facts = json.dumps(
        {
            "format": FORMAT,
            "config": state.config.to_dict(),
            "provenance": dict(state.provenance if provenance is None else provenance),
        }
    )
    if path.suffix == ".safetensors":
        data = safetensors.numpy.save(dict(state.arrays), metadata={KEY: facts})
    elif path.suffix in {".pt", ".pth"}:
        import torch

        buffer = io.BytesIO()
        tensors = {name: torch.from_numpy(array) for name, array in state.arrays.items()}
        torch.save({KEY: facts, "state": tensors}, buffer)
        data = buffer.getvalue()
    else:
        raise CheckpointError(f"{path}: name the checkpoint .safetensors or .pt")
    try:
        write_whole(path, [data])
    except OSError as error:
        raise CheckpointError(f"{path}: cannot write the checkpoint: {error}") from error


def load_checkpoint(
    path: str | Path | None = None, template: Mapping[str, Any] | None = None
) -> StainLayer:
    """Read a layer, without unpickling code; see `open_checkpoint`."""
    return open_checkpoint(path, template).layer


def open_checkpoint(
    path: str | Path | None = None, template: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Read a layer and digest the very bytes it came from, without unpickling code.

    Parameters
    ----------
    path
        `.safetensors` or `.pt`, or a name of PACKAGED; None is the default of these.
    template
        Only for the authors' own state dict, which lacks it: "lab", "hsv", "rgb" to (mean, std).

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of another format, or would run code when unpickled; or its
        numbers are none that a template or a layer can have.
    """
    from wsi_norm.lstainnorm.layer import layer_of

    state, sha256 = read_checkpoint(path, template)
    return Checkpoint(layer_of(state), sha256)


def read_checkpoint(
    path: str | Path | None = None,
    template: Mapping[str, Any] | None = None,
    *,
    tried: str | None = None,
) -> Read:
    """As `open_checkpoint`, but numbers in place of a module of PyTorch.

    Parameters
    ----------
    tried
        Digest of a checkpoint whose layer was tried on colours before: it is not tried again, which
        takes PyTorch where there is attention. Those of the package are not tried at all.
    """
    path = PACKAGED.get(str(path or DEFAULT)) or Path(str(path))
    data = _bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    facts, arrays = _parse(path, data)
    _check_finite(path, arrays)
    if facts is None and "mu_lab" in arrays:
        state = _reference(path, arrays, template)
    elif not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a wsi-norm checkpoint (no {FORMAT!r} in it); make one with "
            "'wsi-norm fit-template', or name the right file"
        )
    elif template is not None:
        raise CheckpointError(f"{path}: it has a template of its own; leave out --template")
    else:
        try:
            state = _build(facts, arrays)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged checkpoint: {_one_line(error)}") from error
    try:
        _check_numbers(state)
        if tried != sha256 and path not in PACKAGED.values():
            _try(state)
    except ValueError as error:
        raise CheckpointError(f"{path}: no usable checkpoint: {error}") from error
    return Read(state, sha256)


def _check_finite(path: Path, arrays: Arrays) -> None:
    """Finite numbers, and no more of them than there can be."""
    if sum(array.size for array in arrays.values()) > MOST_NUMBERS:
        raise _too_many(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: damaged checkpoint: {name} holds NaN or infinity")


def _too_many(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: damaged checkpoint: it claims too many numbers for a layer")


def _check_numbers(state: LayerState) -> None:
    """ValueError, with the one that is at fault, if these are no numbers of a layer at work."""
    with np.errstate(all="ignore"):  # what overflows is refused below
        template, target = state.template, state.target
    for space in state.config.spaces:
        for k, channel in enumerate(CHANNELS[space]):
            low, high = RANGES[space][k]
            width = high - low
            mean, std = template.mean[space][k], template.std[space][k]
            if not (low <= mean <= high and LEAST_STD * width <= std <= width):
                raise ValueError(
                    f"its template has mean {mean:g} and std {std:g} for {channel} of {space}; a "
                    f"mean lies in {low:g} to {high:g}, a std above 0 and up to {width:g}"
                )
            mean, std = target.mean[space][k], target.std[space][k]
            if not (low - width <= mean <= high + width and abs(std) <= 4 * width):
                raise ValueError(
                    f"what it learned aims at mean {mean:g} and std {std:g} for {channel} of "
                    f"{space}, far from any colour; train it anew"
                )
    for name, array in state.arrays.items():
        if "template" not in name and (most := np.abs(array).max(initial=0)) > LARGEST_WEIGHT:
            raise ValueError(
                f"{name} holds {most:g}; weights beyond {LARGEST_WEIGHT:g} "
                "are not those of a layer that was trained"
            )
    if _has_attention(state.config) and nodes_of(*_attention(state)) > MOST_NODES:
        raise ValueError(
            "its attention's weights are too large to be computed with; train it anew, with a "
            "lower layer_learning_rate"
        )


def _try(state: LayerState) -> None:
    """ValueError if the layer turns colours into no colours.

    Matching alone does not: its numbers have bounds, and what it gives is clipped.
    """
    if not (_has_attention(state.config) or state.config.preset == REFERENCE):
        return
    import torch

    from wsi_norm.lstainnorm.layer import layer_of

    with torch.no_grad():
        colours = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        if not bool(layer_of(state)(colours).isfinite().all()):
            raise ValueError("it turns colours into NaN or infinity; train it anew")


def _has_attention(config: LayerConfig) -> bool:
    return config.preset != REFERENCE and any("attention" in name for name in shapes(config))


def _attention(state: LayerState) -> list[npt.NDArray[np.float32]]:
    return [state.arrays[f"fusion.attention.{side}_weight"] for side in ("query", "key")]


def _build(facts: Mapping[str, Any], arrays: Arrays) -> LayerState:
    config = LayerConfig.from_dict(facts["config"])
    provenance = dict(facts["provenance"])
    if other := [name for name, array in arrays.items() if array.dtype.kind != "f"]:
        raise ValueError(f"{other[0]} holds {arrays[other[0]].dtype}, no floats")
    with np.errstate(over="ignore"):
        numbers = {name: array.astype(np.float32) for name, array in arrays.items()}
    state = LayerState(config, numbers, provenance)
    if config.preset == REFERENCE:
        return _of_reference(state)
    wanted = shapes(config)
    if missing := sorted(wanted.keys() - numbers.keys()):
        raise ValueError(f"it lacks {missing[0]}")
    if strange := sorted(numbers.keys() - wanted.keys()):
        raise ValueError(f"it has {strange[0]}, which is none of such a layer")
    for name, shape in wanted.items():
        if numbers[name].shape != shape:
            raise ValueError(f"{name} has the shape {numbers[name].shape}, not {shape}")
    return state


def _of_reference(state: LayerState) -> LayerState:
    """The same, if the layer in PyTorch takes it."""
    from wsi_norm.lstainnorm.layer import layer_of

    return layer_of(state).state()


def _reference(path: Path, arrays: Arrays, template: Mapping[str, Any] | None) -> LayerState:
    if template is None:
        raise CheckpointError(
            f"{path}: the authors' state dict holds no template; give it with --template "
            "(lab, hsv, rgb: mean and std, from their configuration)"
        )
    import torch

    from wsi_norm.lstainnorm.reference import ReferenceLayer

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        layer = ReferenceLayer.from_state(tensors, template)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {_one_line(error)} (in it or in its --template)") from error
    return layer.state()


def _bytes(path: Path) -> bytes:
    try:
        return read_bounded(path, LARGEST_BYTES)
    except OSError as error:
        hint = f"; packaged are {', '.join(CHECKPOINTS)}" if not path.suffix else ""
        raise CheckpointError(f"{path}: cannot read it: {error.strerror or error}{hint}") from error


def _parse(path: Path, data: bytes) -> tuple[Any, Arrays]:
    """(facts, arrays) of a file in either format; facts are None in a bare state dict."""
    if data[8:9] == b"{":
        return _safetensors(path, data)
    if data.startswith((b"PK", b"\x80")):
        return _pickled(path, data)
    if not data:
        raise damaged(path, EOFError("the file is empty"))
    raise CheckpointError(f"{path}: neither .safetensors nor .pt, going by its first bytes")


def _safetensors(path: Path, data: bytes) -> tuple[Any, Arrays]:
    try:
        try:
            arrays = safetensors.numpy.load(data)
        except KeyError:  # a type that NumPy lacks
            from safetensors.torch import load

            arrays = _arrays(path, load(data))
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        raise damaged(path, error) from error
    return _facts(path, header.get("__metadata__", {}).get(KEY)), arrays


def _pickled(path: Path, data: bytes) -> tuple[Any, Arrays]:
    """Of a .pt: our dictionary, or a bare state dict (under `state_dict` or `model` too)."""
    from wsi_norm.lstainnorm.pickled import tensors, unpickled

    held, facts = unpickled(path, io.BytesIO(data)), None
    if isinstance(held, Mapping):
        if isinstance(held.get(KEY), str):
            facts, held = _facts(path, held[KEY]), held.get("state")
        else:
            for key in ("state_dict", "model"):
                if isinstance(held.get(key), Mapping):
                    held = held[key]
    return facts, _arrays(path, tensors(held))


def _arrays(path: Path, state: Mapping[str, Tensor]) -> Arrays:
    """The numbers of tensors, if they are plain; views may claim more than there are."""
    from wsi_norm.lstainnorm.pickled import array, is_plain

    if sum(value.numel() for value in state.values()) > MOST_NUMBERS:
        raise _too_many(path)
    for name, value in state.items():
        if not is_plain(value):
            raise CheckpointError(f"{path}: {name} holds no plain numbers; save it as floats")
    return {name: array(value) for name, value in state.items()}


def _facts(path: Path, text: str | None) -> Any:
    try:
        if text is not None and len(text) > MOST_FACTS:
            raise ValueError(f"{len(text):,} letters of facts")
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    """What is said of a file that cannot be parsed."""
    return CheckpointError(
        f"{path}: truncated or damaged checkpoint ({_one_line(error)}); copy it again"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
