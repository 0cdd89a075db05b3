"""Tile grids against exact fractions."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsi_norm.geometry import (
    Box,
    Level,
    Tile,
    TileGrid,
    best_level,
    blocks,
    compact_order,
    enclosing,
)

HALF = Fraction(1, 2)
SLACK = Fraction(1, 10**6)  # of float arithmetic, in px
THOROUGH = settings(max_examples=200, deadline=None)


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    """Grids over slides of any size, read from any level that a pyramid could have."""
    width, height = (draw(st.integers(16, 250_000)) for _ in "xy")
    downsample = draw(st.floats(0.9, 40))
    level_downsample = draw(st.sampled_from([1.0, 1.0, 2.0005, 4.0, 4.00012, 16.0]))
    assume(level_downsample <= downsample * 1.005 or level_downsample == 1)
    level = Level(
        0 if level_downsample == 1 else 1,
        max(1, int(width / level_downsample)),
        max(1, int(height / level_downsample)),
        level_downsample,
    )
    tile_size = draw(st.integers(16, 2048))
    overlap = draw(st.one_of(st.just(0), st.integers(0, tile_size - 2)))
    return TileGrid(width, height, level, downsample, tile_size, overlap)


@st.composite
def grids_with_cell(draw: st.DrawFn) -> tuple[TileGrid, Tile]:
    grid = draw(grids())
    row = draw(st.integers(0, grid.rows - 1))
    return grid, Tile(row, draw(st.integers(0, grid.columns - 1)))


def exact_start(grid: TileGrid, index: int) -> Fraction:
    """Where a row or column starts, in level-0 px."""
    return (grid.tile_size - grid.overlap) * index * Fraction(grid.downsample)


def exact_end(grid: TileGrid, index: int) -> Fraction:
    return exact_start(grid, index) + grid.tile_size * Fraction(grid.downsample)


def near(value: int, exact: Fraction) -> bool:
    """Whether `value` is `exact` rounded, either way at a tie."""
    return abs(value - exact) <= HALF + SLACK


# --- coverage


@THOROUGH
@given(grids())
def test_tiles_cover_the_slide_and_no_tile_is_idle(grid: TileGrid) -> None:
    downsample = Fraction(grid.downsample)
    for number, length in ((grid.columns, grid.slide_width), (grid.rows, grid.slide_height)):
        needed = length - downsample / 2  # less than half an output px more is no pixel
        assert exact_end(grid, number - 1) >= needed - SLACK * downsample
        if number > 1:
            assert exact_end(grid, number - 2) < needed + SLACK * downsample
            assert exact_start(grid, number - 1) < length


@pytest.mark.parametrize(
    ("width", "tile_size", "overlap", "columns"),
    [
        (512, 256, 0, 2),
        (513, 256, 0, 3),
        (511, 256, 0, 2),
        (100, 256, 0, 1),
        (512, 256, 128, 3),
        (513, 256, 128, 4),
        (256, 256, 255, 1),
        (260, 256, 255, 5),
    ],
)
def test_number_of_columns(width: int, tile_size: int, overlap: int, columns: int) -> None:
    grid = TileGrid.over([Level(0, width, width, 1.0)], 1.0, tile_size, overlap)
    assert (grid.columns, grid.rows) == (columns, columns)
    assert len(list(grid.tiles())) == columns**2


def test_a_strip_thinner_than_half_an_output_pixel_is_no_tile() -> None:
    levels = [Level(0, 1024, 1024, 1.0)]
    assert TileGrid.over(levels, 1024 / 512.4, 256).columns == 2
    assert TileGrid.over(levels, 1024 / 512.6, 256).columns == 3


@THOROUGH
@given(grids_with_cell())
def test_neighbours_meet_or_overlap(cell: tuple[TileGrid, Tile]) -> None:
    grid, tile = cell
    box = grid.box(tile)
    right, below = (
        grid.box(Tile(tile.row, tile.column + 1)),
        grid.box(Tile(tile.row + 1, tile.column)),
    )
    assert right.left <= box.right
    assert below.top <= box.bottom
    assert (right.top, right.bottom, below.left, below.right) == (
        box.top,
        box.bottom,
        box.left,
        box.right,
    )
    if grid.overlap == 0 and grid.tile_size * grid.downsample >= grid.level.downsample:
        assert (right.left, below.top) == (box.right, box.bottom)
    shared = grid.overlap * Fraction(grid.downsample) / Fraction(grid.level.downsample)
    assert abs((box.right - right.left) - shared) <= 1 + SLACK


def test_tiles_are_listed_row_by_row() -> None:
    grid = TileGrid.over([Level(0, 500, 300, 1.0)], 1.0, 256)
    assert list(grid.tiles()) == [Tile(0, 0), Tile(0, 1), Tile(1, 0), Tile(1, 1)]


# --- positions


@THOROUGH
@given(grids_with_cell())
def test_edges_never_drift(cell: tuple[TileGrid, Tile]) -> None:
    grid, tile = cell
    scale = Fraction(grid.level.downsample)
    box = grid.box(tile)
    for first, last, index in (
        (box.left, box.right, tile.column),
        (box.top, box.bottom, tile.row),
    ):
        assert near(first, exact_start(grid, index) / scale)
        assert near(last, exact_end(grid, index) / scale) or last == first + 1
    assert box.width >= 1
    assert box.height >= 1
    for position, index in zip(grid.origin(tile), (tile.column, tile.row), strict=True):
        assert near(position, exact_start(grid, index))


def test_200_tiles_from_0_2525_to_0_5_um_do_not_drift() -> None:
    width = 102_000
    grid = TileGrid.over([Level(0, width, width, 1.0)], 0.5 / 0.2525, 256)
    exact = 256 * Fraction("0.5") / Fraction("0.2525")
    assert grid.columns >= 200
    for column in range(201):
        x, _ = grid.origin(Tile(0, column))
        assert near(x, column * exact)
        assert grid.box(Tile(0, column)).left == x
    assert abs(200 * floor(exact) - 200 * exact) > 180  # what a truncated stride would lose
    assert {grid.box(Tile(0, c)).width for c in range(200)} == {floor(exact), ceil(exact)}


@THOROUGH
@given(grids_with_cell())
def test_tile_at_inverts_origin(cell: tuple[TileGrid, Tile]) -> None:
    grid, tile = cell
    assume(grid.step * grid.downsample > 1)
    assert grid.tile_at(*grid.origin(tile)) == tile


@THOROUGH
@given(grids_with_cell())
def test_touches_edge_means_beyond_the_level(cell: tuple[TileGrid, Tile]) -> None:
    grid, tile = cell
    scale = Fraction(grid.level.downsample)
    beyond = max(
        exact_end(grid, tile.column) / scale - grid.level.width,
        exact_end(grid, tile.row) / scale - grid.level.height,
    )
    assume(abs(beyond - HALF) > SLACK and grid.box(tile).width > 1 and grid.box(tile).height > 1)
    assert grid.touches_edge(tile) == (beyond > HALF)


@pytest.mark.parametrize(("size", "touches"), [((512, 512), False), ((511, 512), True)])
@pytest.mark.parametrize("turned", [False, True])
def test_touches_edge_looks_at_both_axes(
    size: tuple[int, int], touches: bool, turned: bool
) -> None:
    width, height = size[::-1] if turned else size
    grid = TileGrid.over([Level(0, width, height, 1.0)], 1.0, 256)
    assert grid.touches_edge(Tile(1, 1)) is touches
    assert grid.touches_edge(Tile(0, 0)) is False


@THOROUGH
@given(grids_with_cell())
def test_region_asks_for_the_box(cell: tuple[TileGrid, Tile]) -> None:
    grid, tile = cell
    box = grid.box(tile)
    region = grid.region(box)
    assert region[2:] == (grid.level.index, box.right - box.left, box.bottom - box.top)
    assert near(region.x, box.left * Fraction(grid.level.downsample))
    assert near(region.y, box.top * Fraction(grid.level.downsample))


@THOROUGH
@given(grids_with_cell())
def test_level0_boxes_are_exact(cell: tuple[TileGrid, Tile]) -> None:
    grid, tile = cell
    (box,) = grid.level0_boxes([tile]).tolist()
    expected = [
        exact_start(grid, tile.column),
        exact_start(grid, tile.row),
        exact_end(grid, tile.column),
        exact_end(grid, tile.row),
    ]
    assert box == pytest.approx([float(edge) for edge in expected], rel=1e-12)


def test_level0_boxes_of_no_tiles() -> None:
    grid = TileGrid.over([Level(0, 500, 300, 1.0)], 1.0, 256)
    assert grid.level0_boxes([]).shape == (0, 4)


# --- choice of a level


@THOROUGH
@given(
    st.lists(st.floats(1.01, 300), max_size=6, unique=True),
    st.floats(0.5, 400),
)
def test_best_level_is_the_coarsest_that_is_fine_enough(
    coarser: list[float], wanted: float
) -> None:
    downsamples = [1.0, *sorted(coarser)]
    levels = [Level(i, 1000, 1000, downsample) for i, downsample in enumerate(downsamples)]
    best = best_level(levels, wanted)
    served = [d for d in downsamples if d <= wanted * 1.005] or [1.0]
    assert best == levels[downsamples.index(served[-1])]


@pytest.mark.parametrize(
    ("downsample", "index"), [(3.99, 1), (4.0, 1), (3.9, 0), (15.9, 1), (15.95, 2), (0.9, 0)]
)
def test_a_level_that_is_a_trifle_too_coarse_serves(downsample: float, index: int) -> None:
    levels = [Level(i, 4096 >> 2 * i, 4096 >> 2 * i, 4.0**i) for i in range(3)]
    assert best_level(levels, downsample).index == index
    assert TileGrid.over(levels, downsample, 64).level.index == index


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(256, 256, True), (255, 100, True), (100, 255, True), (254, 254, False), (16, 16, False)],
)
def test_fits(width: int, height: int, fits: bool) -> None:
    assert TileGrid.over([Level(0, width, height, 1.0)], 1.0, 256).fits is fits
    assert TileGrid.over([Level(0, 4 * width, 4 * height, 1.0)], 4.0, 256).fits is fits


@pytest.mark.parametrize("overlap", [-1, 256, 300])
def test_overlap_must_leave_a_step(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        TileGrid.over([Level(0, 500, 300, 1.0)], 1.0, 256, overlap)


# --- order and groups

TILES = st.lists(st.builds(Tile, st.integers(0, 300), st.integers(0, 300)), unique=True)


@THOROUGH
@given(TILES, st.integers(1, 20))
def test_blocks_part_the_tiles_by_cells(tiles: list[Tile], side: int) -> None:
    groups = blocks(tiles, side)
    assert sorted(index for group in groups for index in group) == list(range(len(tiles)))
    cells = [{(tiles[i].row // side, tiles[i].column // side) for i in group} for group in groups]
    assert all(len(cell) == 1 for cell in cells)
    assert len(set.union(set(), *cells)) == len(groups)


@THOROUGH
@given(TILES)
def test_compact_order_is_a_permutation(tiles: list[Tile]) -> None:
    ordered = compact_order(tiles)
    assert len(ordered) == len(tiles)
    assert set(ordered) == set(tiles)
    assert compact_order(list(reversed(tiles))) == ordered


@THOROUGH
@given(TILES)
def test_compact_order_follows_interleaved_bits(tiles: list[Tile]) -> None:
    def place(tile: Tile) -> int:
        pairs = zip(f"{tile.row:016b}", f"{tile.column:016b}", strict=True)
        return int("".join(row + column for row, column in pairs), 2)

    assert compact_order(tiles) == sorted(tiles, key=place)


@pytest.mark.parametrize("side", [2, 8, 32])
def test_runs_of_a_full_grid_are_squares(side: int) -> None:
    ordered = compact_order([Tile(row, column) for row in range(side) for column in range(side)])
    edge = 1
    while edge <= side:
        for start in range(0, side * side, edge * edge):
            run = ordered[start : start + edge * edge]
            top, left = min(t.row for t in run), min(t.column for t in run)
            assert (top % edge, left % edge) == (0, 0)
            assert set(run) == {Tile(top + r, left + c) for r in range(edge) for c in range(edge)}
        edge *= 2


@given(
    st.lists(
        st.tuples(*[st.integers(-50, 50)] * 2, *[st.integers(1, 50)] * 2), min_size=1, max_size=6
    )
)
def test_enclosing_is_the_smallest_box_around(corners: list[tuple[int, int, int, int]]) -> None:
    around = enclosing([Box(x, y, x + w, y + h) for x, y, w, h in corners])
    columns = [column for x, _, w, _ in corners for column in (x, x + w)]
    rows = [row for _, y, _, h in corners for row in (y, y + h)]
    assert around == Box(min(columns), min(rows), max(columns), max(rows))
    assert (around.width, around.height) == (
        max(columns) - min(columns),
        max(rows) - min(rows),
    )


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([2, 4, 8]),
    st.one_of(st.floats(1, 20), st.integers(1, 40).map(lambda n: n / 4)),
    st.sampled_from([(64, 0), (64, 16), (50, 7)]),
)
def test_a_fraction_serves_where_every_border_lies_on_its_px(
    factor: int, downsample: float, size: tuple[int, int]
) -> None:
    grid = TileGrid(3000, 2000, Level(0, 3000, 2000, 1.0), downsample, *size)
    boxes = [grid.box(tile) for tile in grid.tiles()]
    on_px = all(edge % factor == 0 for box in boxes for edge in box)
    fine = min(box.width for box in boxes) >= factor * grid.tile_size
    assert grid.divides(factor) == (on_px and fine)
