"""The pyramid of both real slides, validated and read by programs that are not ours.

What is read back is a tile, held to the array `tiles` of the same store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_norm import RunConfig, TileStore, run

Other = Callable[..., Any]

ROOT = Path(__file__).parents[2]
TILE = 256

COMMON = """
import hashlib, os
import numpy as np
place, row, column, edge = arguments[0], *map(int, arguments[1:])
def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels, np.uint8).tobytes()).hexdigest()
def planes(level):
    part = level[:, row * edge:(row + 1) * edge, column * edge:(column + 1) * edge]
    return digest(np.moveaxis(np.asarray(part), 0, -1))
"""

READERS = {
    "ome_zarr": """
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
nodes = list(Reader(parse_url(place))())
image = nodes[0]
print(json.dumps([planes(image.data[0]), [list(level.shape) for level in image.data], len(nodes)]))
""",
    "ngff_zarr": """
import ngff_zarr
images = ngff_zarr.from_ngff_zarr(place, validate=True).images
assert images[0].axes_units["x"] == "micrometer" and images[0].scale["x"] == 0.5
print(json.dumps([planes(images[0].data), [list(image.data.shape) for image in images], None]))
""",
    "fastslide": """
import fastslide, tempfile
link = os.path.join(tempfile.mkdtemp(), "slide.ome.zarr")  # it goes by the name
os.symlink(place, link)
slide = fastslide.FastSlide.from_file_path(link)
assert np.allclose(slide.mpp, 0.5)
tile = slide.read_region((column * edge, row * edge), 0, (edge, edge)).numpy()
shapes = [[3, height, width] for width, height in slide.level_dimensions]
print(json.dumps([digest(np.moveaxis(tile, 0, -1)), shapes, None]))
""",
    "bioio": """
import bioio_ome_zarr
from bioio import BioImage
image = BioImage(place, reader=bioio_ome_zarr.Reader)
assert image.physical_pixel_sizes.X == 0.5 and image.channel_names == ["R", "G", "B"]
shapes = []
for level in image.resolution_levels:
    image.set_resolution_level(level)
    shapes.append(list(image.get_image_dask_data("CYX").shape))
image.set_resolution_level(0)
print(json.dumps([planes(image.get_image_dask_data("CYX")), shapes, None]))
""",
    "napari_ome_zarr": """
from napari_ome_zarr._reader import napari_get_reader
layers = napari_get_reader(place)(place)
(levels, about, kind) = layers[0]
assert kind == "image" and about["contrast_limits"] == [[0, 255]] * 3
names = [layer[1]["name"].split("/")[-1] for layer in layers if layer[2] == "labels"]
print(json.dumps([planes(levels[0]), [list(level.shape) for level in levels], names]))
""",
}


@pytest.fixture(scope="module", params=[0, 1], ids=["JPEG", "JPEG 2000"])
def store(
    request: pytest.FixtureRequest,
    real_slides: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> TileStore:
    """A real slide, with tiles and a pyramid."""
    output = tmp_path_factory.mktemp("pyramid")
    settings = {"layout": "both", "default_mpp": 0.5, "workers": 0, "device": "cpu"}
    config = RunConfig.model_validate({"output": output, "tile_size": TILE, **settings})
    slide = real_slides[request.param]
    (result,) = run(slide, config).slides
    assert result.status == "done", result.error
    return TileStore.open(output / f"{slide.stem}.zarr")


@pytest.mark.parametrize("program", ["ome-zarr-models", "yaozarrs"])
@pytest.mark.parametrize("part", ["", "labels/tissue", "labels/tiles"])
def test_validators_pass_it(other: Other, store: TileStore, program: str, part: str) -> None:
    code = """
import os, subprocess
program = os.path.join(os.path.dirname(sys.executable), arguments[0])
done = subprocess.run([program, "validate", arguments[1]], capture_output=True, text=True)
print(json.dumps([done.returncode, done.stdout[-2000:] + done.stderr[-2000:]]))
"""
    place = store.path / "pyramid" / part
    status, said = other(code, program, place, needs=program.replace("-", "_"))
    assert status == 0, said


@pytest.mark.parametrize("reader", READERS)
def test_readers_give_the_pixels_of_the_tiles(other: Other, store: TileStore, reader: str) -> None:
    row = int(store.tissue_fraction.argmax())
    grid = store.meta.tiling.grid(store.meta.slide)
    cell = grid.tile_at(*store.coords[row].tolist())
    place = store.path / "pyramid"
    code = COMMON + READERS[reader]
    digest, shapes, more = other(code, place, *cell, TILE, needs=reader)
    assert digest == hashlib.sha256(store[row].tobytes()).hexdigest()
    assert shapes[0] == [3, grid.rows * TILE, grid.columns * TILE]
    assert len(shapes) == grid.levels
    for above, below in pairwise(shapes):
        assert below == [3, -(-above[1] // 2), -(-above[2] // 2)]
    if reader == "napari_ome_zarr":
        assert sorted(more) == ["tiles", "tissue"]
    assert len(np.unique(store[row])) > 100


@pytest.mark.parametrize("program", ["fastslide", "ome_zarr", "bioio", "ngff_zarr"])
def test_the_lines_of_the_docs_work(
    other: Other, store: TileStore, program: str, tmp_path: Path
) -> None:
    section = (ROOT / "docs" / "outputs.md").read_text().partition("## Pyramid")[2]
    blocks = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    (block,) = (
        block for block in blocks if f"from {program}" in block or f"import {program}\n" in block
    )
    (tmp_path / "normalized").mkdir()
    (tmp_path / "normalized" / "NAME.zarr").symlink_to(store.path)
    code = f"import os\nos.chdir(arguments[0])\n{block}\nprint(json.dumps('done'))"
    assert other(code, tmp_path, needs=program) == "done"
