"""mpp out of texts and tags, as programs write them."""

from __future__ import annotations

from typing import Any

import pytest

from wsi_norm.geometry import Level
from wsi_norm.slide.readers.base import Stated, StatedMpp
from wsi_norm.slide.readers.resolution import TAGS, Described, Statement, metadata

INCH, CENTIMETRE, NONE = 2, 3, 1
OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas">'
    "{}</OME>"
)
IMAGE = (
    '<Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="{}" SizeY="{}" '
    'PhysicalSizeX="{}" PhysicalSizeY="{}" {}/></Image>'
)


def page(text: str = "", x: Any = None, y: Any = None, unit: int | None = None) -> Statement:
    return Statement((600, 400), text, x, y, unit)


def ome(*images: tuple[Any, ...]) -> str:
    return OME.format("".join(IMAGE.format(*image) for image in images))


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        ("Motic V1.0.0 600x400|AppMag = 20|MPP = 0.500000", 0.5),
        ("Scanner X\nmpp: 0.25\n", 0.25),
        ("MPP = 0,5|AppMag = 20", 0.5),
        ('{"shape": [400, 600, 3], "mpp": 0.5}', 0.5),
        ("MPP = 5e-1", 0.5),
        ("MPP = ", None),
        ("MPP = none", None),
        ("MPP = 0", None),
        ("COMPP = 3|dmppx = 4", None),
        ("", None),
    ],
)
def test_comments(text: str, mpp: float | None) -> None:
    expected = None if mpp is None else StatedMpp(mpp, mpp, "ImageDescription")
    assert Described.by(page(text)).mpp == expected


def test_the_comment_of_another_page_speaks_of_that_page() -> None:
    assert Described.by(page(), page("MPP = 2.0|AppMag = 5")) == Described(None, None, None)


def test_the_objective() -> None:
    assert Described.by(page("AppMag = 40|MPP = 0.25")).objective_power == 40


@pytest.mark.parametrize(
    ("units", "x", "um"),
    [
        ("", 0.5, 0.5),
        ('PhysicalSizeXUnit="µm" PhysicalSizeYUnit="µm"', 0.5, 0.5),
        ('PhysicalSizeXUnit="&#181;m" PhysicalSizeYUnit="&#xB5;m"', 0.5, 0.5),
        ('PhysicalSizeXUnit="nm" PhysicalSizeYUnit="nm"', 500, 0.5),
        ('PhysicalSizeXUnit="mm" PhysicalSizeYUnit="mm"', 0.0005, 0.5),
        ('PhysicalSizeXUnit="pixel" PhysicalSizeYUnit="pixel"', 1.0, None),
    ],
)
def test_ome_xml(units: str, x: float, um: float | None) -> None:
    found = Described.by(page(ome((600, 400, x, x, units)))).mpp
    if um is None:
        assert found is None
    else:
        assert found == StatedMpp(pytest.approx(um), pytest.approx(um), "OME-XML")


def test_ome_xml_of_several_images() -> None:
    """It stands with the first page; the image of the slide's size counts."""
    text = ome((300, 200, 20.0, 20.0, ""), (600, 400, 0.5, 0.25, ""))
    assert Described.by(page(), page(text)).mpp == StatedMpp(0.5, 0.25, "OME-XML")
    assert Described.by(page(ome((5, 5, 0.3, 0.3, "")))).mpp == StatedMpp(0.3, 0.3, "OME-XML")
    assert Described.by(page(OME.format(""))).mpp is None


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m", "µm"])
def test_imagej(unit: str) -> None:
    text = f"ImageJ=1.53t\nunit={unit}\nmin=0.0\n"
    found = Described.by(page(text, 2.0, 4.0, NONE))
    assert found.mpp == StatedMpp(0.5, 0.25, "ImageJ's unit")
    assert found.tagged_mpp is None
    assert Described.by(page("ImageJ=1.53t\nunit=pixel\n", 2.0, 2.0, NONE)).mpp is None
    assert Described.by(page(f"unit={unit}", 2.0, 2.0, NONE)).mpp is None


@pytest.mark.parametrize(
    ("x", "y", "unit", "mpp"),
    [
        (50800.0, 50800.0, INCH, (0.5, 0.5)),
        (20000.0, 40000.0, CENTIMETRE, (0.5, 0.25)),
        (20000.0, None, CENTIMETRE, (0.5, 0.5)),
        (20000.0, 20000.0, NONE, None),
        (20000.0, 20000.0, None, None),
        (None, None, CENTIMETRE, None),
    ],
)
def test_tags(x: Any, y: Any, unit: int | None, mpp: tuple[float, float] | None) -> None:
    found = Described.by(page("", x, y, unit)).tagged_mpp
    assert found == (None if mpp is None else StatedMpp(*mpp, TAGS))


def asked(vendor: str, mpp: str | None) -> Stated:
    properties = {"openslide.vendor": vendor, "openslide.mpp-x": mpp, "openslide.mpp-y": mpp}
    return Stated("openslide", properties, ((600, 400),), (1.0,), ("label",))


def test_a_vendors_statement_rules_and_tags_come_last() -> None:
    described = Described(StatedMpp(0.3, 0.3, "OME-XML"), StatedMpp(9, 9, TAGS), 20.0)

    def mpp(vendor: str, own: str | None, found: Described = described) -> tuple[float, str]:
        stated = metadata(
            asked(vendor, own), [Level(0, 6, 4, 1.0)], found, icc_profile=b"profile", left_out={}
        ).mpp
        assert stated is not None
        return stated.x, stated.where

    only_tags = Described(None, described.tagged_mpp, None)
    assert mpp("aperio", "0.5") == (0.5, "its properties")
    assert mpp("aperio", None) == (0.3, "OME-XML")
    assert mpp("aperio", None, only_tags) == (9, TAGS)
    assert mpp("generic-tiff", "0.5") == (0.3, "OME-XML")
    assert mpp("generic-tiff", "0.5", only_tags) == (0.5, TAGS)
    assert (
        metadata(asked("a", None), [], described, icc_profile=None, left_out={}).objective_power
        == 20
    )
