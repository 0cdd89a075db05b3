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

from wsi_norm.choices import NORMALIZERS
from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.errors import ConfigError, UnreadableSlideError
from wsi_norm.glass import white_level
from wsi_norm.lstainnorm import load_checkpoint
from wsi_norm.normalizers.classic import Unchanged
from wsi_norm.normalizers.model import Model
from wsi_norm.training.front import (
    TEMPLATE_GROUPS,
    TEMPLATE_TILES,
    Front,
    LayerFront,
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


class Darker(Front):
    """Tissue at 0.8 of its brightness; glass stays."""

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        return torch.where(image.amin(1, keepdim=True) == 1, image, image * 0.8)


def test_the_template_behind_a_front(tiles: LabelledTiles) -> None:
    """That of the tiles as a network behind the front saw them, in bytes."""
    seen = []
    for number in range(6):
        tile = tiles.pixels(number)
        glass = (tile == 255).all(2, keepdims=True)
        seen.append(np.where(glass, tile, np.round(tile * 0.8)).astype(np.uint8))
    template = cohort_template(tiles, "slide", 0, Darker(Unchanged()))
    np.testing.assert_allclose(template.mean["lab"], lab_moments(*seen)[0], atol=0.05)


def test_nothing_was_seen_in_a_training(tiles: LabelledTiles, settings: Make) -> None:
    with pytest.raises(ConfigError, match=r"let normalizer\.start name a checkpoint"):
        build(settings, tiles, target="seen")


def test_the_layer_of_a_checkpoint(tiles: LabelledTiles, settings: Make) -> None:
    packaged = load_checkpoint()
    front = build(settings, tiles, start="density", preset="single:rgb", learn=False)
    torch.testing.assert_close(front.layer.state_dict(), packaged.state_dict(), rtol=0, atol=0)
    assert front.layer.config == packaged.config
    assert not any(parameter.requires_grad for parameter in front.parameters())
    assert build(settings, tiles, kind="none", start="density").normalizer.name == "none"


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
    np.testing.assert_allclose(classic.normalizer.target.mean["lab"], mean, atol=0.05)


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
    with pytest.raises(ConfigError, match="macenko's own target: cannot be a target"):
        build(settings, tiles, kind="macenko", target=str(tmp_path / "glass.png"))


# --- the layer


def test_what_learns(tiles: LabelledTiles, settings: Make) -> None:
    assert all(p.requires_grad for p in build(settings, tiles).parameters())
    fixed = build(settings, tiles, learn=False)
    assert isinstance(fixed, LayerFront)
    assert not any(p.requires_grad for p in fixed.parameters())


@pytest.mark.parametrize("statistics", ["slide", "tile"])
@pytest.mark.parametrize("preset", ["paper", "product", "mean", "single:hed", "reference"])
def test_every_preset_is_judged_as_it_learns(
    tiles: LabelledTiles, settings: Make, preset: str, statistics: str
) -> None:
    """By PyTorch while it learns, by what a run uses when it is judged: a level apart at most."""
    if preset == "reference" and statistics == "slide":
        pytest.skip("it measures each tile")
    front = build(settings, tiles, preset=preset, statistics=statistics)
    image, group = batch_of(*(tiles.pixels(k) for k in range(4))), torch.tensor([0, 7, 0, 7])
    learning, judged = front.train()(image, group), front.eval()(image, group)
    assert learning.requires_grad
    assert not judged.requires_grad
    torch.testing.assert_close(judged, judged.mul(255).round() / 255)  # bytes, as in a store
    torch.testing.assert_close(judged, learning.detach().clamp(0, 1), atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize("learning", [True, False])
def test_a_group_shares_its_transformation(
    tiles: LabelledTiles, settings: Make, learning: bool
) -> None:
    """Two different tiles with one patch in common."""
    one, other = tissue(1, 0.6), tissue(2, 1.4)
    other[:8, :8] = one[:8, :8]
    image = batch_of(one, other, one)
    group = torch.tensor([5, 5, 9])
    fronts = [
        build(settings, tiles, preset="mean", statistics=whose).train(learning)
        for whose in ("slide", "tile")
    ]
    slide, tile = (front(image, group) for front in fronts)
    torch.testing.assert_close(slide[0, :, :8, :8], slide[1, :, :8, :8], atol=1e-5, rtol=0)
    assert (slide[0, :, :8, :8] - slide[2, :, :8, :8]).abs().max() > 0.02  # another group
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
    image = batch_of(tissue(0), tissue(1))
    torch.testing.assert_close(front(image, torch.tensor([0, 1])), image)
    assert not front.per_group
    assert front.passed_through == 0


@pytest.mark.parametrize("statistics", ["slide", "tile"])
@pytest.mark.parametrize("kind", ["reinhard", "macenko"])
def test_classic_fronts_are_those_of_a_run(
    tiles: LabelledTiles, settings: Make, kind: str, statistics: str
) -> None:
    """A group's tiles are measured together, or each by itself."""
    front = build(settings, tiles, kind=kind, statistics=statistics, target=0)
    normalizer = Model(kind, target=tiles.pixels(0), statistics=statistics).load("cpu")
    source = [tissue(seed, 1.3) for seed in (1, 2)]
    out = front(batch_of(*source, tissue(3)), torch.tensor([4, 4, 1]))
    stack = np.stack(source)
    white = tuple(white_level(stack))
    known = normalizer.measure(stack, None, white) if statistics == "slide" else None
    expected = normalizer.normalize(stack, known, white)[0]
    torch.testing.assert_close(out[:2], batch_of(*expected))
    assert (out[:2] - batch_of(*source)).abs().max() > 0.05
    assert front.passed_through == 0


@pytest.mark.parametrize("kind", ["reinhard", "macenko"])
def test_tiles_that_cannot_be_measured_pass_through(
    tiles: LabelledTiles, settings: Make, kind: str
) -> None:
    front = build(settings, tiles, kind=kind, target=0)
    flat = np.full((16, 16, 3), 255, np.uint8)
    image = batch_of(flat, tissue(1, 1.4), flat)
    out = front(image, torch.tensor([0, 1, 2]))
    assert front.passed_through == 2
    torch.testing.assert_close(out[[0, 2]], image[[0, 2]])
    assert (out[1] - image[1]).abs().max() > 0.01


def test_a_normaliser_of_ones_own(
    tiles: LabelledTiles, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training takes whatever NORMALIZERS has."""

    class Darker(Unchanged):
        def normalize(self, tiles: Any, *_: Any, **__: Any) -> Any:
            return tiles // 2, np.ones(len(tiles), np.bool_)

    monkeypatch.setitem(NORMALIZERS._places, "darker", lambda *_: Darker())
    image = batch_of(tissue(0))
    out = build(settings, tiles, kind="darker")(image, torch.tensor([0]))
    torch.testing.assert_close(out, batch_of(tissue(0) // 2))
