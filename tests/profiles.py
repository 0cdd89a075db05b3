"""ICC profiles that the tests write, and what ImageCms itself makes of pixels by them."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
from PIL import Image, ImageCms

D65 = (0.3127, 0.3290)
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))


def matrix_profile(
    primaries: tuple[tuple[float, float], ...] = P3, gamma: float = 2.2, name: str | None = None
) -> bytes:
    """Of a screen or a camera with these primaries, CIE x and y, under D65."""
    profile: bytes = imagecodecs.cms_profile(
        "rgb",
        whitepoint=[*D65, 1.0],
        primaries=[value for primary in primaries for value in (*primary, 1.0)],
        gamma=gamma,
    )
    return profile if name is None else profile + name.encode()


def relabelled(profile: bytes, space: bytes) -> bytes:
    """The same, of pixels of another colour space: "CMYK", "GRAY", "Lab "."""
    return profile[:16] + space + profile[20:]


def by_imagecms(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """uint8 (H, W, 3) in sRGB."""
    opened = ImageCms.getOpenProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    intent = ImageCms.getDefaultIntent(opened)
    transform = ImageCms.buildTransform(opened, srgb, "RGB", "RGB", renderingIntent=intent)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(ImageCms.applyTransform(image, transform))


def srgb_profile() -> bytes:
    """As Little CMS writes it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
