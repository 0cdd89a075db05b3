"""Readers of slide files, one module per library: the only home of OpenSlide and TiffSlide."""
