"""What stands in front of the network: where its target comes from, and what it does to tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torchstain.torch import normalizers

from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.errors import ConfigError, UnreadableSlideError
from wsi_norm.training.front import (
    TEMPLATE_GROUPS,
    TEMPLATE_TILES,
    ClassicFront,
    LayerFront,
    NoFront,
    build_front,
    cohort_template,
    target_tile,
)

Make = Callable[..., TrainConfig]
Tensor = torch.Tensor


def tissue(seed: int, tint: float = 1.0, size: int = 16) -> Any:
    """uint8 tile of two stains in random amounts, with a column of glass."""
    random = np.random.default_rng(seed)
    amount = random.uniform(0.3, 1.0, (size, size, 2)) * [tint, 1.2]
    density = amount @ np.array([[0.65, 0.70, 0.29], [0.1, 0.9, 0.15]])
    density[:, 0] = 0
    return (255 * np.exp(-density)).astype(np.uint8)


@pytest.fixture
def tiles(tmp_path: Path, settings: Make) -> LabelledTiles:
    """Three groups of different colours, of three, two and one tiles."""
    listed = []
    for number, group in enumerate("aaabbc"):
        path = tmp_path / f"{number}.png"
        Image.fromarray(tissue(number, 0.5 + 0.5 * "abc".index(group))).save(path)
        listed.append(LabelledImage(path.name, path, None, number % 2, None, group, ""))
    return LabelledTiles(listed, settings(), 2, training=True)


def build(settings: Make, tiles: LabelledTiles, **normalizer: Any) -> Any:
    return build_front(settings(normalizer=normalizer).normalizer, tiles, 0)


def batch_of(*arrays: Any) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def lab_moments(*arrays: Any) -> tuple[Any, Any]:
    """Mean and std of CIELAB over what is not glass in all arrays together."""
    pixels = np.concatenate([rgb2lab(array)[(array < 255).any(2)] for array in arrays])
    return pixels.mean(0), pixels.std(0)


# --- the target


def test_the_template_of_groups(tiles: LabelledTiles) -> None:
    """Mean over the cohort; std within its groups, each group's tiles taken as one image."""
    groups = [[tiles.pixels(k) for k in members] for members in ([0, 1, 2], [3, 4], [5])]
    template = cohort_template(tiles, "slide", 0)
    mean, _ = lab_moments(*(tile for group in groups for tile in group))
    np.testing.assert_allclose(template.mean["lab"], mean, atol=0.05)
    inside = np.array([lab_moments(*group)[1] for group in groups])
    share = np.array([3, 2, 1]) / 6
    np.testing.assert_allclose(template.std["lab"], np.sqrt(share @ inside**2), atol=0.05)


def test_the_template_of_one_group_is_its_moments(tiles: LabelledTiles, settings: Make) -> None:
    one = LabelledTiles(tiles.images[:3], settings(), 2, training=True)
    template = cohort_template(one, "slide", 3)
    mean, std = lab_moments(*(tiles.pixels(k) for k in range(3)))
    np.testing.assert_allclose(template.mean["lab"], mean, atol=0.05)
    np.testing.assert_allclose(template.std["lab"], std, atol=0.05)


def test_the_template_of_tiles(tiles: LabelledTiles) -> None:
    template = cohort_template(tiles, "tile", 0)
    inside = np.array([lab_moments(tiles.pixels(k))[1] for k in range(6)])
    np.testing.assert_allclose(template.std["lab"], np.sqrt((inside**2).mean(0)), atol=0.05)
    assert template.std["lab"] != cohort_template(tiles, "slide", 0).std["lab"]


