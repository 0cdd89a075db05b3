"""Slides: the only home of OpenSlide and TiffSlide."""

from wsi_norm.slide.files import SlideFiles, slide_files
from wsi_norm.slide.mpp import MppSource
from wsi_norm.slide.opening import open_slide
from wsi_norm.slide.overview import Overview
from wsi_norm.slide.readers.base import LeftOut
from wsi_norm.slide.readers.image import read_image
from wsi_norm.slide.slide import Slide, fingerprint

__all__ = [
    "LeftOut",
    "MppSource",
    "Overview",
    "Slide",
    "SlideFiles",
    "fingerprint",
    "open_slide",
    "read_image",
    "slide_files",
]
