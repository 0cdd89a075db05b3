"""Masks and sizes: what is read, and what is refused before a training begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.builders import refusal
from wsi_norm.cohort.masks import check_masks, check_sizes, read_mask
from wsi_norm.cohort.splits import LabelledImage, Splits, read_splits
from wsi_norm.config.train import DataConfig


def split(data: DataConfig) -> Splits:
    return read_splits(data, "segmentation", None, 0)


@pytest.fixture
def masked(tmp_path: Path) -> DataConfig:
    """Four images of 8 x 6 px with a mask each."""
    lines = ["image,mask"]
    for number in range(4):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.webp")
        Image.new("L", (8, 6)).save(tmp_path / f"{number}_mask.png")
        lines.append(f"{number}.webp,{number}_mask.png")
    index = tmp_path / "index.csv"
    index.write_text("\n".join(lines), encoding="utf-8")
    return DataConfig.model_validate(
        {
            "index": index,
            "columns": {"mask": "mask"},
            "validation": 0.25,
            "classes": ["background", "gland"],
        }
    )


def test_masks(masked: DataConfig, tmp_path: Path) -> None:
    splits = split(masked)
    assert splits.classes == ("background", "gland")
    for image in splits.train + splits.validation:
        assert image.label is None
        assert image.mask == tmp_path / f"{image.path.stem}_mask.png"
    check_masks(splits.train)
    assert check_sizes(splits.train, None) == (8, 6)


def test_masks_that_are_missing(masked: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "2_mask.png").unlink()
    message = refusal(split, masked)
    assert f"1 of 4 masks are missing: {tmp_path / '2_mask.png'}; relative" in message
    table = tmp_path / "index.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("2_mask.png", ""), encoding="utf-8")
    message = refusal(split, masked)
    assert message.startswith(f"{masked.index}: line 4: 'mask' is empty; ")


def test_classes_of_masks_are_named(masked: DataConfig) -> None:
    assert refusal(split, masked.model_copy(update={"classes": ()})) == (
        "data.classes: name what the mask values 0, 1, ... mean, background first"
    )


def test_a_mask_of_another_size(masked: DataConfig, tmp_path: Path) -> None:
    Image.new("1", (6, 8)).save(tmp_path / "3_mask.png")
    splits = split(masked)
    assert refusal(check_masks, splits.train + splits.validation) == (
        f"{tmp_path / '3_mask.png'}: the mask is 6 x 8 px but its image {tmp_path / '3.webp'} "
        "8 x 6 px; they have to be of one size"
    )


def test_masks_are_checked_by_their_headers(masked: DataConfig, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "0_mask.png")
    splits = split(masked)
    message = refusal(check_masks, splits.train + splits.validation)
    assert "masks must hold integers" in message


VALUES = np.array([[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_integers_of_any_width(tmp_path: Path, dtype: Any, suffix: str) -> None:
    path = tmp_path / f"mask{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, VALUES.astype(dtype))
    else:
        Image.fromarray(VALUES.astype(np.uint16 if dtype is np.int32 else dtype)).save(path)
    mask = read_mask(path, 3)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, VALUES)
    np.testing.assert_array_equal(read_mask(path, 2), VALUES > 0)


def test_one_bit_and_a_palette(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(VALUES > 0).save(path)
    for classes in (2, 3):
        np.testing.assert_array_equal(read_mask(path, classes), VALUES > 0)
    palette = Image.fromarray(VALUES.astype(np.uint8), mode=None).convert("P")
    palette.putdata(VALUES.ravel().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(path)
    np.testing.assert_array_equal(read_mask(path, 3), VALUES)


def test_instances_are_foreground_of_two_classes(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray((VALUES * 30000).astype(np.uint16)).save(path)
    np.testing.assert_array_equal(read_mask(path, 2), VALUES > 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_value_that_is_no_class(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray((VALUES * 100).astype(dtype)).save(path)
    assert refusal(read_mask, path, 3) == (
        f"{path}: the mask holds the value 100, but the 3 classes are 0 to 2; "
        "renumber it, or name more in data.classes"
    )


def test_a_negative_value(tmp_path: Path) -> None:
    tifffile.imwrite(path := tmp_path / "mask.tif", (VALUES - 1).astype(np.int32))
    assert "holds the value -1," in refusal(read_mask, path, 3)


def test_masks_that_hold_no_integers(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, VALUES.astype(np.float32))
    assert refusal(read_mask, path, 3) == (
        f"{path}: masks must hold integers, one per pixel, but this is of pixel mode F; "
        "save class numbers as PNG"
    )
    for mode, suffix, what in (
        ("RGB", ".png", "of pixel mode RGB"),
        ("RGBA", ".png", "of pixel mode RGBA"),
        ("L", ".jpg", "JPEG, which blurs them"),
    ):
        path = tmp_path / f"mask{suffix}"
        Image.new(mode, (8, 6)).save(path)
        assert f"masks must hold integers, one per pixel, but this is {what};" in refusal(
            read_mask, path, 3
        )


def test_a_mask_that_is_inverted_by_some(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, VALUES > 0, photometric="miniswhite")
    assert "but this is a TIFF whose 0 is white (MinIsWhite), which" in refusal(read_mask, path, 2)
    tifffile.imwrite(path, VALUES > 0, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(path, 2), VALUES > 0)


def test_a_tiff_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="lzw")
    whole = path.read_bytes()
    for length in (10, 200, len(whole) - 5):
        path.write_bytes(whole[:length])
        assert refusal(read_mask, path, 2).startswith(f"{path}: cannot read the ")


def test_a_mask_that_is_cut_or_none(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert refusal(read_mask, path, 2).startswith(f"{path}: cannot read the mask: ")
    path.write_bytes(b"no image")
    message = f"{path}: cannot read the image: cannot identify image file"
    assert refusal(read_mask, path, 2).startswith(message)


# --- sizes


def images_of(folder: Path, *sizes: tuple[int, int]) -> list[LabelledImage]:
    images = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}{('.png', '.jpg', '.tif')[number % 3]}"
        Image.new("RGB", size).save(path)
        images.append(LabelledImage(path.name, path, None, 0, None, path.name, ""))
    return images


def test_sizes(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 30), (30, 40), (50, 50))
    assert check_sizes(images, 30) == (30, 30)
    assert check_sizes(images, 15, downsample=2) == (15, 15)
    assert check_sizes(images[:1], None, downsample=2) == (20, 15)


def test_sizes_that_differ_need_tiles(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 30), (40, 30), (30, 40))
    assert refusal(check_sizes, images, None) == (
        f"images differ in size: {images[0].path} is 40 x 30 px, {images[2].path} is 30 x 40 px; "
        "set data.tile_size to cut tiles of one size"
    )


def test_an_image_smaller_than_a_tile(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 40), (40, 31))
    assert refusal(check_sizes, images, 32) == (
        f"{images[1].path}: 40 x 31 px is smaller than data.tile_size 32; "
        "lower that, or leave the image out with data.where"
    )
    assert "40 x 31 px (scaled down by data.downsample 2) is smaller" in refusal(
        check_sizes, images, 16, 2
    )


def test_an_image_that_is_none(tmp_path: Path) -> None:
    images = images_of(tmp_path, (40, 40))
    images[0].path.write_bytes(b"no image")
    assert refusal(check_sizes, images, 16).startswith(f"{images[0].path}: cannot read the image")
