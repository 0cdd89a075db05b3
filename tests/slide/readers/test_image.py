"""Plain images against Pillow and numpy; damaged and odd ones are refused."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_norm.errors import ReadError, ResolutionError, UnreadableSlideError, WsiNormError
from wsi_norm.geometry import Region
from wsi_norm.slide import open_slide, read_image
from wsi_norm.slide.readers import image as plain

RGB = np.random.default_rng(5).integers(0, 256, (90, 120, 3), np.uint8)
ALPHA = np.where(np.arange(120) < 60, 255, 0).astype(np.uint8) * np.ones((90, 1), np.uint8)
TILED: Any = {"tile": (64, 64)}


def on_white(rgb: np.ndarray) -> np.ndarray:
    return np.where(ALPHA[..., None] == 255, rgb, 255).astype(np.uint8)


def read_all(path: Path, reader: str = "auto") -> np.ndarray:
    with open_slide(path, reader, default_mpp_um=0.5) as slide:
        assert slide.damage is None
        return np.array(slide.read(Region(0, 0, 0, *slide.dimensions)))


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "PNG"])
def test_plain_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_all(path), RGB)
    np.testing.assert_array_equal(read_image(path), RGB)
    with open_slide(path, default_mpp_um=0.5) as slide:
        assert slide.reader == "image"
        assert slide.reader_version == version("pillow")
        padded = slide.read(Region(-10, 80, 0, 40, 20))
        np.testing.assert_array_equal(padded[:10, 10:], RGB[80:, :30])
        assert (padded[10:] == 255).all()
        assert (padded[:, :10] == 255).all()
    with pytest.raises(ResolutionError, match="--default-mpp"):
        open_slide(path)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_plain_jpeg(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, quality=80)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_all(path), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_plain_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    gray = np.repeat(RGB[..., :1], 3, axis=-1)
    if mode == "L":
        image, expected = Image.fromarray(RGB[..., 0]), gray
    elif mode == "LA":
        image = Image.merge("LA", [Image.fromarray(RGB[..., 0]), Image.fromarray(ALPHA)])
        expected = on_white(gray)
    elif mode == "P":
        image = Image.fromarray(RGB).quantize(32)
        expected = np.asarray(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    else:
        image, expected = Image.fromarray(np.dstack([RGB, ALPHA])), on_white(RGB)
    assert image.mode == mode
    image.save(path)
    np.testing.assert_array_equal(read_all(path), expected)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, TILED], ids=["one", "strips", "tiles"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("kind", ["rgb", "gray", "rgba"])
def test_plain_tiff(
    tmp_path: Path, layout: dict[str, Any], compression: str | None, kind: str
) -> None:
    path = tmp_path / "a.tif"
    if kind == "rgb":
        pixels, expected, how = RGB, RGB, {"photometric": "rgb"}
    elif kind == "gray":
        pixels, how = RGB[..., 0], {"photometric": "minisblack"}
        expected = np.repeat(RGB[..., :1], 3, axis=-1)
    else:
        pixels, expected = np.dstack([RGB, ALPHA]), on_white(RGB)
        how = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, pixels, compression=compression, **layout, **how)
    np.testing.assert_array_equal(read_all(path), expected)


@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
def test_palette_tiff_is_never_its_indices(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(RGB).quantize(32)
    image.save(path)
    expected = np.asarray(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    right_or_refused(path, expected, reader)


@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize("kind", ["rgb", "gray"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_tiff_is_never_clipped(
    tmp_path: Path, kind: str, layout: dict[str, Any], dtype: Any, reader: Any
) -> None:
    path = tmp_path / "a.tif"
    pixels = RGB if kind == "rgb" else RGB[..., 0]
    photometric: Any = "rgb" if kind == "rgb" else "minisblack"
    deep = pixels.astype(dtype) * (257 if dtype is np.uint16 else 1)
    tifffile.imwrite(path, deep, photometric=photometric, **layout)
    expected = RGB if kind == "rgb" else np.repeat(RGB[..., :1], 3, axis=-1)
    right_or_refused(path, expected, reader)


def right_or_refused(path: Path, expected: np.ndarray, reader: Any) -> None:
    """A file we cannot read right is refused with our error, at once or when it is read."""
    refused: WsiNormError | None = None
    try:
        np.testing.assert_array_equal(read_all(path, reader), expected)
    except (UnreadableSlideError, ReadError) as error:
        refused = error
    assert refused is None or str(path) in str(refused)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 257).save(path)
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError, match="8-bit") as caught:
            refuse()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_plain_image_too_large_for_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MAX_IMAGE_PIXELS", 90 * 120 - 1)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    if suffix == "png":
        with pytest.raises(UnreadableSlideError, match=r"120 x 90 px.*pyramidal TIFF"):
            open_slide(path, default_mpp_um=0.5)
    with pytest.raises(UnreadableSlideError, match=r"120 x 90 px.*pyramidal TIFF"):
        read_image(path)
    monkeypatch.setattr(plain, "MAX_IMAGE_PIXELS", 90 * 120)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError, match=r"a\.png"):
            refuse()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_a_cut_image_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError) as caught:
            refuse()
        assert str(path) in str(caught.value)


def test_a_form_that_pillow_does_not_know_is_refused(tmp_path: Path) -> None:
    """A DDS under another name; Pillow says NotImplementedError."""
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path, format="DDS")
    data = bytearray(path.read_bytes())
    data[80:84] = bytes(4)  # flags of the pixel format
    path.write_bytes(data)
    with pytest.raises(UnreadableSlideError, match="pixel format"):
        read_image(path)


def test_a_png_with_a_broken_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    for at_byte in (data.index(b"IDAT"), data.index(b"IDAT") + 10, data.index(b"IHDR") + 9):
        broken = bytearray(data)
        broken[at_byte] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(UnreadableSlideError, match=r"a\.png"):
            open_slide(path, default_mpp_um=0.5)


# --- pages, turns, depth and mpp


@pytest.mark.parametrize("first", ["label", "half"])
def test_the_largest_page_of_a_tiff_in_strips(tmp_path: Path, first: str) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(RGB[:50, :30] if first == "label" else RGB[::2, ::2], photometric="rgb")
        tiff.write(RGB, photometric="rgb")
    np.testing.assert_array_equal(read_all(path), RGB)


TURNED = {
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).swapaxes(0, 1),
    8: np.rot90(RGB),
}
"""Orientation of EXIF and TIFF, as viewers show it."""


@pytest.mark.parametrize("turn", TURNED)
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_orientation(tmp_path: Path, suffix: str, turn: int) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tag = [(274, 3, 1, turn, True)]
        tifffile.imwrite(path, RGB, photometric="rgb", extratags=tag, metadata=None)
    else:
        exif = Image.Exif()
        exif[274] = turn
        Image.fromarray(RGB).save(path, exif=exif, lossless=True)
    np.testing.assert_array_equal(read_all(path), TURNED[turn])
    np.testing.assert_array_equal(read_image(path), TURNED[turn])


def test_orientation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (straight, turned) = (tmp_path / name for name in ("a.jpg", "b.jpg"))
    Image.fromarray(RGB).save(straight)
    Image.fromarray(RGB).save(turned, exif=exif)
    np.testing.assert_array_equal(read_all(turned), np.rot90(read_all(straight), -1))


def deep(path: Path, pixels: np.ndarray) -> Path:
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        layout = TILED if path.stem == "tiles" else {}
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **layout)
    return path


@pytest.mark.parametrize("name", ["strips.tif", "tiles.tif", "a.png"])
def test_twelve_bits_in_sixteen_are_named(tmp_path: Path, name: str) -> None:
    """Not divided by 256, and then taken for fluorescence."""
    path = deep(tmp_path / name, RGB.astype(np.uint16) * 16)
    for refuse in (lambda: open_slide(path, default_mpp_um=0.5), lambda: read_image(path)):
        with pytest.raises(UnreadableSlideError, match=r"more than 8 bits.*12 bits in 16.*convert"):
            refuse()


@pytest.mark.parametrize("name", ["strips.tif", "tiles.tif", "a.png"])
def test_sixteen_bits_in_full_range(tmp_path: Path, name: str) -> None:
    path = deep(tmp_path / name, RGB.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_all(path), RGB)


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("suffix", ["jp2", "JP2", "j2k"])
def test_jpeg_2000(tmp_path: Path, suffix: str, bits: int) -> None:
    """Its header says how many bits there are, so twelve are no guess."""
    path, kind = tmp_path / f"a.{suffix}", "j2k" if suffix == "j2k" else "jp2"
    pixels = RGB if bits == 8 else RGB.astype(np.uint16) * 16
    path.write_bytes(
        imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=kind, bitspersample=bits)
    )
    np.testing.assert_array_equal(read_all(path), RGB)


@pytest.mark.parametrize("kind", ["strips", "sixteen bits"])
@pytest.mark.parametrize(
    "where", ["resolution tags", "ImageJ's unit", "OME-XML", "ImageDescription"]
)
def test_mpp_of_a_tiff_that_pillow_reads(tmp_path: Path, kind: str, where: str) -> None:
    path = tmp_path / "a.tif"
    pixels = RGB if kind == "strips" else RGB.astype(np.uint16) * 257
    how: dict[str, Any] = {
        "resolution tags": {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"},
        "ImageJ's unit": {
            "resolution": (2, 2),
            "resolutionunit": "NONE",
            "description": "ImageJ=1.53t\nunit=micron\n",
        },
        "OME-XML": {
            "description": '<OME><Pixels SizeX="120" SizeY="90" PhysicalSizeX="0.5"/></OME>'
        },
        "ImageDescription": {"description": "x|AppMag = 20|MPP = 0.5"},
    }[where]
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **how)
    with open_slide(path, default_mpp_um=0.25) as slide:
        assert (slide.reader, slide.mpp_um, slide.mpp_source) == ("image", 0.5, "slide")
        assert slide.metadata.mpp is not None
        assert slide.metadata.mpp.where == where
