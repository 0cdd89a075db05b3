"""JPEG as a codec of Zarr v3, by the name and settings that `imagecodecs.zarr` gave it.

Importing this module is all that zarr-python needs to read such chunks. Where the package
imagecodecs-zarr is installed, which wants Python 3.12 and a newer zarr, zarr-python finds the codec
by itself, and this one stands back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np
import numpy.typing as npt
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import get_codec_class, register_codec

UInt8 = npt.NDArray[np.uint8]

NAME = "imagecodecs_jpeg"

SUBSAMPLING = "444"
"""Colours at full resolution: stain is colour, and at half of it quality 100 loses as much as 80
does with all of it."""


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """A chunk uint8 (1, H, W, 3) as a JPEG file.

    Attributes
    ----------
    level
        Quality as libjpeg counts it, 1 to 100.
    subsampling
        Of the colours.
    """

    is_fixed_size = False

    level: int = 90
    subsampling: str = SUBSAMPLING

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Of the metadata of an array; settings that only an encoder asks for do not matter."""
        said = data.get("configuration") or {}
        return cls(**{key: said[key] for key in ("level", "subsampling") if key in said})

    def to_dict(self) -> dict[str, Any]:
        """As the metadata of an array have it."""
        configuration = {"level": self.level, "subsampling": self.subsampling}
        return {"name": NAME, "configuration": configuration}

    def compute_encoded_size(self, _input_byte_length: int, _chunk_spec: Any) -> int:
        """Nobody knows it before."""
        raise NotImplementedError

    def encode_pixels(self, pixels: UInt8) -> bytes:
        """The file of a picture uint8 (..., H, W, 3)."""
        picture = pixels.reshape(pixels.shape[-3:])
        return bytes(
            imagecodecs.jpeg8_encode(picture, level=self.level, subsampling=self.subsampling)
        )

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        pixels = np.ascontiguousarray(chunk_data.as_numpy_array())
        data = await asyncio.to_thread(self.encode_pixels, pixels)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        data = chunk_bytes.as_numpy_array()
        pixels = await asyncio.to_thread(decode_pixels, data)
        if pixels.size != np.prod(chunk_spec.shape):
            raise ValueError(f"a JPEG of shape {pixels.shape} in a chunk of {chunk_spec.shape}")
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))


def decode_pixels(data: Any) -> UInt8:
    """uint8 (H, W, 3) of a JPEG file."""
    pixels: UInt8 = imagecodecs.jpeg8_decode(data)
    return pixels


def _register() -> None:
    try:
        get_codec_class(NAME)
    except KeyError:
        register_codec(NAME, JpegCodec)


_register()
