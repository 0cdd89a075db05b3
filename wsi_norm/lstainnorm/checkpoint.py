"""Checkpoints: one file with weights, configuration, template and provenance; no code runs.

`.safetensors` is the default. `.pt` holds the same and is read with torch's weights-only loader,
which refuses any pickle that would call a function.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from wsi_norm.choices import CHECKPOINTS
from wsi_norm.colorspace import CONVERSIONS, RANGES
from wsi_norm.errors import CheckpointError
from wsi_norm.location import check_file, read_bounded, write_whole
from wsi_norm.lstainnorm.base import LayerConfig, StainLayer
from wsi_norm.lstainnorm.fusion import ColourAttention
from wsi_norm.lstainnorm.layer import make_layer
from wsi_norm.lstainnorm.moments import triple
from wsi_norm.lstainnorm.reference import ReferenceLayer
from wsi_norm.lstainnorm.template import Template

FORMAT = "wsi-norm-checkpoint-1"
ZIP = b"PK"
KEY = "wsi_norm"
"""Where both formats keep the facts, as one JSON text: equal layers are equal files."""

PACKAGED = {name: Path(__file__).parent / f"{name}.safetensors" for name in CHECKPOINTS}
"""The checkpoints inside the package, by the names that stand for them."""

DEFAULT = CHECKPOINTS[0]

LARGEST_BYTES = 1 << 29
"""Of a checkpoint; a layer is a few kilobytes, but the authors' files hold a network beside it."""
LARGEST_NETWORK_BYTES = 1 << 34
"""Of the weights of a network."""
MOST_NUMBERS = 1 << 28
"""In the tensors of a checkpoint, which may be views of less."""
PLAIN = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.bool}
    | {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
"""Types of the numbers in a checkpoint; those of a layer are floats."""
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
    state = {name: value.detach().cpu().contiguous() for name, value in layer.state_dict().items()}
    facts = json.dumps(
        {
            "format": FORMAT,
            "config": layer.config.to_dict(),
            "provenance": dict(layer.provenance if provenance is None else provenance),
        }
    )
    if path.suffix == ".safetensors":
        data = safetensors.torch.save(state, metadata={KEY: facts})
    elif path.suffix in {".pt", ".pth"}:
        buffer = io.BytesIO()
        torch.save({KEY: facts, "state": state}, buffer)
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
    path = PACKAGED.get(str(path or DEFAULT)) or Path(str(path))
    data = _bytes(path)
    facts, state = _parse(path, data)
    _check_tensors(path, state)
    if facts is None and "mu_lab" in state:
        layer: StainLayer = _reference(path, state, template)
    elif not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a wsi-norm checkpoint (no {FORMAT!r} in it); make one with "
            "'wsi-norm fit-template', or name the right file"
        )
    elif template is not None:
        raise CheckpointError(f"{path}: it has a template of its own; leave out --template")
    else:
        try:
            layer = _build(facts, state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged checkpoint: {_one_line(error)}") from error
    try:
        _check_numbers(layer)
    except ValueError as error:
        raise CheckpointError(f"{path}: no usable checkpoint: {error}") from error
    return Checkpoint(layer.eval(), hashlib.sha256(data).hexdigest())


def load_weights(path: str | Path) -> Any:
    """What a file of `torch.save` holds, on the CPU; nothing in it is run.

    Raises
    ------
    CheckpointError
        It is missing or damaged, or would run code.
    """
    path = Path(path)
    try:
        check_file(path, LARGEST_NETWORK_BYTES)
        with path.open("rb") as file:
            mapped = file.read(2) == ZIP  # only what is used of it is read, then
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read it: {error.strerror}") from error
    return _unpickled(path, path, mapped)


def is_plain(value: Tensor) -> bool:
    """Whether a tensor holds its numbers as they are: dense, here, of a usual type."""
    odd = value.is_nested or value.is_meta or value.is_quantized
    return not odd and value.layout == torch.strided and value.dtype in PLAIN


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Tensors of finite numbers, and no more of them than there can be."""
    if sum(value.numel() for value in state.values()) > MOST_NUMBERS:
        raise CheckpointError(f"{path}: damaged checkpoint: it claims too many numbers for a layer")
    for name, value in state.items():
        if not is_plain(value):
            raise CheckpointError(f"{path}: {name} holds no plain numbers; save it as floats")
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: damaged checkpoint: {name} holds NaN or infinity")


def _check_numbers(layer: StainLayer) -> None:
    """ValueError, with the one that is at fault, if these are no numbers of a layer at work."""
    template, target = layer.template, layer.target
    for space in layer.config.spaces:
        for k, channel in enumerate(CONVERSIONS[space].channels):
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
    for name, parameter in layer.named_parameters():
        value = parameter.detach()
        if bool((value.abs() > LARGEST_WEIGHT).any()):
            raise ValueError(
                f"{name} holds {float(value.abs().max()):g}; weights beyond {LARGEST_WEIGHT:g} "
                "are not those of a layer that was trained"
            )
    attention = getattr(layer.fusion, "attention", None)
    if isinstance(attention, ColourAttention) and attention.nodes() > MOST_NODES:
        raise ValueError(
            "its attention's weights are too large to be computed with; train it anew, with a "
            "lower layer_learning_rate"
        )
    with torch.no_grad():
        colours = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        if not bool(layer.eval()(colours).isfinite().all()):
            raise ValueError("it turns colours into NaN or infinity; train it anew")


def _build(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> StainLayer:
    config = LayerConfig.from_dict(facts["config"])
    if other := [name for name, value in state.items() if not value.is_floating_point()]:
        raise ValueError(f"{other[0]} holds {state[other[0]].dtype}, no floats")
    rows = [state[f"normalization.template_{name}"].tolist() for name in ("mean", "std")]
    mean, std = (
        {space: triple(row) for space, row in zip(config.spaces, values, strict=True)}
        for values in rows
    )
    layer = make_layer(config, Template(mean, std), facts["provenance"])
    layer.load_state_dict(dict(state))
    return layer


def _reference(
    path: Path, state: Mapping[str, Tensor], template: Mapping[str, Any] | None
) -> ReferenceLayer:
    if template is None:
        raise CheckpointError(
            f"{path}: the authors' state dict holds no template; give it with --template "
            "(lab, hsv, rgb: mean and std, from their configuration)"
        )
    try:
        return ReferenceLayer.from_state(state, template)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {_one_line(error)} (in it or in its --template)") from error


def _bytes(path: Path) -> bytes:
    try:
        return read_bounded(path, LARGEST_BYTES)
    except OSError as error:
        hint = f"; packaged are {', '.join(CHECKPOINTS)}" if not path.suffix else ""
        raise CheckpointError(f"{path}: cannot read it: {error.strerror or error}{hint}") from error


def _parse(path: Path, data: bytes) -> tuple[Any, dict[str, Tensor]]:
    """(facts, state) of a file in either format; facts are None in a bare state dict."""
    if data[8:9] == b"{":
        return _safetensors(path, data)
    if data.startswith((ZIP, b"\x80")):
        return _split(path, _unpickled(path, io.BytesIO(data)))
    if not data:
        raise _damaged(path, EOFError("the file is empty"))
    raise CheckpointError(f"{path}: neither .safetensors nor .pt, going by its first bytes")


def _safetensors(path: Path, data: bytes) -> tuple[Any, dict[str, Tensor]]:
    try:
        state = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        raise _damaged(path, error) from error
    return _facts(path, header.get("__metadata__", {}).get(KEY)), state


def _unpickled(path: Path, source: Path | io.BytesIO, mapped: bool = False) -> Any:
    try:
        _check_archive(source)
        with warnings.catch_warnings(action="ignore"):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: loading it would run code from the file; "
            "save weights only (a state dict, or .safetensors)"
        ) from error
    except (  # what torch.load raises on damaged bytes
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        raise _damaged(path, error) from error


def _check_archive(source: Path | io.BytesIO) -> None:
    """ValueError for a zip that unfolds to more than it is; what torch writes does not."""
    if zipfile.is_zipfile(source):
        size = source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes
        with zipfile.ZipFile(source) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:
                raise ValueError("it is compressed")
    if isinstance(source, io.BytesIO):
        source.seek(0)


def _split(path: Path, data: Any) -> tuple[Any, dict[str, Tensor]]:
    """A loaded .pt: our dictionary, or a bare state dict (under `state_dict` or `model` too)."""
    if not isinstance(data, Mapping):
        return None, {}
    if isinstance(data.get(KEY), str):
        return _facts(path, data[KEY]), _tensors(data.get("state"))
    for key in ("state_dict", "model"):
        if isinstance(data.get(key), Mapping):
            data = data[key]
    return None, _tensors(data)


def _facts(path: Path, text: str | None) -> Any:
    try:
        if text is not None and len(text) > MOST_FACTS:
            raise ValueError(f"{len(text):,} letters of facts")
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: truncated or damaged checkpoint ({_one_line(error)}); copy it again"
    )


def _tensors(data: Any) -> dict[str, Tensor]:
    if not isinstance(data, Mapping):
        return {}
    return {
        name: value
        for name, value in data.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
