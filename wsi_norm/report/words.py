"""How the report puts things: numbers with their units, verdicts, remedies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsi_norm.choices import Layout
from wsi_norm.report.results import RunSummary, SlideResult, Status
from wsi_norm.store import IccMeta, TilingMeta
from wsi_norm.text import shown

STATUSES: Mapping[Status, tuple[str, str]] = {
    "failed": ("✕", "no result"),
    "damaged": ("!", "finished, but the file or some of its tiles are damaged"),
    "interrupted": ("‖", "not finished; the same command continues it"),
    "done": ("✓", "every tile is there"),
    "skipped": ("»", "finished by an earlier run"),
    "empty": ("○", "no tissue"),
    "planned": ("…", "a dry run: nothing was written"),
}
"""A sign and a meaning of each status; the worst first."""

LAYOUTS: dict[Layout, str] = {
    "tiles": "an array of tiles",
    "pyramid": "an OME-Zarr image (pyramid)",
    "both": "an array of tiles, and an OME-Zarr image (pyramid)",
    "plan": "a plan without pixels",
}
"""What a store holds of them."""

MPP_SOURCES = {
    "slide": "slide",
    "table": "table",
    "override": "--override-mpp",
    "default": "--default-mpp",
}
"""Where a slide's mpp came from, by what the store says."""


ICC = {
    "applied": "applied",
    "ignored": "ignored",
    "srgb": "says sRGB, nothing to apply",
    "unusable": "cannot be applied",
}
"""What became of an ICC profile, by what the store says."""


def verdict(summary: RunSummary) -> str:
    """The run in a sentence; the words follow the exit status."""
    statuses = {slide.status for slide in summary.slides}
    if summary.exit_status == 130:
        return "Interrupted. The same command continues where it stopped."
    if summary.exit_status == 1:
        return "Some slides are not whole. The others are complete."
    if "planned" in statuses:
        return "A dry run. Nothing was written."
    if "damaged" in statuses:
        return "Every tile could be read, but some files are damaged."
    return "Every slide is whole." if statuses else "There were no slides."


def message(slide: SlideResult) -> str:
    """What a slide suffers from, in one line, without the path that stands beside it."""
    text = slide.error or "; ".join(slide.warnings) or STATUSES[slide.status][1]
    for path in (slide.slide, slide.store):
        text = text.removeprefix(f"{path}: ").removeprefix(f"{shown(path)}: ")
    return text


def split_cause(text: str) -> tuple[str, str]:
    """A message before and after its first "; " outside brackets: the cause, and the rest."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth <= 0 and text.startswith("; ", place):
            return text[:place], text[place + 2 :]
    return text, ""


def remedy(slide: SlideResult) -> str:
    """What to do where the error does not say it: about damage."""
    if slide.status in {"failed", "interrupted"}:
        return ""
    if slide.unreadable:
        return (
            "Flag 1 marks the unreadable tiles: leave them out, or copy the slide again and run "
            "with --overwrite."
        )
    return "Every tile could be read. Compare the file with its original, by size or checksum."


def tiles(meta: TilingMeta) -> str:
    """The resolution of tiles, and whether they are of JPEG that was not decoded in full."""
    fraction = f", JPEG decoded at 1/{meta.reduced}" if (meta.reduced or 1) > 1 else ""
    return f"{meta.mpp_um:.4g}{fraction}"


def icc(meta: IccMeta | None) -> str:
    """What becomes of a slide's ICC profile; nothing where none is known of."""
    if meta is None or meta.sha256 is None:
        return ""
    return ICC[meta.status] + (f" ({meta.description})" if meta.description else "")


def trained(provenance: Mapping[str, Any]) -> str:
    """Yes, no or not stated, by the provenance's `training` ("none..." says no)."""
    stated = provenance.get("training")
    if not stated:
        return "not stated"
    return "no" if str(stated).startswith("none") else "yes"


def count(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """Seconds as a person would say it."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def share(fraction: float) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:.1f} %" if 0 < fraction < 0.0995 else f"{100 * fraction:.0f} %"


def size(number: float) -> str:
    """Bytes in the nearest of kB, MB, GB and TB."""
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.5:
            return f"{number:.3g} {unit}"
    return f"{number / 1000:.3g} TB"


def setting(value: Any) -> str:
    """A setting's value as one would write it."""
    if value is None or value == []:
        return "–"  # noqa: RUF001
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {setting(inner)}" for key, inner in value.items())
    return str(value)
