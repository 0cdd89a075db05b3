"""Which mpp counts, and what is refused."""

from pathlib import Path

import pytest

from wsi_norm.errors import ResolutionError
from wsi_norm.geometry import Level
from wsi_norm.slide.mpp import GivenMpp, Mpp, chosen_mpp
from wsi_norm.slide.readers.base import Metadata, StatedMpp
from wsi_norm.slide.readers.resolution import TAGS

PATH = Path("a.svs")


def chosen(stated: StatedMpp | None, power: float | None = None, **given: float) -> Mpp:
    metadata = Metadata((Level(0, 10, 10, 1.0),), mpp=stated, objective_power=power)
    return chosen_mpp(PATH, metadata, GivenMpp(**given))


def stated(x: float, y: float | None = None, where: str = "OME-XML") -> StatedMpp:
    return StatedMpp(x, x if y is None else y, where)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Mpp(0.5, "slide")),
        ({"default": 0.25}, Mpp(0.5, "slide")),
        ({"override": 0.3, "default": 0.25}, Mpp(0.3, "override")),
        ({"table": 0.4, "override": 0.3, "default": 0.25}, Mpp(0.4, "table")),
    ],
)
def test_who_rules(given: dict[str, float], expected: Mpp) -> None:
    assert chosen(stated(0.5), **given) == expected


def test_a_slide_that_states_none() -> None:
    assert chosen(None, default=0.25) == Mpp(0.25, "default")
    assert chosen(None, override=0.3, default=0.25) == Mpp(0.3, "override")
    with pytest.raises(ResolutionError, match=r"no usable mpp.*--default-mpp.*--slides-csv"):
        chosen(None)


@pytest.mark.parametrize(
    ("mpp", "words"),
    [
        (stated(0.5, 0.25), r"mpp 0\.5 in x but 0\.25 in y \(OME-XML\).*not square"),
        (stated(0.01), r"mpp 0\.01 \(slide\) by OME-XML is outside 0\.05-16"),
        (stated(5.0), r"mpp 5 but objective power 20.*about 0\.5"),
    ],
)
def test_what_is_stated_is_never_replaced_by_the_default(mpp: StatedMpp, words: str) -> None:
    for given in ({}, {"default": 0.5}):
        with pytest.raises(
            ResolutionError, match=rf"^a\.svs: .*{words}.*--slides-csv.*--override-mpp"
        ):
            chosen(mpp, 20.0, **given)
    assert chosen(mpp, 20.0, override=0.5) == Mpp(0.5, "override")
    assert chosen(mpp, 20.0, table=0.5) == Mpp(0.5, "table")


def test_nearly_square_pixels() -> None:
    assert chosen(stated(0.5, 0.52)).um == pytest.approx(0.51)


@pytest.mark.parametrize("mpp", [1000.0, 25400 / 72])
def test_resolution_of_a_print(mpp: float) -> None:
    """1 px/mm (libvips) and 72 dpi are what programs write that know none: the default is taken."""
    tags = stated(mpp, where=TAGS)
    taken = chosen(tags, default=0.5)
    assert (taken.um, taken.source) == (0.5, "default")
    (warning,) = taken.warnings
    assert f"{mpp:g} um/px" in warning
    assert "--default-mpp" in warning
    with pytest.raises(
        ResolutionError, match=rf"mpp {mpp:g} \(slide\).*--default-mpp.*--slides-csv"
    ):
        chosen(tags)
    assert chosen(stated(0.5, where=TAGS), default=0.25) == Mpp(0.5, "slide")


@pytest.mark.parametrize("source", ["table", "override", "default"])
@pytest.mark.parametrize("mpp", [0.0, -1.0, 0.01, 17.0, float("nan"), float("inf")])
def test_absurd_values_of_users(source: str, mpp: float) -> None:
    with pytest.raises(ResolutionError, match=rf"\({source}\) is outside"):
        chosen(None, **{source: mpp})
