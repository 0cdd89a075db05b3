"""Slides: the only home of OpenSlide and TiffSlide."""

from wsi_norm.slide.opening import ReaderName, open_slide
from wsi_norm.slide.readers import read_image
from wsi_norm.slide.slide import MppSource, Overview, Slide

__all__ = ["MppSource", "Overview", "ReaderName", "Slide", "open_slide", "read_image"]
