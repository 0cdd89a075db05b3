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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from wsi_norm.choices import CHECKPOINTS
from wsi_norm.errors import CheckpointError
from wsi_norm.location import write_whole
from wsi_norm.lstainnorm.base import LayerConfig, StainLayer
from wsi_norm.lstainnorm.layer import make_layer
from wsi_norm.lstainnorm.moments import triple
from wsi_norm.lstainnorm.reference import ReferenceLayer
from wsi_norm.lstainnorm.template import Template

FORMAT = "wsi-norm-checkpoint-1"
KEY = "wsi_norm"
"""Where both formats keep the facts, as one JSON text: equal layers are equal files."""

PACKAGED = {name: Path(__file__).parent / f"{name}.safetensors" for name in CHECKPOINTS}
"""The checkpoints inside the package, by the names that stand for them."""

DEFAULT = CHECKPOINTS[0]


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
        The file is missing, damaged, of another format, or would run code when unpickled.
    """
    path = PACKAGED.get(str(path or DEFAULT)) or Path(str(path))
    data = _bytes(path)
    facts, state = _parse(path, data)
    bad = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(f"{path}: damaged checkpoint: {bad[0]} holds NaN or infinity")
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
    return Checkpoint(layer.eval(), hashlib.sha256(data).hexdigest())


def load_weights(path: str | Path) -> Any:
    """What a file of `torch.save` holds, on the CPU; nothing in it is run.

    Raises
    ------
    CheckpointError
        It is missing or damaged, or would run code.
    """
    return _unpickled(Path(path), _bytes(Path(path)))


def _build(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> StainLayer:
    config = LayerConfig.from_dict(facts["config"])
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
        return path.read_bytes()
    except OSError as error:
        hint = f"; packaged are {', '.join(CHECKPOINTS)}" if not path.suffix else ""
        raise CheckpointError(f"{path}: cannot read it: {error.strerror or error}{hint}") from error


def _parse(path: Path, data: bytes) -> tuple[Any, dict[str, Tensor]]:
    """(facts, state) of a file in either format; facts are None in a bare state dict."""
    if data[8:9] == b"{":
        return _safetensors(path, data)
    if data.startswith((b"PK", b"\x80")):
        return _split(path, _unpickled(path, data))
    if not data:
        raise _damaged(path, EOFError("the file is empty"))
    raise CheckpointError(f"{path}: neither .safetensors nor .pt, going by its first bytes")


def _safetensors(path: Path, data: bytes) -> tuple[Any, dict[str, Tensor]]:
    try:
        state = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return _facts(path, header.get("__metadata__", {}).get(KEY)), state


def _unpickled(path: Path, data: bytes) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
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
        BadZipFile,
    ) as error:
        raise _damaged(path, error) from error


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
        return None if text is None else json.loads(text)
    except ValueError as error:
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
