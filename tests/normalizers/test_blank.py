"""Tiles that are given alone: what is tissue in them, and what is left as it is."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsi_norm import Normalizer, load_checkpoint
from wsi_norm.normalizers.blank import holds_tissue
from wsi_norm.normalizers.model import Model

GLASS = (243, 242, 243)


def noisy(image: np.ndarray, sd: float = 1.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (image + rng.normal(0, sd, image.shape)).clip(0, 254).astype(np.uint8)


def glass() -> np.ndarray:
    return np.tile(np.array(GLASS, float), (128, 128, 1))


def tissue(share: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    image = glass()
    width = round(128 * share)
    density = rng.uniform(0.1, 0.6, (128, width, 1)) * np.array([0.3, 0.95, 0.2])
    image[:, :width] *= 10.0**-density
    return image


def with_hair() -> np.ndarray:
    image = glass()
    rows, columns = np.indices(image.shape[:2])
    image[abs(rows - columns - 10) < 3] = (150, 148, 149)
    return image


def with_pen(colour: tuple[int, int, int]) -> np.ndarray:
    image = glass()
    rows, columns = np.indices(image.shape[:2])
    image[abs(rows + columns - 128) < 40] = colour
    return image


BLANK = {
    "glass": glass(),
    "a hair": with_hair(),
    "green pen": with_pen((30, 140, 80)),
    "blue pen": with_pen((40, 60, 170)),
}


@pytest.mark.parametrize("name", BLANK)
@pytest.mark.parametrize("normalizer", ["lstainnorm", "macenko", "reinhard"])
def test_a_tile_without_tissue_stays_as_it_is(name: str, normalizer: str) -> None:
    tile = noisy(BLANK[name])
    assert not holds_tissue(tile)
    out, usable = Model(normalizer).load("cpu").normalize(tile[None])
    assert not usable.any()
    assert (out[0] == tile).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_tissue_is_tissue(share: float) -> None:
    tile = noisy(tissue(share))
    assert holds_tissue(tile)
    out, usable = Normalizer(load_checkpoint(), "cpu").normalize(tile[None])
    assert usable.all()
    assert (out[0] != tile).any()


def test_a_blank_tile_does_not_disturb_the_others() -> None:
    normalizer = Normalizer(load_checkpoint(), "cpu")
    tiles = np.stack([noisy(tissue(0.5)), noisy(BLANK["green pen"]), noisy(tissue())])
    out, usable = normalizer.normalize(tiles)
    assert usable.tolist() == [True, False, True]
    for index in (0, 2):
        assert (out[index] == normalizer.normalize(tiles[index][None])[0][0]).all()
    with_pen, without = normalizer.measure(tiles), normalizer.measure(tiles[[0, 2]])
    for space in ("rgb", "lab", "hsv", "hed"):
        assert with_pen.mean[space] == without.mean[space]
    # density is relative to a white that all tiles have a say in
    np.testing.assert_allclose(with_pen.mean["od"], without.mean["od"], atol=0.005)


def test_real_glass_with_a_line_and_with_a_pen(data_dir: Path) -> None:
    normalizer = Normalizer(load_checkpoint(), "cpu")
    for name in ("no-tissue-line", "no-tissue-red-pen", "no-tissue-green-pen", "almost-white-1"):
        with Image.open(data_dir / "slides" / "artefacts" / f"{name}.png") as image:
            tile = np.asarray(image.convert("RGB"))
        assert (normalizer(tile[None])[0] == tile).all()


@pytest.mark.parametrize("colour", [(0, 0, 0), (100, 100, 100)])
def test_padding_is_neither_measured_nor_changed(colour: tuple[int, int, int]) -> None:
    """The same tissue with and without it."""
    whole = noisy(tissue())
    padded = whole.copy()
    padded[:, 80:] = colour
    for name in ("lstainnorm", "macenko", "reinhard"):
        normalizer = Model(name).load("cpu")
        out, alone = normalizer.normalize(padded[None])[0][0], whole[:, :80]
        expected = normalizer.normalize(alone[None])[0][0]
        assert (out[:, 80:] == padded[:, 80:]).all()
        assert np.abs(out[:, :80].astype(int) - expected).max() <= 2


@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_a_normalizer_travels(engine: str) -> None:
    tiles = np.stack([noisy(tissue(0.5)), noisy(tissue())])
    normalizer = Normalizer(load_checkpoint(), "cpu", engine=engine)
    expected = normalizer(tiles)
    for again in (pickle.loads(pickle.dumps(normalizer)), copy.deepcopy(normalizer)):
        assert (again.engine, again.digest) == (engine, normalizer.digest)
        assert (again(tiles) == expected).all()


def test_what_is_no_batch_of_bytes_is_refused_in_one_line() -> None:
    normalizer = Normalizer(load_checkpoint(), "cpu")
    tile = noisy(tissue())
    assert (normalizer([tile, tile])[0] == normalizer(tile)[0]).all()
    for wrong, message in (
        (tile / 255, "must be uint8"),
        (torch.from_numpy(tile), "must be a numpy array"),
        ([tile, tile[:9]], "different sizes"),
        (tile[..., :1], "must be uint8"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            normalizer(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_tracing_and_exporting_are_refused_in_one_line() -> None:
    layer, x = load_checkpoint(), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="cannot be traced or exported"):
        torch.jit.trace(layer, x)
