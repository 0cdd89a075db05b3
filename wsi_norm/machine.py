"""Placeholder until the branch of machine.py is merged."""

from __future__ import annotations

import re
from typing import Any

from wsi_norm.errors import ConfigError


def resolve_device(device: str) -> Any:
    """The torch device that "auto", "cpu", "cuda" or "cuda:i" names here."""
    import torch

    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise ConfigError(f"device {device!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
    if not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this PyTorch sees no CUDA device; use --device cpu")
    index = int(match[1] or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r}: only {torch.cuda.device_count()} CUDA device(s) here"
        )
    return torch.device("cuda", index)
