"""Slides: the only home of OpenSlide and TiffSlide."""

from wsi_norm.slide.readers import read_image
from wsi_norm.slide.slide import MppSource, Overview, ReaderName, Slide, open_slide

__all__ = ["MppSource", "Overview", "ReaderName", "Slide", "open_slide", "read_image"]
