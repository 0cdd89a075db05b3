"""Polygons against ray casting; GeoJSON, good and damaged; where regions lie on a slide."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st

from wsi_norm.errors import ConfigError
from wsi_norm.geometry import Box
from wsi_norm.tissue import Polygon, Regions, placed, polygons_mask, read_geojson, regions_mask


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
    polygons = read_geojson(path).wanted
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
        with pytest.raises(ConfigError) as caught:
            read_geojson(path)
        assert str(path) in str(caught.value)


# --- classes


def square(left: float, top: float, edge: float = 100.0) -> list[list[float]]:
    right, bottom = left + edge, top + edge
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def classified(ring, **properties):
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def written(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize(
    "classification",
    [
        {"name": "Ignore*", "color": [180, 180, 180]},
        {"names": ["Ignore*"]},
        {"names": ["Ignore*", "Fold"]},
        "Ignore*",
        "ignore",
    ],
)
def test_what_is_to_be_ignored_is_cut_out(tmp_path, classification):
    regions = read_geojson(
        written(
            tmp_path / "r.geojson",
            classified(square(20, 20, 40), classification=classification),
            classified(square(0, 0), classification={"name": "Tumor"}),
        )
    )
    expected = np.ones((10, 10), bool)
    expected[2:6, 2:6] = False
    np.testing.assert_array_equal(regions_mask(regions, (10, 10), (10.0, 10.0)), expected)


def test_only_regions_to_be_ignored_leave_the_rest(tmp_path):
    ignored = classified(square(20, 20, 40), classification={"name": "Ignore*"})
    regions = read_geojson(written(tmp_path / "r.geojson", ignored))
    mask = regions_mask(regions, (12, 12), (10.0, 10.0))
    assert not mask[2:6, 2:6].any()
    assert mask.sum() == 144 - 16


@pytest.mark.parametrize(
    "classification",
    [None, 3, [], {}, {"name": None}, {"names": [1]}, "Tumor", {"name": "Region*"}, [["Ignore*"]]],
)
def test_other_classes_are_wanted(tmp_path, classification):
    feature = classified(square(0, 0), classification=classification)
    regions = read_geojson(written(tmp_path / "r.geojson", feature))
    assert len(regions.wanted) == 1
    assert not regions.ignored


# --- places


SLIDE = Box(0, 0, 6000, 8000)
SCANNED = Box(2000, 3000, 4000, 4500)


def drawn(*corners: tuple[float, float], by_qupath: bool = True) -> Regions:
    polygons = tuple(Polygon(np.array(square(*corner))) for corner in corners)
    return Regions("r.geojson", polygons, polygons[:1], by_qupath)


def test_regions_of_qupath_count_from_the_corner_of_what_was_scanned():
    hole = np.array(square(20, 20, 10))
    regions = Regions("r", (Polygon(np.array(square(0, 0)), (hole,)),), by_qupath=True)
    moved, (note,) = placed(regions, SCANNED)
    np.testing.assert_array_equal(moved.wanted[0].exterior, square(2000, 3000))
    np.testing.assert_array_equal(moved.wanted[0].holes[0], square(2020, 3020, 10))
    assert "(2000, 3000)" in note
    moved, _ = placed(drawn((1900, 1400), (0, 0)), SCANNED)
    np.testing.assert_array_equal(moved.ignored[0].exterior, square(3900, 4400))


def test_a_region_may_hang_over_an_edge_of_what_was_scanned():
    moved, _ = placed(drawn((-15, -10), (1915, 1410)), SCANNED)
    np.testing.assert_array_equal(moved.wanted[0].exterior, square(1985, 2990))


def test_regions_that_are_too_far_out_count_from_level_0():
    regions = drawn((2500, 3100), (3800, 4300))
    same, (note,) = placed(regions, SCANNED)
    assert same == regions
    assert "too far out" in note
    assert "(2000, 3000)" in note


def test_other_regions_and_other_slides_count_from_level_0():
    for regions, scanned in (
        (drawn((2500, 3100), by_qupath=False), SCANNED),
        (drawn((0, 0)), SLIDE),
        (drawn((0, 0)), Box(0, 0, 2000, 1500)),
    ):
        assert placed(regions, scanned) == (regions, [])


@pytest.mark.parametrize(
    ("corner", "scanned"),
    [
        ((60000, 40000), SLIDE),
        ((-300, 20), SLIDE),
        ((5990, 8000), SLIDE),
        ((0, 0), SCANNED),
        ((4000, 4000), SCANNED),
    ],
)
def test_regions_that_do_not_meet_the_slide(corner, scanned):
    with pytest.raises(ConfigError, match="no region meets the slide") as caught:
        placed(drawn(corner, by_qupath=False), scanned)
    message = str(caught.value)
    assert message.startswith("r.geojson: ")
    assert "\n" not in message
    for low, size in zip(corner, "xy", strict=True):
        assert f"{size} {low} to {low + 100}" in message
    assert f"x {scanned.left} to {scanned.right} and y {scanned.top} to" in message


def test_some_regions_that_do_not_meet_the_slide_are_counted():
    regions, notes = placed(drawn((0, 0), (7000, 0), (0, 9000), by_qupath=False), SLIDE)
    assert notes == ["regions: 2 of 3 lie outside the slide"]
    assert len(regions.wanted) == 3


def test_who_wrote_a_file(tmp_path):
    for properties, by_qupath in (
        ({"objectType": "annotation"}, True),
        ({"object_type": "annotation", "isLocked": False}, True),
        ({"classification": {"name": "Tumor", "colorRGB": -3670016}}, True),
        ({"name": "1", "class": "tumor"}, False),
        ({}, False),
    ):
        path = written(tmp_path / "r.geojson", classified(square(0, 0), **properties))
        assert read_geojson(path).by_qupath is by_qupath


# --- drawing


def drawn_by_scikit_image(polygons, shape, downsample) -> np.ndarray:
    """Every pixel against every point, as scikit-image does it."""

    def ring_mask(ring):
        mask = np.zeros(shape, bool)
        x, y = (ring / np.asarray(downsample) - 0.5).T
        mask[skimage.draw.polygon(y, x, shape)] = True
        return mask

    whole = np.zeros(shape, bool)
    for polygon in polygons:
        one = ring_mask(polygon.exterior)
        for hole in polygon.holes:
            one &= ~ring_mask(hole)
        whole |= one
    return whole


POINTS = st.tuples(st.integers(-30, 90), st.integers(-30, 90))
RINGS = st.lists(POINTS, min_size=3, max_size=9).map(lambda points: np.array(points, float))
POLYGONS = st.lists(
    st.builds(Polygon, RINGS, st.lists(RINGS, max_size=2).map(tuple)), min_size=1, max_size=3
)


@given(POLYGONS, st.sampled_from([(1.0, 1.0), (2.0, 4.0), (0.5, 8.0)]))
@pytest.mark.parametrize("at_once", [4, 1 << 20])
def test_any_rings_cover_the_pixels_that_scikit_image_finds(at_once, polygons, downsample):
    """Crossing themselves and each other, with points and edges on pixels' centres."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_norm.tissue.regions.AT_ONCE", at_once)
        got = polygons_mask(polygons, (17, 23), downsample)
    np.testing.assert_array_equal(got, drawn_by_scikit_image(polygons, (17, 23), downsample))