def test_a_large_cohort_is_sampled(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("nowhere.png")
    listed = [
        LabelledImage(f"{group}-{k}", path, None, 0, None, f"{group:03}", "")
        for group in range(TEMPLATE_GROUPS + 6)
        for k in range(TEMPLATE_TILES + 3)
    ]
    many = LabelledTiles(listed, settings(), 2, training=True)
    used: list[int] = []

    def pixels(self: LabelledTiles, index: int) -> Any:
        used.append(index)
        return tissue(1, size=8)

    monkeypatch.setattr(LabelledTiles, "pixels", pixels)
    cohort_template(many, "tile", 0)
    assert len(set(used)) == len(used) == TEMPLATE_GROUPS * TEMPLATE_TILES
    assert len({many.images[k].group for k in used}) == TEMPLATE_GROUPS


def test_the_layers_default_target_is_the_cohort(tiles: LabelledTiles, settings: Make) -> None:
    front = build(settings, tiles, preset="single:lab")
    template = cohort_template(tiles, "slide", 0)
    np.testing.assert_allclose(front.layer.template.mean["lab"], template.mean["lab"], rtol=1e-6)
    np.testing.assert_allclose(front.layer.template.std["lab"], template.std["lab"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["number", "file"])
def test_a_target_tile(tiles: LabelledTiles, settings: Make, tmp_path: Path, kind: str) -> None:
    Image.fromarray(tissue(77)).save(tmp_path / "target.png")
    target: Any = 4 if kind == "number" else str(tmp_path / "target.png")
    wanted = tiles.pixels(4) if kind == "number" else tissue(77)
    front = build(settings, tiles, preset="single:lab", target=target)
    mean, std = lab_moments(wanted)
    np.testing.assert_allclose(front.layer.template.mean["lab"], mean, atol=0.05)
    np.testing.assert_allclose(front.layer.template.std["lab"], std, atol=0.05)
    classic = build(settings, tiles, kind="reinhard", target=target)
    np.testing.assert_array_equal(classic.target, wanted)


def test_a_classic_target_is_drawn_by_the_seed(tiles: LabelledTiles, settings: Make) -> None:
    config = settings(normalizer={"kind": "reinhard"}).normalizer
    drawn = [target_tile(config, tiles, seed) for seed in range(30)]
    members = [tiles.pixels(k).tobytes() for k in range(6)]
    places = [members.index(tile.tobytes()) for tile in drawn if tile is not None]
    assert len(places) == 30
    assert len(set(places)) > 3
    again = target_tile(config, tiles, 7)
    assert again is not None
    assert again.tobytes() == members[places[7]]


def test_targets_that_are_refused(tiles: LabelledTiles, settings: Make, tmp_path: Path) -> None:
    for number in (-1, 6):
        with pytest.raises(ConfigError, match=f"target {number}: there are 6 training tiles"):
            build(settings, tiles, target=number)
    with pytest.raises(UnreadableSlideError, match=r"gone\.png"):
        build(settings, tiles, target=str(tmp_path / "gone.png"))
    Image.new("RGB", (16, 16), (255, 255, 255)).save(tmp_path / "glass.png")
    with pytest.raises(ConfigError, match=r"hold \(almost\) no tissue"):
        build(settings, tiles, target=str(tmp_path / "glass.png"))
    with pytest.raises(ConfigError, match=r"macenko: cannot fit the target tile .*; choose"):
        build(settings, tiles, kind="macenko", target=str(tmp_path / "glass.png"))


# --- the layer


def test_what_learns(tiles: LabelledTiles, settings: Make) -> None:
    assert all(p.requires_grad for p in build(settings, tiles).parameters())
    fixed = build(settings, tiles, learn=False)
    assert isinstance(fixed, LayerFront)
    assert not any(p.requires_grad for p in fixed.parameters())


@pytest.mark.parametrize("preset", ["paper", "product", "mean", "single:hed", "reference"])
def test_every_preset(tiles: LabelledTiles, settings: Make, preset: str) -> None:
    front = build(settings, tiles, preset=preset, statistics="tile")
    image = batch_of(tiles.pixels(0), tiles.pixels(5))
    out = front(image, torch.tensor([0, 0]))
    assert out.shape == image.shape
    torch.testing.assert_close(out, front.layer.normalize(image)[0])


def test_a_group_shares_its_transformation(tiles: LabelledTiles, settings: Make) -> None:
    """Two different tiles with one patch in common."""
    one, other = tissue(1, 0.6), tissue(2, 1.4)
    other[:8, :8] = one[:8, :8]
    image = batch_of(one, other, one)
    group = torch.tensor([5, 5, 9])
    slide = build(settings, tiles, preset="mean", statistics="slide")(image, group)
    torch.testing.assert_close(slide[0, :, :8, :8], slide[1, :, :8, :8], atol=1e-5, rtol=0)
    assert (slide[0, :, :8, :8] - slide[2, :, :8, :8]).abs().max() > 0.02  # another group
    tile = build(settings, tiles, preset="mean", statistics="tile")(image, group)
    assert (tile[0, :, :8, :8] - tile[1, :, :8, :8]).abs().max() > 0.02
    torch.testing.assert_close(tile[0], tile[2], atol=1e-5, rtol=0)


def test_values_that_are_learned(tiles: LabelledTiles, settings: Make) -> None:
    front = build(settings, tiles, preset="mean", spaces=["lab", "hsv"])
    with torch.no_grad():
        front.layer.normalization.mean_offset[0, 1] = 0.5
        front.layer.fusion.weight.copy_(torch.tensor([1.0, 3.0]))
    values = front.learned()
    template = front.layer.template
    assert len(values) == 2 + 12
    a_mean = template.mean["lab"][1] + 0.5 * template.std["lab"][1]
    assert values["lab.a*.mean"] == pytest.approx(a_mean, rel=1e-5)
    assert values["lab.L*.mean"] == pytest.approx(template.mean["lab"][0], rel=1e-5)
    assert values["hsv.hue.std"] == pytest.approx(template.std["hsv"][0], rel=1e-5)
    assert (values["weight.lab"], values["weight.hsv"]) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        ({"preset": "reference"}, "preset 'reference' measures each tile; statistics: tile"),
        ({"preset": "other"}, "normalizer: unknown preset 'other'"),
        ({"spaces": ["lab", "lab"]}, "normalizer: spaces must be distinct"),
    ],
)
def test_layers_that_are_refused(
    tiles: LabelledTiles, settings: Make, normalizer: Any, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(settings, tiles, **normalizer)
    assert expected in str(caught.value)


# --- the others


def test_no_front(tiles: LabelledTiles, settings: Make) -> None:
    front = build(settings, tiles, kind="none")
    assert isinstance(front, NoFront)
    image = batch_of(tissue(0))
    assert front(image, torch.tensor([0])) is image


@pytest.mark.parametrize("kind", ["reinhard", "macenko"])
def test_classic_fronts_are_torchstains(kind: str) -> None:
    target, source = tissue(0), tissue(1, 1.6)
    front = ClassicFront(kind, target)
    out = front(batch_of(source, target), torch.tensor([0, 0]))
    assert front.refused == 0
    reinhard = kind == "reinhard"
    direct = (
        normalizers.TorchReinhardNormalizer() if reinhard else normalizers.TorchMacenkoNormalizer()
    )
    direct.fit(torch.from_numpy(target).permute(2, 0, 1))
    result = direct.normalize(torch.from_numpy(source).permute(2, 0, 1))
    pixels = result if reinhard else result[0]
    expected = pixels.float().clamp(0, 255) / 255
    torch.testing.assert_close(out[0].permute(1, 2, 0), expected)
    assert (out[0] - batch_of(source)[0]).abs().max() > 0.05


@pytest.mark.parametrize(
    ("kind", "level"), [("reinhard", 0), ("reinhard", 128), ("reinhard", 255), ("macenko", 255)]
)
def test_tiles_that_classic_fronts_refuse(kind: str, level: int) -> None:
    front = ClassicFront(kind, tissue(0))
    flat = np.full((16, 16, 3), level, np.uint8)
    image = batch_of(flat, tissue(1), flat)
    out = front(image, torch.tensor([0, 1, 2]))
    assert front.refused == 2
    torch.testing.assert_close(out[[0, 2]], image[[0, 2]])
    assert (out[1] - image[1]).abs().max() > 0.01
