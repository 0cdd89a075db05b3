"""Files of `torch.save`, read by PyTorch's weights-only loader: nothing in them is run."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.errors import CheckpointError
from wsi_norm.location import check_file
from wsi_norm.lstainnorm.checkpoint import damaged

ZIP = b"PK"
LARGEST_NETWORK_BYTES = 1 << 34
"""Of the weights of a network."""

PLAIN = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.bool}
    | {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
"""Types of numbers."""


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
    return unpickled(path, path, mapped)


def is_plain(value: Tensor) -> bool:
    """Whether a tensor holds its numbers as they are: dense, here, of a usual type."""
    odd = value.is_nested or value.is_meta or value.is_quantized
    return not odd and value.layout == torch.strided and value.dtype in PLAIN


def array(value: Tensor) -> npt.NDArray[Any]:
    """A plain tensor's numbers; bfloat16, which NumPy lacks, as float32."""
    value = value.detach().resolve_conj().resolve_neg()
    return np.array((value.float() if value.dtype == torch.bfloat16 else value).numpy(), order="C")


def unpickled(path: Path, source: Path | io.BytesIO, mapped: bool = False) -> Any:
    """What a file holds; CheckpointError if it is damaged, or would run code."""
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
        raise damaged(path, error) from error


def _check_archive(source: Path | io.BytesIO) -> None:
    """ValueError for a zip that unfolds to more than it is; what torch writes does not."""
    if zipfile.is_zipfile(source):
        size = source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes
        with zipfile.ZipFile(source) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:
                raise ValueError("it is compressed")
    if isinstance(source, io.BytesIO):
        source.seek(0)


def tensors(data: Any) -> dict[str, Tensor]:
    """The tensors of a state dict; none of anything else."""
    if not isinstance(data, Mapping):
        return {}
    return {
        name: value
        for name, value in data.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
