"""Which mpp counts: the table's, the one for all slides, what the slide states, or the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsi_norm.errors import ResolutionError
from wsi_norm.location import Location
from wsi_norm.slide.readers.base import Metadata, StatedMpp, positive_number
from wsi_norm.slide.readers.resolution import TAGS

MPP_RANGE_UM = (0.05, 16.0)
"""mpp outside this range is no microscope's: 200x would be 0.05, 0.625x is 16."""
MPP_POWER_RANGE_UM = (4.0, 25.0)
"""mpp x objective power is about 10 um (0.5 at 20x, 0.25 at 40x); far off means one is wrong."""

REMEDY = "give the right one in the column mpp of --slides-csv, or with --override-mpp for all"
PRINT_REMEDY = "give the right one with --default-mpp, or in the column mpp of --slides-csv"

MppSource = Literal["slide", "table", "override", "default"]


@dataclass(frozen=True)
class GivenMpp:
    """um/px of level 0 that users give; None where they do not.

    Attributes
    ----------
    table
        For this slide: rules over everything.
    override
        For all slides: rules over what they state.
    default
        For slides that state none.
    """

    table: float | None = None
    override: float | None = None
    default: float | None = None


@dataclass(frozen=True)
class Mpp:
    """The mpp that counts, in um/px, where it is from, and what is to be said about it."""

    um: float
    source: MppSource
    warnings: tuple[str, ...] = ()


def chosen_mpp(path: Location, metadata: Metadata, given: GivenMpp) -> Mpp:
    """The mpp of level 0.

    Raises
    ------
    ResolutionError
        There is none, it is absurd, differs between the axes, or contradicts the objective power.
    """
    stated = metadata.mpp
    if given.table is not None:
        return Mpp(_in_range(path, given.table, "table"), "table")
    if given.override is not None:
        return Mpp(_in_range(path, given.override, "override"), "override")
    if stated is None or (given.default is not None and _of_a_print(stated)):
        return _default(path, stated, given.default)
    _check_stated(path, stated, metadata.objective_power)
    return Mpp(stated.mean, "slide")


def _default(path: Location, stated: StatedMpp | None, default: float | None) -> Mpp:
    if default is None:
        raise ResolutionError(
            f"{path}: the slide states no usable mpp; give it with --default-mpp, "
            "or in the column mpp of --slides-csv"
        )
    warnings = (
        (f"mpp: {stated.where} say {stated.mean:g} um/px, as for a print; --default-mpp is taken",)
        if stated is not None
        else ()
    )
    return Mpp(_in_range(path, default, "default"), "default", warnings)


def _check_stated(path: Location, stated: StatedMpp, power: float | None) -> None:
    if not stated.isotropic and not _of_a_print(stated):
        raise ResolutionError(
            f"{path}: the slide states mpp {stated.x:g} in x but {stated.y:g} in y "
            f"({stated.where}), so its pixels are not square; scale it, or {REMEDY}"
        )
    remedy = PRINT_REMEDY if _of_a_print(stated) else REMEDY
    _in_range(path, stated.mean, "slide", f" by {stated.where}", remedy)
    low, high = MPP_POWER_RANGE_UM
    if power is not None and not low <= stated.mean * power <= high:
        raise ResolutionError(
            f"{path}: the slide states mpp {stated.mean:g} but objective power {power:g}, which "
            f"means about {10 / power:g} um/px; {REMEDY}"
        )


def _of_a_print(stated: StatedMpp) -> bool:
    """Whether it is what programs write into resolution tags that know of no microscope."""
    return stated.where == TAGS and not _is_in_range(stated.mean)


def _is_in_range(mpp_um: float) -> bool:
    low, high = MPP_RANGE_UM
    return positive_number(mpp_um) is not None and low <= mpp_um <= high


def _in_range(
    path: Location, mpp_um: float, source: MppSource, where: str = "", remedy: str = REMEDY
) -> float:
    if _is_in_range(mpp_um):
        return mpp_um
    low, high = MPP_RANGE_UM
    raise ResolutionError(
        f"{path}: mpp {mpp_um:g} ({source}){where} is outside {low:g}-{high:g} um/px; {remedy}"
    )
