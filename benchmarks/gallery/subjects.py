"""What the gallery shows: subjects (rows) and methods (columns). Change both here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_norm.normalizers.model import Model

METHODS: dict[str, Model] = {
    "packaged": Model("lstainnorm"),
    "paper": Model("lstainnorm", Path("paper")),
    "macenko": Model("macenko"),
    "reinhard": Model("reinhard"),
}
PACKAGED = "packaged"
"""The method whose failures the page lists: what a run takes when nothing is said."""


@dataclass(frozen=True)
class Subject:
    """One row.

    Attributes
    ----------
    file
        Beneath the folder of data, or `drawn:NAME` of `drawn.PAINTS`.
    at
        x, y in level-0 px of what is shown.
    whole
        Counted are the tiles that the slide's statistics come from (at most 64), else what is
        shown.
    edge, tile
        In px: of what is shown, and of tiles.
    mpp_um
        Of level 0, where the file states none; a guess for tiles without one.
    """

    name: str
    file: str
    at: tuple[int, int] = (0, 0)
    whole: bool = True
    edge: int = 384
    tile: int = 256
    mpp_um: float | None = None


RED, SKIN = "slides/real/TCGA-CR-7395-01A-01-TS1.svs", "slides/real/CMU-1-Small-Region.svs"
FIELDS, SAMPLES, ARTEFACTS = "tiles/monuseg/images/TCGA-", "tiles/samples/", "slides/artefacts/"


def field(name: str, file: str, at: tuple[int, int] = (300, 300), whole: bool = True) -> Subject:
    """A MoNuSeg field."""
    return Subject(name, f"{FIELDS}{file}-01Z-00-DX1.webp", at, whole, mpp_um=0.25)


def image(name: str, file: str, at: tuple[int, int] = (64, 64), edge: int = 384) -> Subject:
    """A tile, counted as it is shown."""
    return Subject(name, file, at, whole=False, edge=edge, mpp_um=0.5)


SUBJECTS = (
    Subject("very red slide, frozen", RED, (1750, 2040), mpp_um=0.5),
    Subject("very red: fold", RED, (40, 1560), whole=False, mpp_um=0.5),
    Subject("very red: fold over glass", RED, (2980, 0), whole=False, mpp_um=0.5),
    Subject("very red: pale, loose tissue", RED, (3640, 1560), whole=False, mpp_um=0.5),
    Subject("skin", SKIN, (1050, 1150)),
    Subject("skin: keratin, green ink", SKIN, (1560, 1180), whole=False),
    Subject("melanin in skin", SKIN, (1500, 2410), whole=False, edge=256),
    field("palest field", "G9-6363"),
    Subject("palest sample", f"{SAMPLES}torchstain_source.png", (190, 40), mpp_um=1.0),
    field("darkest field", "49-4488"),
    image("darkest sample", f"{SAMPLES}stardist_histo.jpg", (0, 0), 300),
    field("blue field, little eosin", "21-5786"),
    Subject("very blue", f"{SAMPLES}torchstain_target.png", (150, 40), mpp_um=1.0),
    field("blood in vessels", "HE-7129", (500, 350)),
    field("blood in clear-cell tissue", "B0-5698"),
    Subject("blood, drawn", "drawn:blood", (100, 180), mpp_um=0.5),
    image("pigment in lung", f"{SAMPLES}histolab_tcga-lung-rgb.png", (128, 64)),
    Subject("melanin, drawn", "drawn:melanin", (100, 180), mpp_um=0.5),
    field("foam cells", "HE-7128", (400, 500)),
    image("fat beside green pen", f"{ARTEFACTS}medium-nuclei-score-green-pen-level1.png", (0, 128)),
    Subject("fat, drawn", "drawn:fat", (100, 180), mpp_um=0.5),
    image("mucin, debris", f"{SAMPLES}mopadi_TCGA-AD-6964_tile_23040_25088.jpg", (100, 128)),
    Subject("mucin, drawn", "drawn:mucin", (190, 530), mpp_um=0.5),
    image("red pen on tissue", f"{ARTEFACTS}high-nuclei-score-red-pen-level1.png"),
    image("green pen, no tissue", f"{ARTEFACTS}no-tissue-green-pen.png"),
    image("red pen, no tissue", f"{ARTEFACTS}no-tissue-red-pen.png"),
    Subject("blue pen, thumbnail", f"{ARTEFACTS}wsi-blue-pen.png", edge=130, tile=64, mpp_um=8.0),
    image("nearly glass", f"{ARTEFACTS}almost-white-1.png"),
    image("nearly glass, a line", f"{ARTEFACTS}no-tissue-line.png", (128, 64)),
    Subject(
        "IHC of kidney",
        f"{ARTEFACTS}kidney-ihc-level0-340-520-390-550.png",
        edge=30,
        tile=30,
        mpp_um=8.0,
    ),
    Subject("IHC, drawn", "drawn:dab", (100, 180), mpp_um=0.5),
)
