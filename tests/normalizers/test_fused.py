"""The fused form against the layer in torch float64, on real, random and degenerate tiles.

Two opposite hues in equal amounts have no mean hue: what is measured there, and so the result, is
the rounding's, in torch too. No tile here is of that kind.
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import GLASS, SLIDE, TEMPLATE
from wsi_norm.lstainnorm import LStainNorm, Statistics
from wsi_norm.lstainnorm.background import fill_of, tissue_weight
from wsi_norm.lstainnorm.config import MAX_GAIN
from wsi_norm.lstainnorm.moments import MomentPool
from wsi_norm.lstainnorm.reference import ReferenceLayer
from wsi_norm.lstainnorm.sums import add_pixels
from wsi_norm.normalizers import kernels
from wsi_norm.normalizers.fused import FusedLayer, add_tile
from wsi_norm.slide import read_image
from wsi_norm.spaces import SPACES

MODES = {"slide": (SLIDE, None), "tile": (None, None), "tile, known white": (None, SLIDE.white)}

ALL = ("lab", "hsv", "rgb", "hed", "od")
RLV = ("rgb", "lab", "hsv")
# preset, spaces, background, circular hue, noise on the parameters, factor on the attention's
CASES = [
    ("paper", RLV, "preserve", True, 0.1, 1),
    ("paper", RLV, "normalize", False, 0.5, 4),
    ("paper", RLV, "preserve", True, 0.3, 12),
    ("paper", ("hed", "rgb"), "normalize", True, 0.5, 12),
    ("paper", ("hsv", "lab"), "preserve", False, 0.3, 4),
    ("paper", ALL, "normalize", True, 0.5, 4),
    ("paper", ALL, "preserve", False, 0.2, 12),
    ("product", RLV, "preserve", True, 0.5, 1),
    ("product", ("hed", "hsv", "lab"), "normalize", False, 0.3, 12),
    ("mean", RLV, "preserve", True, 0.3, 1),
    ("mean", ("hed", "hsv"), "normalize", False, 0.5, 1),
    ("single:rgb", ("rgb",), "normalize", True, 0.5, 1),
    ("single:lab", ("lab",), "preserve", True, 0.3, 1),
    ("single:lab", ("lab",), "normalize", True, 0.5, 1),
    ("single:hsv", ("hsv",), "preserve", True, 0.5, 1),
    ("single:hsv", ("hsv",), "normalize", False, 0.3, 1),
    ("single:hed", ("hed",), "normalize", True, 0.5, 1),
    ("single:od", ("od",), "normalize", True, 0.3, 1),
    ("single:od", ("od",), "preserve", True, 0.5, 1),
    ("mean", ("od", "rgb"), "normalize", True, 0.3, 1),
]


def layer_of(case: tuple, seed: int = 0) -> LStainNorm:
    preset, spaces, background, circular_hue, noise, factor = case
    torch.manual_seed(seed)
    layer = LStainNorm(
        preset, spaces, TEMPLATE, background=background, circular_hue=circular_hue
    ).eval()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter += noise * torch.randn_like(parameter)
            if "attention" in name:
                parameter *= factor
    return layer


def random_tile(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Haematoxylin and eosin under a strip of glass."""
    rng = np.random.default_rng(seed)
    amount = rng.random((height, width, 1))
    colour = np.array([70, 40, 110]) * amount + np.array([215, 150, 190]) * (1 - amount)
    tile = (colour + rng.normal(0, 12, colour.shape)).clip(0, 255).astype(np.uint8)
    tile[: height // 5] = GLASS
    return tile


def image(tile: np.ndarray) -> torch.Tensor:
    return torch.tensor(tile).permute(2, 0, 1)[None].double() / 255


def in_float64(layer: LStainNorm) -> LStainNorm:
    exact = copy.deepcopy(layer).double()
    exact.attention_form = "direct"
    return exact


def differences(
    layer: LStainNorm,
    tiles: list[np.ndarray],
    statistics: Statistics | None,
    white: tuple | None,
    form: Callable[[LStainNorm], Any] = FusedLayer,
) -> np.ndarray:
    """|fused - float64| of all values of all tiles, in levels; also that both pass the same."""
    fused, exact = form(layer), in_float64(layer)
    found = []
    for tile in tiles:
        with torch.inference_mode():
            y, known = exact.normalize(image(tile), statistics, white)
        expected = (y * 255).round().clamp(0, 255)[0].permute(1, 2, 0).numpy()
        out, usable = fused.normalize(tile[None], statistics, white)
        assert usable.tolist() == known.tolist()
        assert usable[0] or (out[0] == tile).all()
        found.append(np.abs(out[0] - expected).ravel())
    return np.concatenate(found)


def assert_equal_but_for_rounding(found: np.ndarray) -> None:
    assert found.size > 20_000
    assert found.max() <= 1
    assert (found == 0).mean() >= 0.999


TILES = [
    stained(256, 256),
    stained(224, 224, 1),
    stained(130, 257, 2),
    random_tile(100, 60),
    random_tile(129, 128, 1),
    *(random_tile(8, 8, seed) for seed in range(4)),
    *(random_tile(7, 13, seed) for seed in range(4)),
    *(random_tile(1, 1, seed) // 3 for seed in range(4)),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_layer_in_float64_of_tiles_of_any_size(case: tuple, mode: str) -> None:
    assert_equal_but_for_rounding(differences(layer_of(case), TILES, *MODES[mode]))


@pytest.mark.parametrize("mode", ["slide", "tile"])
@pytest.mark.parametrize("case", [CASES[0], CASES[6], CASES[7]], ids=str)
def test_it_is_the_layer_in_float64_of_real_tiles(case: tuple, mode: str, data_dir: Path) -> None:
    paths = sorted((data_dir / "tiles" / "samples").iterdir())[::2]
    tiles = [np.ascontiguousarray(read_image(path)[:256, :256]) for path in paths]
    assert_equal_but_for_rounding(differences(layer_of(case, 1), tiles, *MODES[mode]))


def flat(colour: tuple[int, int, int], height: int = 40, width: int = 56) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def one_channel(channel: int) -> np.ndarray:
    tile = flat((0, 0, 0))
    tile[..., channel].flat = np.arange(40 * 56) % 256
    return tile


def checkerboard(one: tuple[int, int, int], other: tuple[int, int, int]) -> np.ndarray:
    even = np.indices((40, 56)).sum(0)[..., None] % 2 == 0
    return np.where(even, np.uint8(one), np.uint8(other))


def with_part(tile: np.ndarray, part: tuple, colour: tuple[int, int, int]) -> np.ndarray:
    tile = tile.copy()
    tile[part] = colour
    return tile


DEGENERATE = {
    "white": flat((255, 255, 255)),
    "black": flat((0, 0, 0)),
    "one pale colour": flat((200, 150, 190)),
    "one colour": flat((120, 70, 140)),
    "one dark colour": flat((30, 10, 60)),
    "grey ramp": np.linspace(0, 255, 40 * 56).astype(np.uint8).reshape(40, 56, 1).repeat(3, 2),
    "red only": one_channel(0),
    "green only": one_channel(1),
    "blue only": one_channel(2),
    "a pixel on glass": with_part(flat(GLASS), (3, 5), (120, 20, 60)),
    "a pixel of tissue in a hundred": with_part(flat(GLASS, 10, 10), (3, 5), (120, 20, 60)),
    "half a pen's blue": with_part(stained(40, 56), np.s_[:, :28], (30, 40, 160)),
    "half black": with_part(flat((250, 250, 250)), np.s_[:20], (0, 0, 0)),
    "two colours": checkerboard((150, 60, 120), (230, 180, 210)),
    "black and white": checkerboard((0, 0, 0), (255, 255, 255)),
    "red and blue": checkerboard((255, 0, 0), (0, 0, 255)),
    "about red": np.random.default_rng(5).normal((200, 90, 90), 6, (40, 56, 3)).astype(np.uint8),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_degenerate_tiles_are_off_by_a_level_at_most(case: tuple) -> None:
    """A share would say nothing: some tiles hold three different values."""
    layer = layer_of(case, 1)
    for statistics, white in (MODES["slide"], MODES["tile"]):
        for name, tile in DEGENERATE.items():
            assert differences(layer, [tile], statistics, white).max() <= 1, name


def test_what_is_usable() -> None:
    names = ["white", "one pale colour", "a pixel on glass", "a pixel of tissue in a hundred"]
    fused = FusedLayer(layer_of(CASES[0]))
    found = [bool(fused.normalize(DEGENERATE[name][None], None, None)[1][0]) for name in names]
    assert found == [False, False, False, True]


@pytest.mark.parametrize("circular_hue", [True, False])
def test_moments_are_those_of_float64(circular_hue: bool) -> None:
    """In units of std; a tile of almost one colour loses a digit more to float32."""
    together = MomentPool(circular_hue=circular_hue), MomentPool(circular_hue=circular_hue)
    names = "half a pen's blue", "about red"
    for number, tile in enumerate([*TILES[:5], *(DEGENERATE[name] for name in names)]):
        tissue = np.random.default_rng(1).random(tile.shape[:2]) < 0.6
        glass = torch.tensor(SLIDE.white, dtype=torch.float64)[:, None, None]
        weight = tissue_weight(image(tile), glass) * torch.tensor(tissue) * ~fill_of(image(tile))
        alone = MomentPool(circular_hue=circular_hue), MomentPool(circular_hue=circular_hue)
        for got, expected in (alone, together):
            add_tile(got, tile, tissue.astype(np.uint8), SLIDE.white)
            add_pixels(expected, image(tile), weight)
        assert_same_moments(*alone, 1e-4 if number == 6 else 1e-5)
        assert_same_moments(*together, 1e-5)


def assert_same_moments(got: MomentPool, expected: MomentPool, tolerance: float) -> None:
    assert (got.tissue_pixels, got.usable) == (expected.tissue_pixels, expected.usable)
    (mean, std), (true_mean, true_std) = got.moments(), expected.moments()
    for space in true_mean:
        allowed = tolerance * np.array(true_std[space])
        away = np.abs(np.subtract(mean[space], true_mean[space]))
        if space == "hsv" and got.circular_hue:
            away[0] = min(away[0], 2 * np.pi - away[0])
        assert (away <= allowed).all(), space
        assert (np.abs(np.subtract(std[space], true_std[space])) <= allowed).all(), space


@pytest.mark.parametrize("colour", [(12, 12, 12), (30, 10, 60), (120, 70, 140), (200, 20, 20)])
def test_almost_one_colour_has_its_little_std(colour: tuple[int, int, int]) -> None:
    """Where float32 sums lose most; within 5 % of where the layer's floor begins."""
    tile = flat(colour)
    tile[[0, -1], ::2] += 1  # else it would be padding
    tile[::2, [0, -1]] += 1
    got, expected = MomentPool(), MomentPool()
    add_tile(got, tile, None, SLIDE.white)
    glass = torch.tensor(SLIDE.white, dtype=torch.float64)[:, None, None]
    add_pixels(expected, image(tile), tissue_weight(image(tile), glass))
    for space, std in got.moments()[1].items():
        away = np.abs(np.subtract(std, expected.moments()[1][space]))
        assert (away <= 0.05 * np.array(TEMPLATE.std[space]) / MAX_GAIN).all()


def test_four_threads_give_the_bytes_of_one() -> None:
    fused = FusedLayer(layer_of(CASES[0]))
    tiles = [stained(*[(96, 200), (256, 256), (7, 13), (130, 257)][i % 4], i) for i in range(24)]
    expected = [fused.normalize(tile[None], None, None)[0] for tile in tiles]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(lambda tile: fused.normalize(tile[None], None, None)[0], tiles))
            assert all((a == b).all() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", [CASES[0], CASES[7], CASES[9]], ids=str)
def test_a_tile_depends_neither_on_others_nor_on_what_was_in_memory(case: tuple) -> None:
    tiles = np.stack([stained(60, 150, seed) for seed in range(3)] + [flat(GLASS, 60, 150)])
    fused = FusedLayer(layer_of(case))
    together, usable = fused.normalize(tiles, None, None)
    assert usable.tolist() == [True, True, True, False]
    for tile, expected in zip(tiles, together, strict=True):
        fresh = FusedLayer(layer_of(case))
        fresh._scratch(300, 300)[:] = np.nan
        assert (fresh.normalize(tile[None], None, None)[0][0] == expected).all()


def test_the_preset_reference_has_no_fused_form() -> None:
    with pytest.raises(ValueError, match="reference"):
        FusedLayer(ReferenceLayer(("lab", "hsv", "rgb"), TEMPLATE))


def test_a_space_or_a_fusion_without_a_kernel_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = layer_of(CASES[0])
    monkeypatch.delitem(kernels.KINDS, "lab")
    with pytest.raises(ValueError, match="colour space 'lab' has no kernel"):
        FusedLayer(layer)
    monkeypatch.undo()
    layer.fusion = torch.nn.Identity()
    with pytest.raises(ValueError, match="not those of preset 'paper': no kernel"):
        FusedLayer(layer)


def test_every_colour_space_has_its_kernel() -> None:
    """A space that is added without one is found here, not by a KeyError in a worker."""
    assert set(kernels.KINDS) == set(SPACES)
    assert sorted(kernels.KINDS.values()) == list(range(len(SPACES)))
