"""Errors that wsi-norm raises on purpose. Each message says which file, what, and what to do.

WsiNormError
├── ConfigError (ValueError)         a setting, a table or a region file is wrong
├── SlideError                       one slide cannot be processed
│   ├── UnreadableSlideError         no reader opens it, or too much of it cannot be read
│   ├── ResolutionError              mpp missing, absurd or too coarse for the target
│   └── ColourError                  not brightfield, or colours that cannot be H&E on glass
├── ReadError                        one region of an open slide cannot be decoded
├── TrainingError                    a training diverged, or cannot go on from what is there
├── CheckpointError (ValueError)     a model file is missing, damaged, foreign or hostile
├── StoreError                       a zarr store is incomplete, damaged or of other settings
├── ExportError                      a store cannot be written in another format
└── ReportError                      the report of a run cannot be written
"""

from wsi_norm.text import shown


class WsiNormError(Exception):
    """Base of every error raised on purpose; its text is one line for a user."""

    def __str__(self) -> str:
        """The line; names in it hold no line breaks and steer no terminal."""
        return shown(super().__str__())


class ConfigError(WsiNormError, ValueError):
    """A setting, a slide table or a region file is wrong."""


class SlideError(WsiNormError):
    """One slide cannot be processed; the others can."""


class UnreadableSlideError(SlideError):
    """No reader opens the slide, or too large a share of it cannot be read."""


class ResolutionError(SlideError):
    """The slide's mpp is missing, absurd, or too coarse for the target mpp."""


class ColourError(SlideError):
    """The slide is not brightfield, or its colours cannot be stained tissue on clear glass."""


class ReadError(WsiNormError):
    """One region of an open slide cannot be decoded; other regions may still be readable."""


class CheckpointError(WsiNormError, ValueError):
    """A model file is missing, damaged, of another format, or would run code when loaded."""


class TrainingError(WsiNormError):
    """A training diverged, or what is in its folder cannot be continued."""


class StoreError(WsiNormError):
    """A zarr store is incomplete, damaged, or was written with other settings."""


class ExportError(WsiNormError):
    """An export cannot be written, cannot hold the store, or something else has its name."""


class ReportError(WsiNormError):
    """The report of a run cannot be written: its folder is gone, full or read-only by now."""
