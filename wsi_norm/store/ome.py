"""What the group `pyramid` says of itself: an image of OME-Zarr 0.5, and its labels.

Level 0 has the pixels of the whole tile grid: its last row and column may reach beyond the slide.
Lengths are in micrometres, from the centre of the image's first pixel. No clock and no path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from wsi_norm.geometry import Tile, TileGrid
from wsi_norm.store.metadata import DIMENSIONS, StoreMeta
from wsi_norm.store.objects import LABELS
from wsi_norm.store.pyramid import FILL, LEVEL, lower_groups, seal_bytes

VERSION = "0.5"

CHANNELS = {"R": "FF0000", "G": "00FF00", "B": "0000FF"}

COLOURS = {"tissue": [255, 210, 0, 96], "tiles": [0, 160, 255, 64]}
"""RGBA in which a viewer may show a label."""

CODEC = ZstdCodec(level=LEVEL, checksum=True)


def create_pyramid(
    store: zarr.Group,
    meta: StoreMeta,
    cells: Sequence[Tile],
    tissue_mask: npt.NDArray[np.bool_],
    mask_downsample: tuple[float, float],
) -> None:
    """All of the pyramid but its chunks, and the array of their seals.

    Parameters
    ----------
    cells
        Of the tiles, in their order.
    tissue_mask, mask_downsample
        bool (h, w), and level-0 px of the slide per px in x and y.
    """
    tiling, grid = meta.tiling, meta.tiling.grid(meta.slide)
    edge, levels = tiling.tile_size_px, grid.levels
    slots = tiling.tiles_per_shard
    seals = -(-len(cells) // slots) + len(lower_groups(cells, levels, slots))
    store.create_array(
        "seals",
        shape=(seals, seal_bytes(slots)),
        chunks=(1, seal_bytes(slots)),
        dtype=np.uint8,
        fill_value=0,
        compressors=None,
        dimension_names=DIMENSIONS["seals"],
    )
    scales = [(tiling.mpp_um * 2**level,) * 2 for level in range(levels)]
    image = {
        "multiscales": [_multiscale(meta.slide.name, "cyx", scales, scales[0])],
        "omero": {
            "channels": [_channel(*channel) for channel in CHANNELS.items()],
            "rdefs": {"model": "color"},
        },
    }
    group = store.create_group("pyramid", attributes={"ome": {"version": VERSION, **image}})
    for level in range(levels):
        height, width = (-(-n * edge // 2**level) for n in (grid.rows, grid.columns))
        group.create_array(
            str(level),
            shape=(3, height, width),
            chunks=(3, edge, edge),
            dtype=np.uint8,
            fill_value=FILL,
            compressors=[CODEC],
            dimension_names=tuple("cyx"),
        )
    labels = group.create_group(
        "labels", attributes={"ome": {"version": VERSION, "labels": list(LABELS)}}
    )
    across, down = (scale * meta.slide.mpp_um for scale in mask_downsample)
    edge_um = edge * tiling.mpp_um
    tissue, numbers = tissue_mask.astype(np.uint8), _numbered(grid, cells)
    _create_label(labels, "tissue", tissue, (down, across), scales)
    _create_label(labels, "tiles", numbers, (edge_um, edge_um), scales)


def _numbered(grid: TileGrid, cells: Iterable[Tile]) -> npt.NDArray[np.int32]:
    """(rows, columns): the number of each cell's tile in the store, from 1; 0 for none."""
    numbers = np.zeros((grid.rows, grid.columns), np.int32)
    for number, cell in enumerate(cells, start=1):
        numbers[cell.row, cell.column] = number
    return numbers


def _create_label(
    labels: zarr.Group,
    name: str,
    data: npt.NDArray[Any],
    scale: tuple[float, float],
    image: Sequence[tuple[float, float]],
) -> None:
    """A label with pixels of this height and width, um, and as many levels as its `image`.

    Each level is an object. Below the first they have every second row and column.
    """
    scales = [(scale[0] * 2**level, scale[1] * 2**level) for level in range(len(image))]
    about = {"colors": [{"label-value": 1, "rgba": COLOURS[name]}], "source": {"image": "../../"}}
    ome = {
        "version": VERSION,
        "multiscales": [_multiscale(name, "yx", scales, image[0], "nearest")],
        "image-label": about,
    }
    group = labels.create_group(name, attributes={"ome": ome})
    for level in range(len(scales)):
        array = group.create_array(
            str(level),
            shape=data.shape,
            chunks=data.shape,
            dtype=data.dtype,
            fill_value=0,
            compressors=[CODEC],
            dimension_names=tuple("yx"),
            config={"write_empty_chunks": True},  # its existence says that it is not lost
        )
        array[...] = data
        data = data[::2, ::2]


def _multiscale(
    name: str,
    axes: str,
    scales: Iterable[tuple[float, float]],
    first: tuple[float, float],
    method: str = "mean",
) -> dict[str, Any]:
    """Levels with pixels of these heights and widths, um, over an image whose pixels are `first`.

    `method` says how a level is made of the one above it.
    """
    channels, datasets = len(axes) - 2, []
    for level, scale in enumerate(scales):
        shift = [(um - of_image) / 2 for um, of_image in zip(scale, first, strict=True)]
        transforms = [
            {"type": "scale", "scale": [1.0] * channels + [*scale]},
            {"type": "translation", "translation": [0.0] * channels + shift},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    space = {"type": "space", "unit": "micrometer"}
    return {
        "name": name,
        "axes": [
            {"name": axis, **({"type": "channel"} if axis == "c" else space)} for axis in axes
        ],
        "datasets": datasets,
        "type": method,
    }


def _channel(label: str, colour: str) -> dict[str, Any]:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {"label": label, "color": colour, "window": window, "active": True}
