"""`wsi-norm inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_norm.text import shown

from .group import FILE
from .output import say_styled

if TYPE_CHECKING:
    from wsi_norm.lstainnorm import StainLayer, Template


@click.command("inspect")
@click.argument("model", required=False, type=FILE)
@click.option("--template", type=FILE, help="Of an authors' state dict.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(model: Path | None, template: Path | None, as_json: bool) -> None:
    """Show preset, template, provenance and sha256 of MODEL: a file, density (if none) or paper."""
    from wsi_norm.config import read_yaml
    from wsi_norm.lstainnorm.checkpoint import DEFAULT, open_checkpoint
    from wsi_norm.lstainnorm.learned import moves, space_weights

    layer, sha256 = open_checkpoint(model, read_yaml(template) if template else None)
    facts = {
        "checkpoint": str(model or DEFAULT),
        "sha256": sha256,
        **layer.config.to_dict(),
        "parameters": sum(parameter.numel() for parameter in layer.parameters()),
        "template": layer.template.to_dict(),
        "target": layer.target.to_dict(),
        "moves_in_template_std": {f"{m.space} {m.channel}": m.in_std for m in moves(layer)},
        "space_weights": space_weights(layer),
        "provenance": layer.provenance,
    }
    say_styled(json.dumps(facts, indent=1) if as_json else _text(layer, facts))


def _text(layer: StainLayer, facts: dict[str, Any]) -> str:
    lines = [
        shown(f"{key:12} {facts[key]}") for key in ("checkpoint", "sha256", "preset", "spaces")
    ]
    lines += [f"{key:12} {facts[key]}" for key in ("statistics", "background", "parameters")]
    lines += ["", *_template_lines("template", layer.template)]
    if facts["target"] != facts["template"]:
        lines += ["", *_template_lines("target (what was learned)", layer.target)]
        lines += ["", *_move_lines(layer)]
    if len(layer.config.spaces) > 1:
        shares = ", ".join(f"{s} {w:.3f}" for s, w in facts["space_weights"].items())
        lines += ["", f"share of each space: {shares}"]
    return "\n".join([*lines, "", "provenance", *map(shown, _provenance_lines(layer.provenance))])


def _move_lines(layer: StainLayer) -> list[str]:
    from wsi_norm.lstainnorm.learned import moves

    title = "move of the target: mean from, to (in template std); std from, to (times)"
    return [
        title,
        *(
            f"  {m.space:4} {m.channel:12} {m.template_mean:8.3f} {m.target_mean:8.3f} "
            f"({m.in_std:+.2f})  {m.template_std:7.3f} {m.target_std:7.3f} ({m.times:.2f})"
            for m in moves(layer)
        ),
    ]


def _provenance_lines(provenance: dict[str, Any], indent: str = "  ") -> list[str]:
    """`key: value` lines; mappings of mappings go one level deeper."""
    lines = []
    for key, value in provenance.items():
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            lines += [f"{indent}{key}:", *_provenance_lines(value, indent + "  ")]
        elif isinstance(value, dict):
            pairs = ", ".join(f"{name} {inner}" for name, inner in value.items())
            lines.append(f"{indent}{key}: {pairs}")
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines or [f"{indent}none stated"]


def _template_lines(title: str, template: Template) -> list[str]:
    from wsi_norm.spaces import CHANNELS

    lines = [f"{title}: mean (std) per channel; swatch: mean - std, mean, mean + std"]
    for space, mean in template.mean.items():
        std = template.std[space]
        channels = "  ".join(
            f"{name} {m:.3f} ({s:.3f})"
            for name, m, s in zip(CHANNELS[space], mean, std, strict=True)
        )
        lines.append(f"  {space:4} {_swatches(space, mean, std)}  {channels}")
    return lines


def _swatches(space: Any, mean: Any, std: Any) -> str:
    """Three colour fields in 24-bit terminal colours; the first channel that means light moves."""
    import torch

    from wsi_norm.colorspace import CONVERSIONS

    light = {"lab": (0,), "hsv": (2,)}.get(space, (0, 1, 2))
    fields = []
    for sign in (-1, 0, 1):
        colour = [
            m + sign * s * (k in light) for k, (m, s) in enumerate(zip(mean, std, strict=True))
        ]
        rgb = CONVERSIONS[space].to_rgb(torch.tensor(colour).view(1, 3, 1, 1)).clamp(0, 1)
        red, green, blue = (round(255 * value) for value in rgb.flatten().tolist())
        fields.append(click.style("    ", bg=(red, green, blue)))
    return "".join(fields)
