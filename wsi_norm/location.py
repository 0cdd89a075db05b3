"""Where a file is: a path of this machine, or a URL that fsspec can open."""

from __future__ import annotations

import os
from pathlib import Path

from upath import UPath

from wsi_norm.errors import ConfigError

Location = Path | UPath


def location(name: str | Location | os.PathLike[str]) -> Location:
    """A URL (`s3://...`, `https://...`) as a UPath, anything else as a Path.

    Raises
    ------
    ConfigError
        The URL's protocol is none that fsspec knows.
    """
    text = str(name)
    if "://" not in text:
        return Path(text)
    try:
        return UPath(text)
    except ValueError as error:
        raise ConfigError(f"{text}: {error}; check the part before '://'") from error
