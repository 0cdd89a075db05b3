"""Polygons against ray casting; GeoJSON and mask images, good and damaged."""

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from wsi_norm.errors import ConfigError
from wsi_norm.tissue import Polygon, polygons_mask, read_geojson, read_mask_image


def inside_ring(ring, x: float, y: float) -> bool:
    """Ray casting."""
    closed = [*map(tuple, ring), tuple(ring[0])]
    crossings = 0
    for (xa, ya), (xb, yb) in pairwise(closed):
        if (ya > y) != (yb > y) and x < xa + (y - ya) / (yb - ya) * (xb - xa):
            crossings += 1
    return crossings % 2 == 1


def test_polygons_with_holes_equal_ray_casting():
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
    star = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(60, 150, (11, 1))
    star += [201.3, 170.7]
    hole = np.asarray([[181.1, 150.2], [221.7, 152.9], [207.3, 188.4]])
    small = np.asarray([[188.4, 154.3], [212.2, 155.9], [201.6, 172.1]])
    polygons = [Polygon(star, (hole,)), Polygon(small)]
    got = polygons_mask(polygons, (40, 50), (8.0, 9.0))
    expected = np.zeros((40, 50), bool)
    for row, column in np.ndindex(40, 50):
        x, y = (column + 0.5) * 8.0, (row + 0.5) * 9.0
        in_star = inside_ring(star, x, y) and not inside_ring(hole, x, y)
        expected[row, column] = in_star or inside_ring(small, x, y)
    np.testing.assert_array_equal(got, expected)
    assert 0.1 < got.mean() < 0.6
    assert got.sum() > polygons_mask(polygons[:1], (40, 50), (8.0, 9.0)).sum()


def test_polygon_partly_outside_is_clipped():
    square = Polygon(np.asarray([[-50.0, -50.0], [20.0, -50.0], [20.0, 20.0], [-50.0, 20.0]]))
    mask = polygons_mask([square], (6, 6), (5.0, 10.0))
    assert mask[:2, :4].all()
    assert mask.sum() == 8


SQUARE = [[0, 0], [100, 0], [100, 80], [0, 80], [0, 0]]
HOLE = [[10, 10], [20, 10], [20, 20], [10, 10]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [HOLE]]}
POINT = {"type": "Point", "coordinates": [1, 2]}


def feature(geometry):
    return {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": geometry}


@pytest.mark.parametrize(
    ("document", "holes"),
    [
        (POLYGON, [1]),
        (MULTI, [1, 0]),
        (feature(POLYGON), [1]),
        ([feature(POLYGON), feature(MULTI), feature(None)], [1, 1, 0]),
        ({"type": "FeatureCollection", "features": [feature(POINT), feature(POLYGON)]}, [1]),
        ({"type": "GeometryCollection", "geometries": [POINT, POLYGON]}, [1]),
    ],
)
def test_geojson_forms(tmp_path, document, holes):
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    polygons = read_geojson(path)
    assert [len(polygon.holes) for polygon in polygons] == holes
    np.testing.assert_array_equal(polygons[0].exterior, SQUARE)
    np.testing.assert_array_equal(polygons[0].holes[0], HOLE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<html>", "not a GeoJSON file"),
        ("\x00\x01", "not a GeoJSON file"),
        ("[" * 100_000, "not a GeoJSON file"),
        (json.dumps(feature(POINT)), "no Polygon"),
        ("[]", "no Polygon"),
        ("3", "no Polygon"),
        ('{"type": "Polygon"}', "damaged"),
        ('{"type": "Polygon", "coordinates": []}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0], [1], [2]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, NaN]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": {"a": 1}}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 1e19]]]}', "damaged"),
        (f'{{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 1{"0" * 400}]]]}}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, "1"]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, true]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0]], null]}', "damaged"),
        ('{"type": "MultiPolygon", "coordinates": 1}', "damaged"),
        ('{"type": "MultiPolygon"}', "damaged"),
        (json.dumps([POLYGON, {"type": "Polygon"}]), "polygon 2 .* damaged"),
        ('{"type": ["Polygon"], "geometry": "Polygon"}', "no Polygon"),
    ],
)
def test_bad_geojson_names_the_file_in_one_line(tmp_path, text, reason):
    path = tmp_path / "regions.geojson"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_geojson(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_config_errors(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        for read in (read_geojson, lambda name: read_mask_image(name, (4, 4))):
            with pytest.raises(ConfigError) as caught:
                read(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "RGBA", "P"])
def test_mask_image_modes(tmp_path, mode, suffix):
    truth = np.zeros((6, 8), bool)
    truth[2:4, 1:7] = True
    if mode == "I;16":
        image = Image.fromarray(truth.astype(np.uint16) * 256)
    else:
        image = Image.fromarray(truth.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / f"mask.{suffix}")
    np.testing.assert_array_equal(read_mask_image(tmp_path / f"mask.{suffix}", (6, 8)), truth)


@pytest.mark.parametrize("shape", [(12, 24), (3, 4), (17, 5), (1, 1)])
def test_mask_image_is_resized_like_pillow_nearest(tmp_path, shape):
    truth = np.random.default_rng(1).random((6, 8)) > 0.5
    image = Image.fromarray(truth.astype(np.uint8))
    image.save(tmp_path / "mask.png")
    expected = np.asarray(image.resize(shape[::-1], Image.Resampling.NEAREST)) > 0
    np.testing.assert_array_equal(read_mask_image(tmp_path / "mask.png", shape), expected)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_unreadable_mask_image_names_the_file(tmp_path, content):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mask\.png: cannot read the mask image"):
        read_mask_image(path, (4, 4))
