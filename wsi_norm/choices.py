"""What a setting may be: the one list of names that can be chosen, and where each one lives.

A new reader, segmenter, normaliser, codec or format is a function in its room and a line here;
settings, command line and help follow. Nothing is imported before it is used, so help costs no
import.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

StatisticsMode = Literal["slide", "tile"]
"""Whose mean and std: one set for the slide (no seams), or each tile's own (the paper's way)."""

Background = Literal["preserve", "normalize"]
"""Whether glass keeps its colour, or every pixel is transformed."""

IccChoice = Literal["apply", "ignore"]
"""Whether a picture's ICC profile brings its colours to sRGB, or they stay as they are stored."""

Resample = Literal["auto", "exact"]
"""Whether a JPEG that holds twice the target's resolution, or 4 or 8 times, may be decoded at that
fraction, or all that is read is decoded in full and resized."""

ColourCheck = Literal["refuse", "warn"]
"""What becomes of a slide that looks like fluorescence, or whose glass is not neutral."""

Layout = Literal["tiles", "pyramid", "both", "plan"]
"""What of the pixels a store holds: an array of tiles, an image for viewers, both, or nothing."""

HOMES: dict[Layout, tuple[Literal["tiles", "pyramid"], ...]] = {
    "tiles": ("tiles",),
    "pyramid": ("pyramid",),
    "both": ("tiles", "pyramid"),
    "plan": (),
}
"""Where the pixels of a store lie, by its layout."""

CHECKPOINTS = ("density", "paper")
"""Checkpoints inside the package: a name that can stand where a file can; the first is the
default."""

DEVICE = re.compile(r"auto|cpu|cuda(?::(\d+))?")
"""Where to compute; "auto" is the first CUDA device, else the CPU."""


def imported(place: str) -> Any:
    """What is at "module:attribute", imported."""
    module, _, attributes = place.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


class Choices(Mapping[str, Any]):
    """Names of one kind, and what each stands for.

    Parameters
    ----------
    kind
        What they are, for messages.
    places
        Name to the thing itself, or to where it is: "module:attribute", imported on first use.
    """

    def __init__(self, kind: str, **places: Any) -> None:
        self.kind = kind
        self._places = places

    def __getitem__(self, name: str) -> Any:
        place = self._places[name]
        return imported(place) if isinstance(place, str) else place

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places  # nothing is imported to answer this

    def place(self, name: str) -> str | None:
        """Where another process finds it; None for a thing that was added in this one."""
        place = self._places[name]
        return place if isinstance(place, str) else None

    def add(self, name: str, thing: Any) -> None:
        """Add a choice of one's own, for this process and those that import its module."""
        self._places[name] = thing

    def remove(self, name: str) -> None:
        """Take a choice back."""
        del self._places[name]


NORMALIZERS = Choices(
    "normalizer",
    lstainnorm="wsi_norm.normalizers.engine:lstainnorm",
    macenko="wsi_norm.normalizers.classic:macenko",
    reinhard="wsi_norm.normalizers.classic:reinhard",
    none="wsi_norm.normalizers.classic:none",
)
"""(Model, device, batch_size) -> StainNormalizer; see `wsi_norm.normalizers.base`."""

READERS = Choices(
    "reader",
    direct="wsi_norm.slide.readers.direct:DirectReader.proven",
    openslide="wsi_norm.slide.readers.openslide:OpenSlideReader",
    tifffile="wsi_norm.slide.readers.tifffile:TifffileReader",
    tiffslide="wsi_norm.slide.readers.tiffslide:TiffSlideReader",
    image="wsi_norm.slide.readers.image:ImageReader",
)
"""(path) -> Reader; see `wsi_norm.slide.readers.base`. `auto` tries them in this order."""

SEGMENTERS = Choices(
    "segmenter",
    otsu="wsi_norm.tissue.segmenters:otsu",
    hsv="wsi_norm.tissue.segmenters:hsv",
    none="wsi_norm.tissue.segmenters:everything",
)
"""(thumbnail uint8 (h, w, 3), mpp_um) -> bool (h, w): where tissue is."""

CODECS = Choices(
    "codec",
    zstd="wsi_norm.store.encoding:ZSTD",
    blosc="wsi_norm.store.encoding:BLOSC",
    none="wsi_norm.store.encoding:NONE",
    jpeg="wsi_norm.store.encoding:JPEG",
)
"""Compression of tiles; see `wsi_norm.store.encoding`."""

LOSSY = ("jpeg",)
"""Codecs that have a quality: what comes back of a tile is not quite what was stored."""

EXPORTS = Choices(
    "format",
    **{"ome-tiff": "wsi_norm.export.ometiff:OME_TIFF"},
    h5="wsi_norm.export.h5:CLAM",
    trident="wsi_norm.export.h5:TRIDENT",
    webdataset="wsi_norm.export.webdataset:WEBDATASET",
    png="wsi_norm.export.images:PNG",
    jpeg="wsi_norm.export.images:JPEG",
    spatialdata="wsi_norm.export.spatialdata:SPATIALDATA",
    geojson="wsi_norm.export.geojson:GEOJSON",
)
"""Formats that stores are exported to; see `wsi_norm.export.base`."""
