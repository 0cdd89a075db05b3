"""What many tests build or ask: a store and what it says of itself, a template, one-line errors.

Everything has a value that a test need not name; a test names what it is about.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import circmean, circstd
from skimage import color
from wsi_norm_cli import main

from wsi_norm.errors import ConfigError
from wsi_norm.lstainnorm import Statistics, Template
from wsi_norm.store import StoreMeta, TileStore

CMU = "slides/real/CMU-1-Small-Region.svs"
TCGA = "slides/real/TCGA-CR-7395-01A-01-TS1.svs"
"""The real slides, below `data_dir`."""

GLASS = (242, 240, 238)

TEMPLATE = Template(
    mean={
        "rgb": (0.70, 0.50, 0.67),
        "lab": (59.0, 27.0, -15.0),
        "hsv": (5.35, 0.32, 0.72),
        "hed": (0.040, 0.020, 0.025),
        "od": (0.27, 0.76, 0.43),
    },
    std={
        "rgb": (0.16, 0.17, 0.13),
        "lab": (15.0, 8.0, 7.5),
        "hsv": (0.30, 0.12, 0.14),
        "hed": (0.030, 0.018, 0.015),
        "od": (0.64, 0.77, 0.42),
    },
)
SLIDE = Statistics(
    mean={
        "rgb": (0.60, 0.45, 0.62),
        "lab": (52.0, 20.0, -18.0),
        "hsv": (5.0, 0.30, 0.66),
        "hed": (0.050, 0.025, 0.030),
        "od": (0.42, 0.61, 0.35),
    },
    std={
        "rgb": (0.20, 0.15, 0.14),
        "lab": (12.0, 9.0, 6.0),
        "hsv": (0.40, 0.10, 0.16),
        "hed": (0.025, 0.020, 0.016),
        "od": (0.45, 0.93, 0.50),
    },
    white=(0.97, 0.96, 0.95),
    tissue_pixels=10_000,
)
"""Statistics of a slide whose stain is not the template's."""

TILE_SIZE = 16
"""Of the tiles in the stores below, in px."""

META: dict[str, Any] = {
    "package_version": "0",
    "slide": {
        "name": "case",
        "file_name": "case.svs",
        "size_bytes": 1,
        "sha256_first_mib": "0" * 64,
        "vendor": "aperio",
        "reader": "openslide",
        "reader_version": "4",
        "width_px": 320,
        "height_px": 240,
        "mpp_um": 0.5,
        "mpp_source": "slide",
        "objective_power": 20.0,
        "damage": None,
        "icc_profile": False,
    },
    "tiling": {
        "tile_size_px": TILE_SIZE,
        "overlap_px": 0,
        "mpp_um": 0.5,
        "downsample": 1.0,
        "level": 0,
        "level_width_px": 320,
        "level_height_px": 240,
        "level_downsample": 1.0,
        "tiles_per_shard": 4,
    },
    "tissue": {"segmenter": "otsu", "min_tissue": 0.1, "regions_sha256": None},
    "model": {
        "sha256": "1" * 64,
        "preset": "paper",
        "statistics": "slide",
        "background": "preserve",
        "provenance": {"data": "none"},
    },
    "codec": "zstd",
    "software": {"numpy": "2"},
    "white": (0.95, 0.95, 0.95),
    "statistics": None,
    "warnings": (),
}


def store_meta(**changes: Any) -> StoreMeta:
    """What a store says of itself: `store_meta(slide={"vendor": None}, codec="png")`."""
    parts = ("slide", "tiling", "tissue", "model")
    changes |= {part: META[part] | changes[part] for part in parts if part in changes}
    return StoreMeta.model_validate(META | changes)


def create_store(path: Path, number: int, meta: StoreMeta | None = None, **arrays: Any) -> Any:
    """A store without tiles yet; noise and rows of coordinates, but for the arrays given."""
    rng = np.random.default_rng(1)
    facts: dict[str, Any] = {
        "coords": np.arange(2 * number, dtype=np.int64).reshape(number, 2) * TILE_SIZE,
        "tissue_fraction": np.linspace(0, 1, number, dtype=np.float32),
        "tissue_mask": rng.random((16, 20)) > 0.5,
        "mask_downsample": (16.0, 15.0),
        "thumbnail": rng.integers(0, 256, (24, 32, 3), np.uint8),
        "thumbnail_normalized": rng.integers(0, 256, (24, 32, 3), np.uint8),
    }
    meta = meta or store_meta(slide={"name": path.stem, "file_name": f"{path.stem}.svs"})
    return TileStore.create(path, meta, **(facts | arrays))


def written_store(path: Path, number: int, *, finish: bool = True) -> np.ndarray:
    """The random tiles of a store; `finish=False` leaves it as an interrupted run does."""
    store = create_store(path, number)
    tiles = np.random.default_rng(number).integers(0, 256, (number, *[TILE_SIZE] * 2, 3), np.uint8)
    for shard in range(store.shards):
        rows = store.rows(shard)
        store.write_shard(shard, tiles[rows], np.zeros(rows.stop - rows.start, np.uint8))
    if finish:
        store.finish()
    return tiles


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def moments_by_scikit_image(pixels: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and std of uint8 (M, 3) in each colour space, the hue's on the circle."""
    rgb = pixels.reshape(-1, 1, 3) / 255
    spaces = {
        "rgb": rgb,
        "lab": color.rgb2lab(rgb),
        "hsv": color.rgb2hsv(rgb) * [2 * np.pi, 1, 1],
        "hed": np.log(rgb) / np.log(1e-6) @ color.hed_from_rgb,
    }
    moments = {}
    for space, values in spaces.items():
        flat = values.reshape(-1, 3)
        mean, std = flat.mean(axis=0), flat.std(axis=0)
        if space == "hsv":
            mean[0], std[0] = circmean(flat[:, 0]), circstd(flat[:, 0])
        moments[space] = mean, std
    return moments


def density_by_numpy(pixels: np.ndarray, white: Any) -> tuple[np.ndarray, np.ndarray]:
    """Median of tissue's density relative to white, and how far the 95th percentile is above it."""
    dense = np.maximum(-np.log(np.maximum(pixels.reshape(-1, 3) / 255, 1 / 255) / white), 0)
    tissue = dense[dense.max(axis=1) > 0.1]
    median, strong = np.percentile(tissue, [50, 95], axis=0)
    return median, strong - median


def refusal(
    function: Callable[..., Any],
    *arguments: Any,
    kind: type[Exception] = ConfigError,
    **options: Any,
) -> str:
    """The one line that a user reads."""
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def exit_status(*arguments: object) -> int:
    """Of the command line, in this process."""
    return main.exit_status([str(argument) for argument in arguments])


def help_text(arguments: list[str], absent: tuple[str, ...]) -> str:
    """What the command line says, in a process of its own that must not import some packages."""
    script = (
        "import sys\n"
        "from wsi_norm_cli.main import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        f"loaded = [name for name in {absent!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
