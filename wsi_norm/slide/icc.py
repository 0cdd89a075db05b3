"""A picture's ICC profile: what it is, and its colours in sRGB by a table of all of them.

Little CMS (Pillow's ImageCms) is asked once per profile for each of the 2**24 colours. A pixel then
costs one look-up and is to the bit what ImageCms makes of it.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from wsi_norm.choices import IccChoice
from wsi_norm.errors import WsiNormError

RGB = npt.NDArray[np.uint8]

IccStatus = Literal["none", "ignored", "applied", "srgb", "unusable"]
"""What became of a profile: there is none, it was left alone, pixels were brought to sRGB by it, it
says what sRGB says so that there is nothing to do, or it cannot be applied."""

MAX_BYTES = 16 << 20
"""The largest profiles in use, of printers, have 4 MB."""

ROUNDING = 1
"""Levels by which Little CMS moves colours that need not move."""

KEPT = 2
"""Profiles that a process remembers, the last ones: 48 MiB each, if they are applied."""

NODES = np.linspace(0, 255, 33).round().astype(np.uint8)
"""Levels per channel at which a profile is looked at before its whole table is made."""

_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""What ImageCms raises on damaged profiles."""


class Unusable(WsiNormError):  # noqa: N818
    """A profile cannot be applied; the text says why."""


@dataclass(frozen=True, eq=False)
class Icc:
    """What a picture's profile is, and what becomes of it.

    Attributes
    ----------
    status
        See `IccStatus`.
    description
        As the profile calls itself.
    sha256
        Digest of its bytes; None where there is none.
    problem
        Why it was to be applied and cannot be.
    table
        uint8 (256, 256, 256, 3): sRGB by red, green and blue; of a profile that is applied.
    """

    status: IccStatus
    description: str | None = None
    sha256: str | None = None
    problem: str | None = None
    table: RGB | None = None

    def to_srgb(self, pixels: RGB) -> RGB:
        """Pixels uint8 (H, W, 3) as they are to be worked on: in sRGB if the profile is applied."""
        if self.table is None:
            return pixels
        from wsi_norm.slide.lookup import looked_up  # compiled, for those alone who need it

        flat = np.ascontiguousarray(pixels).reshape(-1, 3)
        return looked_up(flat, self.table.reshape(-1, 3)).reshape(pixels.shape)


NO_PROFILE = Icc("none")

_kept: dict[tuple[str, IccChoice], Icc] = {}
_keeping = threading.Lock()


def examined(profile: bytes, choice: IccChoice) -> Icc:
    """A profile as it is to be used; its table is made here if it needs one."""
    status: IccStatus = "ignored"
    description = problem = table = None
    try:
        opened = _opened(profile)
        description = _one_line(opened.profile.profile_description)
        if choice == "apply":
            table = _table(opened)
            status = "srgb" if table is None else "applied"
    except Unusable as error:
        if choice == "apply":
            status, problem = "unusable", f"its ICC profile {error}"
    return Icc(status, description, hashlib.sha256(profile).hexdigest(), problem, table)


def icc_of(
    profile: bytes | None,
    choice: IccChoice,
    examine: Callable[[bytes, IccChoice], Icc] = examined,
) -> Icc:
    """As `examine` has it; the last few are remembered, so that all slides of a scanner share one.

    Parameters
    ----------
    profile
        As it lies in the file; None: there is none.
    choice
        What is to be done with it.
    examine
        `examined`, wherever that is to run.
    """
    if profile is None:
        return NO_PROFILE
    key = hashlib.sha256(profile).hexdigest(), choice
    with _keeping:  # threads that open slides at once wait for one table
        found = _kept.pop(key, None) or examine(profile, choice)
        _kept[key] = found
        while len(_kept) > KEPT:
            del _kept[next(iter(_kept))]
    return found


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    if len(profile) > MAX_BYTES:
        raise Unusable(f"has {len(profile) / 1e6:.0f} MB, which no profile has")
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except _ERRORS as error:
        raise Unusable(f"is damaged: {error}") from error


def _table(opened: ImageCms.ImageCmsProfile) -> RGB | None:
    """sRGB of every colour; None if that is the colour itself."""
    space = opened.profile.xcolor_space.strip()
    if space != "RGB":
        raise Unusable(f"is of {space} pixels, and these are RGB")
    try:
        srgb = ImageCms.createProfile("sRGB")
        intent: Any = ImageCms.getDefaultIntent(opened)
        transform = ImageCms.buildTransform(opened, srgb, "RGB", "RGB", renderingIntent=intent)
    except _ERRORS as error:
        raise Unusable(f"cannot be followed to sRGB: {error}") from error
    nodes = np.stack(np.meshgrid(NODES, NODES, NODES, indexing="ij"), axis=-1)
    found = _asked(transform, nodes.reshape(len(NODES), -1, 3)).reshape(nodes.shape)
    _check_plausible(found)
    if np.abs(found.astype(np.int16) - nodes).max() <= ROUNDING:
        return None
    table = np.empty((256, 256, 256, 3), np.uint8)
    plane = np.empty((256, 256, 3), np.uint8)
    plane[..., 1], plane[..., 2] = np.mgrid[:256, :256]
    for red in range(256):
        plane[..., 0] = red
        table[red] = _asked(transform, plane)
    return table


def _asked(transform: ImageCms.ImageCmsTransform, pixels: RGB) -> RGB:
    """What Little CMS makes of pixels (H, W, 3)."""
    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))


def _check_plausible(found: RGB) -> None:
    """Refuse what no camera's or screen's colours are, from a table of any size."""
    middle = len(found) // 2
    black, grey, white = (found[at, at, at].astype(int) for at in (0, middle, -1))
    pure = [int(colour.argmax()) for colour in (found[-1, 0, 0], found[0, -1, 0], found[0, 0, -1])]
    if white.min() - black.max() < 128 or not 32 <= grey.min() <= grey.max() <= 232:
        raise Unusable("is absurd: it makes white dark, or grey black or white")
    if pure != [0, 1, 2]:
        raise Unusable("is absurd: it makes red, green or blue another colour")


def _one_line(text: str | None) -> str | None:
    return " ".join(text.split()) if text else None