def circle(points: int) -> np.ndarray:
    angle = np.arange(points) * (2 * np.pi / points)
    return 10_000 + 9000 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.timeout(20)
def test_a_region_of_a_million_points_has_the_area_of_what_it_outlines():
    """A second; every point against every pixel would be days."""
    ring = Polygon(circle(1_000_000), (circle(1000) / 2 + 5000,))
    mask = polygons_mask([ring], (1400, 1850), (14.0, 14.0))
    area = np.pi * 9000**2 * (1 - 1 / 4) / 14**2
    assert abs(mask.sum() / area - 1) < 1e-3


@pytest.mark.timeout(20)
def test_outlines_that_cross_a_slide_without_end_are_refused():
    rows = 14 * 1400
    ring = np.stack([np.linspace(0, 25_000, 100_000), np.arange(100_000) % 2 * rows], axis=1)
    with pytest.raises(ConfigError, match=r"r\.geojson: its outlines cross the slide 99999 times"):
        regions_mask(Regions("r.geojson", (Polygon(ring),)), (1400, 1850), (14.0, 14.0))


def test_a_pipe_and_a_flood_are_no_regions(tmp_path):
    pipe, flood = tmp_path / "pipe", tmp_path / "flood"
    os.mkfifo(pipe)
    with flood.open("wb") as file:
        file.truncate((1 << 28) + 1)
    for path, reason in ((pipe, "a pipe or a device"), (flood, "larger than 256 MiB")):
        with pytest.raises(ConfigError, match=reason):
            read_geojson(path)
