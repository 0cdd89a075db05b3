"""`wsi-norm fit-template`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from wsi_norm.choices import IccChoice

from .group import FILE
from .output import say

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@click.command("fit-template")
@click.argument("tiles", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="Checkpoint: .safetensors or .pt.")
@click.option("--preset", default="single:od", show_default=True, help="What the layer is.")
@click.option(
    "--by-folder",
    is_flag=True,
    help="Tiles of a folder are one slide: measured together, as a run measures.",
)
@click.option(
    "--icc",
    default="ignore",
    show_default=True,
    type=click.Choice(get_args(IccChoice)),
    help="Whether ICC profiles bring the tiles' colours to sRGB first.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32),
    help="Of the attention's initial weights.",
)
@click.option("--note", help="A line for the checkpoint's provenance: what the tiles are.")
def command(
    tiles: tuple[Path, ...],
    output: Path,
    preset: str,
    by_folder: bool,
    icc: IccChoice,
    seed: int,
    note: str | None,
) -> None:
    """Make an untrained layer whose template is the tissue of TILES (image files or folders)."""
    import torch

    from wsi_norm.errors import ConfigError
    from wsi_norm.lstainnorm import (
        PRESETS,
        LayerConfig,
        Template,
        make_layer,
        save_checkpoint,
    )
    from wsi_norm.slide import read_image

    if preset not in PRESETS:
        raise ConfigError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    files = [file for path in tiles for file in _images(path)]
    slides: dict[Path, list[Path]] = {}
    for file in files:
        slides.setdefault(file.parent if by_folder else file, []).append(file)
    try:
        template = Template.fit(
            ([read_image(file, icc) for file in slide] for slide in slides.values()),
            within_tiles=True,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    torch.manual_seed(seed)
    layer = make_layer(LayerConfig.of(preset), template)
    provenance = {
        "training": "none: the template is that of a cohort of tiles, the weights are initial",
        "tiles": len(files),
        **({"slides": len(slides)} if by_folder else {}),
        "icc": icc,
        "seed": seed,
        **({"note": note} if note else {}),
    }
    save_checkpoint(layer, output, provenance)
    of = f" of {len(slides)} slides" if by_folder else ""
    say(f"{output}: {preset}, template of {len(files)} tiles{of}")


def _images(path: Path) -> list[Path]:
    from wsi_norm.errors import ConfigError

    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise ConfigError(f"{path}: no images in this folder")
    return found
