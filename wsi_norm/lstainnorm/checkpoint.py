"""Checkpoints: one file with weights, configuration, template and provenance; no code runs.

`.safetensors` is the default. `.pt` holds the same and is read with torch's weights-only loader,
which refuses any pickle that would call a function.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from wsi_norm.errors import CheckpointError
from wsi_norm.lstainnorm.layer import LayerConfig, LStainNorm
from wsi_norm.lstainnorm.template import Template, triple

FORMAT = "wsi-norm-checkpoint-1"
KEY = "wsi_norm"
"""Where both formats keep the facts, as one JSON text: equal layers are equal files."""

DAMAGE = (
    safetensors.SafetensorError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    BadZipFile,
)
"""What loaders raise on a damaged file."""

PACKAGED = Path(__file__).parent / "packaged.safetensors"


def save_checkpoint(
    layer: LStainNorm, path: str | Path, provenance: Mapping[str, Any] | None = None
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
    try:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(state, path, metadata={KEY: facts})
        elif path.suffix in {".pt", ".pth"}:
            torch.save({KEY: facts, "state": state}, path)
        else:
            raise CheckpointError(f"{path}: name the checkpoint .safetensors or .pt")
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot write the checkpoint: {error}") from error


def load_checkpoint(
    path: str | Path | None = None, template: Mapping[str, Any] | None = None
) -> LStainNorm:
    """Read a layer, without unpickling code.

    Parameters
    ----------
    path
        `.safetensors` or `.pt`; None is the checkpoint inside the package.
    template
        Only for the authors' own state dict, which lacks it: "lab", "hsv", "rgb" to (mean, std).

    Returns
    -------
    LStainNorm in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of another format, or would run code when unpickled.
    """
    path = PACKAGED if path is None else Path(path)
    facts, state = _read(path)
    bad = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(f"{path}: damaged checkpoint: {bad[0]} holds NaN or infinity")
    if facts is None and "mu_lab" in state:
        return _reference(path, state, template).eval()
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a wsi-norm checkpoint (no {FORMAT!r} in it); make one with "
            "'wsi-norm fit-template', or name the right file"
        )
    if template is not None:
        raise CheckpointError(f"{path}: it has a template of its own; leave out --template")
    try:
        return _build(facts, state).eval()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint: {_one_line(error)}") from error


def load_weights(path: str | Path) -> Any:
    """What a `.pt` or Lightning checkpoint holds, on the CPU; no code runs.

    Raises
    ------
    CheckpointError
        It is missing, damaged, or would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({_one_line(error)})") from error


def sha256_of(path: str | Path | None = None) -> str:
    """SHA-256 of a checkpoint file (None: the packaged one)."""
    return hashlib.sha256((PACKAGED if path is None else Path(path)).read_bytes()).hexdigest()


def _build(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> LStainNorm:
    config = LayerConfig.from_dict(facts["config"])
    rows = [state[f"normalization.template_{name}"].tolist() for name in ("mean", "std")]
    mean, std = (
        {space: triple(row) for space, row in zip(config.spaces, values, strict=True)}
        for values in rows
    )
    layer = LStainNorm(
        config.preset,
        config.spaces,
        Template(mean, std),
        statistics=config.statistics,
        background=config.background,
        circular_hue=config.circular_hue,
        provenance=facts["provenance"],
    )
    layer.load_state_dict(dict(state))
    return layer


def _reference(
    path: Path, state: Mapping[str, Tensor], template: Mapping[str, Any] | None
) -> LStainNorm:
    if template is None:
        raise CheckpointError(
            f"{path}: the authors' state dict holds no template; give it with --template "
            "(lab, hsv, rgb: mean and std, from their configuration)"
        )
    try:
        return LStainNorm.from_reference(state, template)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {_one_line(error)} (in it or in its --template)") from error


def _read(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """(facts, state) of a file in either format; facts are None in a bare state dict."""
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            head = file.read(9)
            file.seek(0)
            if head[8:9] == b"{":
                return _read_safetensors(path)
            if head.startswith((b"PK", b"\x80")):
                return _split(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: loading it would run code from the file; "
            "save weights only (a state dict, or .safetensors)"
        ) from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise CheckpointError(f"{path}: cannot read it: {error.strerror}") from error
        raise CheckpointError(
            f"{path}: truncated or damaged checkpoint ({_one_line(error)}); copy it again"
        ) from error
    raise CheckpointError(f"{path}: neither .safetensors nor .pt, going by its first bytes")


def _read_safetensors(path: Path) -> tuple[Any, dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as tensors:
        facts = (tensors.metadata() or {}).get(KEY)
        state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return json.loads(facts) if facts is not None else None, state


def _split(data: Any) -> tuple[Any, dict[str, Tensor]]:
    """A loaded .pt: our dictionary, or a bare state dict (under `state_dict` or `model` too)."""
    if not isinstance(data, Mapping):
        return None, {}
    if isinstance(data.get(KEY), str):
        return json.loads(data[KEY]), _tensors(data["state"])
    for key in ("state_dict", "model"):
        if isinstance(data.get(key), Mapping):
            data = data[key]
    return None, _tensors(data)


def _tensors(data: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in data.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
