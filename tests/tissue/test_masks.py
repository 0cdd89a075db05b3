"""Mask images of every kind, size and shape, good and damaged."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_norm.errors import ConfigError
from wsi_norm.tissue import masks, read_mask_image

TRUTH = np.zeros((6, 8), bool)
TRUTH[2:4, 1:7] = True


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "RGB", "RGBA", "P"])
def test_pixel_modes(tmp_path, mode, suffix):
    if mode == "I;16":
        image = Image.fromarray(TRUTH.astype(np.uint16) * 256)
    else:
        image = Image.fromarray(TRUTH.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / f"mask.{suffix}")
    found = read_mask_image(tmp_path / f"mask.{suffix}", (6, 8), (8, 6))
    np.testing.assert_array_equal(found, TRUTH)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_transparent_is_not_marked(tmp_path, suffix):
    pixels = np.full((6, 8, 4), 255, np.uint8)
    pixels[..., 3] = TRUTH * 255
    Image.fromarray(pixels).save(tmp_path / f"mask.{suffix}")
    found = read_mask_image(tmp_path / f"mask.{suffix}", (6, 8), (8, 6))
    np.testing.assert_array_equal(found, TRUTH)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_numbers_of_a_palette_count_not_its_colours(tmp_path, suffix):
    image = Image.fromarray(TRUTH.astype(np.uint8) * 2)
    image.putpalette([255, 255, 255, 10, 20, 30, 0, 0, 0])  # 0 is white, 2 is black
    assert image.mode == "P"
    image.save(tmp_path / f"mask.{suffix}")
    found = read_mask_image(tmp_path / f"mask.{suffix}", (6, 8), (8, 6))
    np.testing.assert_array_equal(found, TRUTH)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_black_is_not_marked_whatever_its_number(tmp_path, photometric, dtype):
    shown = TRUTH if photometric == "minisblack" else ~TRUTH
    values = shown if dtype is bool else shown * np.uint8(255)
    tifffile.imwrite(tmp_path / "mask.tif", values, photometric=photometric, metadata=None)
    found = read_mask_image(tmp_path / "mask.tif", (6, 8), (8, 6))
    np.testing.assert_array_equal(found, TRUTH)
    with Image.open(tmp_path / "mask.tif") as image:  # the same as Pillow shows
        np.testing.assert_array_equal(np.asarray(image) != 0, TRUTH)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shape", [(12, 16), (3, 4), (17, 5), (24, 32), (1, 1)])
def test_sized_like_pillow_nearest(tmp_path, shape, suffix):
    image = Image.fromarray((np.random.default_rng(1).random((6, 8)) > 0.5).astype(np.uint8))
    image.save(tmp_path / f"mask.{suffix}")
    expected = np.asarray(image.resize(shape[::-1], Image.Resampling.NEAREST)) > 0
    found = read_mask_image(tmp_path / f"mask.{suffix}", shape, (800, 600))
    np.testing.assert_array_equal(found, expected)


# --- TIFFs as large as slides


LAYOUTS = [
    {"tile": (64, 48)},
    {"tile": (64, 48), "compression": "lzw"},
    {"rowsperstrip": 7, "compression": "deflate"},
    {"rowsperstrip": 1000},
    {"tile": (64, 48), "bigtiff": True, "byteorder": ">"},
]


def speckled(shape: tuple[int, int] = (470, 310), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) > 0.6


def nearest(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.NEAREST)) > 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32])
def test_tiles_and_strips(tmp_path, layout, dtype):
    mask = speckled()
    path = tmp_path / "mask.tif"
    layout = dict(layout)
    options = {name: layout.pop(name) for name in ("bigtiff", "byteorder") if name in layout}
    with tifffile.TiffWriter(path, **options) as writer:
        writer.write(mask.astype(dtype), photometric="minisblack", metadata=None, **layout)
    np.testing.assert_array_equal(
        read_mask_image(path, (94, 62), (310, 470)), nearest(mask, (94, 62))
    )
    np.testing.assert_array_equal(read_mask_image(path, (470, 310), (310, 470)), mask)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colours_and_alpha_in_one_plane_or_in_several(tmp_path, planes):
    colours = np.stack([speckled(seed=seed) for seed in range(3)], -1)
    alpha = speckled(seed=3)
    pixels = np.concatenate([colours, alpha[..., None]], -1).astype(np.uint8)
    if planes == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(
        tmp_path / "mask.tif",
        pixels,
        tile=(64, 48),
        photometric="rgb",
        planarconfig=planes,
        extrasamples=["unassalpha"],
        metadata=None,
    )
    found = read_mask_image(tmp_path / "mask.tif", (470, 310), (310, 470))
    np.testing.assert_array_equal(found, colours.any(axis=-1) & alpha)


def test_the_smallest_level_that_is_large_enough_is_read(tmp_path):
    """Every level is filled with its own pattern, so that one sees which was taken."""
    levels = [speckled((480 // scale, 320 // scale), seed=scale) for scale in (1, 2, 4)]
    path = tmp_path / "mask.tif"
    with tifffile.TiffWriter(path) as writer:
        for index, level in enumerate(levels):
            writer.write(
                level.astype(np.uint8),
                tile=(64, 64),
                photometric="minisblack",
                subfiletype=int(index > 0),
                metadata=None,
            )
    for shape, level in (((120, 80), 2), ((128, 80), 1), ((320, 256), 0), ((960, 640), 0)):
        found = read_mask_image(path, shape, (3200, 4800))
        np.testing.assert_array_equal(found, nearest(levels[level], shape))


def test_more_pixels_than_pillow_opens(tmp_path):
    """20 000 x 15 000, of which most is left out of the file."""
    path = tmp_path / "mask.tif"
    marked = np.ones((512, 512), np.uint8)
    blank = np.zeros((512, 512), np.uint8)
    across, down = 40, 30
    tiles = [marked if index < 3 * across else None for index in range(across * down)]
    tiles[-1] = blank
    tifffile.imwrite(
        path,
        (tile for tile in tiles),
        shape=(15000, 20000),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="minisblack",
        compression="zlib",
        metadata=None,
    )
    assert 2 * Image.MAX_IMAGE_PIXELS < 15000 * 20000
    found = read_mask_image(path, (150, 200), (40000, 30000))
    expected = np.zeros((150, 200), bool)
    expected[:15] = True  # 3 x 512 px of 15000
    np.testing.assert_array_equal(found, expected)


def test_too_large_is_said(tmp_path, monkeypatch):
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.ones((400, 300), np.uint8), photometric="minisblack")
    assert read_mask_image(path, (4, 3), (300, 400)).all()
    monkeypatch.setattr(masks, "LARGEST_PIECE_BYTES", 400 * 300 - 1)
    with pytest.raises(ConfigError, match="save it as a tiled TIFF, or smaller") as caught:
        read_mask_image(path, (4, 3), (300, 400))
    assert str(caught.value).startswith(f"{path}: ")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for pixels in (1500, 2500):  # Pillow warns of the first
        Image.new("L", (pixels // 50, 50)).save(tmp_path / f"{pixels}.png")
    read_mask_image(tmp_path / "1500.png", (5, 3), (300, 500))
    with pytest.raises(ConfigError, match="too large for a mask of its format; save it as a tiled"):
        read_mask_image(tmp_path / "2500.png", (5, 5), (500, 500))


# --- another shape


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("size", "turned"), [((384, 384), False), ((256, 384), True), ((384, 240), False)]
)
def test_a_mask_of_another_shape_is_refused(tmp_path, size, turned, suffix):
    path = tmp_path / f"mask.{suffix}"
    Image.new("L", size).save(path)
    with pytest.raises(
        ConfigError, match="another shape than the slide of 3072 x 2048 px"
    ) as caught:
        read_mask_image(path, (128, 192), (3072, 2048))
    message = str(caught.value)
    assert message.startswith(f"{path}: the mask of {size[0]} x {size[1]} px")
    assert ("turned by 90 degrees?" in message) is turned
    assert "\n" not in message


@pytest.mark.parametrize("size", [(384, 256), (390, 256), (384, 251), (3, 2), (2, 1), (31, 21)])
def test_rounding_is_no_other_shape(tmp_path, size):
    Image.new("L", size, 1).save(tmp_path / "mask.png")
    assert read_mask_image(tmp_path / "mask.png", (128, 192), (3072, 2048)).all()


# --- damage


def test_missing_files_are_config_errors(tmp_path):
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the mask image") as caught:
            read_mask_image(path, (4, 4), (4, 4))
        assert str(caught.value).startswith(f"{path}: ")


def whole(tmp_path, suffix: str) -> bytes:
    path = tmp_path / f"whole.{suffix}"
    if suffix == "png":
        Image.fromarray(speckled()).save(path)
    else:
        mask = speckled().astype(np.uint8)
        tifffile.imwrite(path, mask, tile=(64, 64), compression="lzw", photometric="minisblack")
    return path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\x00\x00", b"II*\0"])
def test_no_image_names_the_file(tmp_path, content):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mask\.png: cannot read the mask image") as caught:
        read_mask_image(path, (4, 4), (4, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_damage_is_one_line_or_nothing(tmp_path, suffix):
    """Cut anywhere, or some bytes changed."""
    good, path = whole(tmp_path, suffix), tmp_path / f"mask.{suffix}"
    rng = np.random.default_rng(0)
    messages = []
    for number in range(150):
        damaged = bytearray(good)
        if number % 3 == 0:
            del damaged[rng.integers(len(good)) :]
        else:
            for place in rng.integers(len(good) if number % 3 == 1 else 400, size=4):
                damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_mask_image(path, (94, 62), (310, 470))
        except ConfigError as error:
            messages.append(str(error))
    assert len(messages) > 30
    for message in messages:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


@pytest.mark.parametrize(("tag", "value"), [("ImageWidth", 10**9), ("TileWidth", 16)])
def test_a_header_that_claims_other_tiles_than_there_are(tmp_path, tag, value):
    """It would be a mask with nothing in it, or gigabytes."""
    path = tmp_path / "lies.tif"
    tifffile.imwrite(path, np.ones((256, 256), np.uint8), tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[tag].overwrite(value)
    width = value if tag == "ImageWidth" else 256
    with pytest.raises(ConfigError, match=r"lies\.tif: damaged: .* there are 16; copy it again"):
        read_mask_image(path, (8, 8), (width, 256))


def test_a_pipe_is_no_mask(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="cannot read the mask image: a pipe or a device"):
        read_mask_image(pipe, (8, 8), (8, 8))
