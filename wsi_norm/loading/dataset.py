"""TileDataset: normalised tiles for a torch DataLoader, by number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from wsi_norm.errors import ConfigError, StoreError
from wsi_norm.loading.handles import Handles, Opened
from wsi_norm.store import TileStore

if TYPE_CHECKING:
    from wsi_norm.loading.origin import Origin, Slides

Field = Literal["tile", "coords", "slide", "flags"]
"""What a sample may hold: see `TileDataset`."""


@dataclass(frozen=True)
class _Part:
    """A store of a dataset; small enough to travel to workers.

    Attributes
    ----------
    rows
        Those that take part, ascending; None: all.
    origin
        Of a plan: what its pixels are computed from.
    """

    path: Path
    identity: str
    slide: str
    tiles: int
    slots: int
    rows: npt.NDArray[np.int64] | None
    origin: Origin | None

    def __len__(self) -> int:
        return self.tiles if self.rows is None else len(self.rows)

    def row(self, number: int) -> int:
        """The row of the store that its `number`th tile here is."""
        return number if self.rows is None else int(self.rows[number])

    def shards(self, start: int) -> list[range]:
        """Its tiles shard by shard, numbered from `start`."""
        ends = np.arange(0, self.tiles + self.slots, self.slots).clip(max=self.tiles)
        if self.rows is not None:
            ends = np.searchsorted(self.rows, ends)
        return [range(start + a, start + b) for a, b in pairwise(ends.tolist()) if a < b]


class TileDataset(Dataset[Any]):
    """The tiles of one or more stores, in the order of the stores; map-style.

    Of a plan (`--layout plan`), which holds no pixels, tiles are read from its slide and normalised
    as they are asked for, on the CPU: the bytes that a store of tiles would hold. That takes some
    1 to 2 ms a tile, and opening a slide some more, so ask for tiles shard by shard: with a
    `ShardSampler`, or through a `TileStream`.

    Workers of a DataLoader may be forked or spawned, and threads may share a dataset: files are
    opened by whoever reads them, a few at a time.

    Parameters
    ----------
    stores
        One store or several.
    transform
        Called with each tile, a uint8 tensor (3, T, T); None leaves it.
    slides
        Where the slides of plans are: a folder (searched to any depth), files and folders, or the
        slides' names with their files. None: as the run.json beside each store says. A slide is
        known by its bytes.
    ckpt
        The checkpoint of plans that were made with one's own; None: a packaged one, or as run.json
        says. It is known by its digest.
    returns
        What a sample holds. One thing is the sample itself; several make a tuple in this order:
        "tile", "coords" (int64 (2,), x and y of the tile's corner in level-0 px), "slide" (the
        slide's name, as in the store), "flags" (an int, see `TileFlag`).
    skip_flags
        Leave out tiles with any of these bits, as `TileFlag.UNREADABLE | TileFlag.EDGE`.

    Raises
    ------
    StoreError
        A path is no complete store, or a plan is asked for flags of tiles that nobody has read.
    ConfigError
        `returns` names something else, or nothing says where a plan's slide is.
    SlideError
        The slide of a plan is gone or is another file by now.
    CheckpointError
        No checkpoint has the digest that a plan was made with.
    """

    def __init__(
        self,
        stores: str | Path | Iterable[str | Path],
        transform: Callable[[torch.Tensor], Any] | None = None,
        *,
        slides: Slides | None = None,
        ckpt: str | Path | None = None,
        returns: Field | Sequence[Field] = "tile",
        skip_flags: int = 0,
    ) -> None:
        self.paths = [stores] if isinstance(stores, str | Path) else list(stores)
        self.transform = transform
        self.returns = (returns,) if isinstance(returns, str) else tuple(returns)
        if unknown := set(self.returns) - set(get_args(Field)):
            raise ConfigError(
                f"returns: {sorted(map(str, unknown))[0]!r} is none of {', '.join(get_args(Field))}"
            )
        self._parts = _parts([Path(path) for path in self.paths], slides, ckpt, skip_flags)
        self._ends = list(accumulate(map(len, self._parts)))
        self._handles = Handles()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples in the order of `indices`; each store is asked once."""
        places = [self.locate(index) for index in indices]
        mine: dict[int, list[int]] = {}
        for number, (store, _) in enumerate(places):
            mine.setdefault(store, []).append(number)
        samples: list[Any] = [None] * len(places)
        for store, numbers in mine.items():
            part, rows = self._parts[store], [places[number][1] for number in numbers]
            opened = self._opened(part)
            tiles, flags = opened.read(rows)
            for number, row, tile, bits in zip(numbers, rows, tiles, flags.tolist(), strict=True):
                samples[number] = self._sample(part, opened.coords[row], tile, bits)
        return samples

    def locate(self, index: int) -> tuple[int, int]:
        """Which store (position in `paths`) and which of its rows an index means."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        index = int(index) % len(self)
        store = bisect_right(self._ends, index)
        return store, self._parts[store].row(index - self._start(store))

    def shards(self) -> list[range]:
        """Indices of tiles that lie together, on the slide and on the disk, in their order."""
        return [
            shard
            for store, part in enumerate(self._parts)
            for shard in part.shards(self._start(store))
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handles=Handles())

    def _start(self, store: int) -> int:
        return self._ends[store - 1] if store else 0

    def _opened(self, part: _Part) -> Opened:
        return self._handles.opened(part.path, part.identity, part.origin)

    def _sample(self, part: _Part, xy: Any, pixels: npt.NDArray[np.uint8], flags: int) -> Any:
        held: dict[str, Any] = {"slide": part.slide, "flags": flags}
        if "coords" in self.returns:
            held["coords"] = torch.tensor(xy)
        if "tile" in self.returns:
            tile = _planes(pixels)
            held["tile"] = tile if self.transform is None else self.transform(tile)
        sample = tuple(held[field] for field in self.returns)
        return sample[0] if len(sample) == 1 else sample


def _parts(
    paths: Sequence[Path], slides: Slides | None, ckpt: str | Path | None, skip_flags: int
) -> list[_Part]:
    stores = [TileStore.open(path) for path in paths]
    plans = {store.path: store.meta for store in stores if store.meta.layout == "plan"}
    origins: dict[Path, Origin] = {}
    if plans:
        from wsi_norm.loading.origin import origins_of  # what computes tiles takes a second to load

        origins = origins_of(plans, slides, ckpt)
    return [_part(store, origins.get(store.path), skip_flags) for store in stores]


def _part(store: TileStore, origin: Origin | None, skip_flags: int) -> _Part:
    meta, rows = store.meta, None
    if skip_flags:
        if origin is not None:
            raise StoreError(
                f"{store.path}: a plan, whose tiles nobody has read yet, so they have no flags; "
                "leave out skip_flags, or ask for flags with each tile"
            )
        rows = np.flatnonzero(store.flags & skip_flags == 0)
    return _Part(
        path=store.path.absolute(),
        identity=store.identity,
        slide=meta.slide.name,
        tiles=len(store),
        slots=meta.tiling.tiles_per_shard,
        rows=rows,
        origin=origin,
    )


def _planes(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (3, H, W) of (H, W, 3), by one thread: PyTorch would wake its pool for each tile."""
    tile = torch.empty((3, *pixels.shape[:2]), dtype=torch.uint8)
    for channel, plane in enumerate(tile.numpy()):
        plane[...] = pixels[..., channel]
    return tile
