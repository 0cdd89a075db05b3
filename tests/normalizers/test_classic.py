"""Macenko against stains that are known, against torchstain; Reinhard against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import color

from wsi_norm.choices import NORMALIZERS
from wsi_norm.errors import ConfigError
from wsi_norm.lstainnorm import load_checkpoint
from wsi_norm.lstainnorm.shadow import LUMINANCE, shadow_of
from wsi_norm.normalizers.classic import (
    REFERENCE_STAINS,
    REFERENCE_STRONGEST,
    Macenko,
    stain_vectors,
)
from wsi_norm.normalizers.model import Model
from wsi_norm.slide import read_image

WHITE = (0.95, 0.94, 0.96)
STAINS = np.array([[0.65, 0.70, 0.29], [0.21, 0.90, 0.38]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def amounts(n: int = 4000, seed: int = 0) -> np.ndarray:
    """(n, 2): a twentieth each of the pure stains, the rest mixed."""
    rng = np.random.default_rng(seed)
    both = rng.uniform(0.3, 1.6, (n, 2)) * rng.dirichlet((1, 1), n)
    both = both / both.sum(axis=1, keepdims=True) * rng.uniform(0.9, 1.8, (n, 1))
    strength = both.sum(axis=1)
    both[: n // 20] = np.outer(strength[: n // 20], (1, 0))
    both[n // 20 : n // 10] = np.outer(strength[n // 20 : n // 10], (0, 1))
    return both


def stained(both: np.ndarray, stains: np.ndarray, white: tuple = WHITE) -> np.ndarray:
    """uint8 (1, n / 50, 50, 3) by Beer and Lambert."""
    light = np.array(white) * np.exp(-both @ stains)
    return np.rint(255 * light).clip(0, 255).astype(np.uint8).reshape(1, -1, 50, 3)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(min(1.0, a @ b / np.linalg.norm(a) / np.linalg.norm(b)))))


def test_known_stains_are_found() -> None:
    both = amounts()
    stains, strongest = stain_vectors(both @ STAINS, len(both))
    for found, true in zip(stains, STAINS, strict=True):
        assert angle(found, true) < 0.5
    np.testing.assert_allclose(strongest, np.percentile(both, 99, axis=0), rtol=0.02)


@pytest.mark.parametrize("background", ["preserve", "normalize"])
def test_a_slide_gets_the_targets_stains(background: str) -> None:
    """Each pixel keeps its share of the strongest amount; the stains become the target's."""
    both = amounts()
    tiles = stained(both, STAINS)
    normalizer = Macenko(REFERENCE_STAINS, REFERENCE_STRONGEST, background=background)
    statistics = normalizer.measure(tiles, white=WHITE)
    out, usable = normalizer.normalize(tiles, statistics)
    gain = np.array(REFERENCE_STRONGEST) / np.percentile(both, 99, axis=0)
    expected = stained(both * gain, np.array(REFERENCE_STAINS))
    assert usable.all()
    difference = np.abs(out.astype(int) - expected)
    assert difference.mean() < 0.8  # bytes hold pale stain coarsely: half a degree of a vector
    assert difference.max() <= 8
    assert np.abs(out.astype(int) - tiles).mean() > 10


def test_the_statistics_survive_json_and_white_is_left_alone() -> None:
    tiles = stained(amounts(), STAINS)
    tiles[0, :20] = np.rint(255 * np.array(WHITE))
    normalizer = Macenko(REFERENCE_STAINS, REFERENCE_STRONGEST)
    statistics = normalizer.measure(tiles, white=WHITE)
    again = type(statistics).from_dict(statistics.to_dict())
    assert again == statistics
    out, _ = normalizer.normalize(tiles, again)
    assert (out[0, :20] == tiles[0, :20]).all()


def test_near_to_torchstain_on_a_real_tile(data_dir: Path) -> None:
    """Its vectors come from the same equations, with a +1 in the density and unit weights."""
    from torchstain.torch.normalizers import TorchMacenkoNormalizer

    tile = read_image(data_dir / "tiles" / "samples" / "torchstain_source.png")
    theirs = TorchMacenkoNormalizer()
    theirs.HERef = torch.tensor(REFERENCE_STAINS).T
    theirs.maxCRef = torch.tensor(REFERENCE_STRONGEST)
    expected = theirs.normalize(torch.from_numpy(tile.transpose(2, 0, 1).copy()), Io=240)[0].numpy()
    normalizer = Macenko(REFERENCE_STAINS, REFERENCE_STRONGEST, background="normalize")
    white = (240 / 255,) * 3
    statistics = normalizer.measure(tile[None], white=white)
    out, usable = normalizer.normalize(tile[None], statistics, white)
    assert usable.all()
    dark = tile.max(axis=-1) < 200
    light = tile @ LUMINANCE
    shadow = light < 255 * float(shadow_of(statistics)[0])
    turned = expected[..., 1] > expected[..., 0]  # green: what is bounded, as shadow is
    dark &= ~shadow & ~turned
    difference = np.abs(out[0].astype(int) - expected)[dark]
    assert difference.mean() < 4
    assert np.abs(tile.astype(int) - expected)[dark].mean() > 10


@pytest.mark.parametrize("tiles", ["glass", "one stain", "black"])
def test_what_cannot_be_measured_is_said_and_passes_through(tiles: str) -> None:
    pixels = {
        "glass": np.full((1, 32, 50, 3), 243, np.uint8),
        "one stain": stained(np.stack([np.linspace(0.5, 1.5, 1600), np.zeros(1600)], 1), STAINS),
        "black": np.zeros((1, 32, 50, 3), np.uint8),
    }[tiles]
    normalizer = Macenko(REFERENCE_STAINS, REFERENCE_STRONGEST, "tile")
    with pytest.raises(ValueError, match="no statistics"):
        normalizer.measure(pixels, white=WHITE)
    out, usable = normalizer.normalize(pixels, None, WHITE)
    assert not usable.any()
    assert (out == pixels).all()


def test_each_tile_by_itself() -> None:
    tiles = np.concatenate([stained(amounts(), STAINS), stained(0.5 * amounts(), STAINS)])
    normalizer = Macenko(REFERENCE_STAINS, REFERENCE_STRONGEST, "tile")
    out, usable = normalizer.normalize(tiles, None, WHITE)
    assert usable.all()
    for tile, done in zip(tiles, out, strict=True):
        alone = normalizer.normalize(tile[None], normalizer.measure(tile[None], white=WHITE))[0]
        assert (alone[0] == done).all()


def test_an_image_as_target(tmp_path: Path) -> None:
    """A slide that has the target's stains already stays as it is, but for its strength."""
    target = stained(amounts(seed=1), STAINS)[0]
    Image.fromarray(target).save(tmp_path / "target.png")
    by_file = Model("macenko", target=tmp_path / "target.png").load("cpu")
    by_pixels = Model("macenko", target=target).load("cpu")
    assert by_file.digest == by_pixels.digest != Model("macenko").load("cpu").digest
    tiles = stained(amounts(seed=2), STAINS)
    white = tuple(by_file.measure(target[None]).white)
    out, _ = by_file.normalize(tiles, by_file.measure(tiles, white=white), white)
    assert np.abs(out.astype(int) - tiles).max() <= 6
    Image.fromarray(np.full((32, 32, 3), 250, np.uint8)).save(tmp_path / "glass.png")
    for name in ("macenko", "reinhard"):
        with pytest.raises(ConfigError, match=r"glass\.png: cannot be a target"):
            Model(name, target=tmp_path / "glass.png").load("cpu")


def test_reinhard_matches_mean_and_std_in_cielab() -> None:
    template = load_checkpoint("paper").template
    tiles = stained(amounts(), STAINS)
    normalizer = Model("reinhard", background="normalize").load("cpu")
    statistics = normalizer.measure(tiles, white=(1.0, 1.0, 1.0))
    lab = color.rgb2lab(tiles[0])
    flat = lab.reshape(-1, 3)
    moved = (lab - flat.mean(0)) / flat.std(0) * template.std["lab"] + template.mean["lab"]
    expected = np.rint(255 * color.lab2rgb(moved)).astype(int)
    out, usable = normalizer.normalize(tiles, statistics)
    assert usable.all()
    assert np.abs(out[0].astype(int) - expected).max() <= 2
    assert normalizer.facts()["normalizer"] == "reinhard"


def test_none_leaves_tiles_as_they_are() -> None:
    tiles = stained(amounts(), STAINS)
    normalizer = Model("none").load()
    out, usable = normalizer.normalize(tiles)
    assert (out == tiles).all()
    assert usable.all()
    assert (normalizer.statistics, normalizer.digest) == ("none", None)
    with pytest.raises(ValueError, match="measures nothing"):
        normalizer.measure(tiles)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_every_normaliser_has_the_form_of_the_door(name: str) -> None:
    normalizer = Model(name).load("cpu")
    normalizer.warm_up()
    assert normalizer.name == name
    facts = normalizer.facts()
    assert facts["normalizer"] == name
    assert facts["sha256"] == normalizer.digest
    assert set(facts) == {
        "normalizer",
        "sha256",
        "preset",
        "statistics",
        "background",
        "provenance",
    }
    glass = np.full((2, 24, 24, 3), 243, np.uint8)
    out, usable = normalizer.normalize(glass, None, (0.95, 0.95, 0.95))
    assert (out == glass).all()
    assert usable.tolist() == [name == "none"] * 2
