"""What a layer learned, and the layer without its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsi_norm.cohort.splits import read_splits
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.lstainnorm import LayerConfig, LStainNorm, StainLayer, Template, make_layer
from wsi_norm.lstainnorm.background import bounded, tissue_weight, white_of
from wsi_norm.lstainnorm.learned import space_weights
from wsi_norm.lstainnorm.shadow import shadow_range
from wsi_norm.training.ablation import ablation, learned_facts, variants
from wsi_norm.training.front import LayerFront
from wsi_norm.training.judge import judge, mean_score

Cohort = Callable[..., Path]
Make = Callable[..., TrainConfig]
SPACES = ("rgb", "lab", "hsv")


def trained(preset: str) -> StainLayer:
    """A layer whose parameters are all away from where they start."""
    tile = np.random.default_rng(0).integers(60, 220, (32, 32, 3), np.uint8)
    layer = make_layer(LayerConfig(preset, statistics="tile"), Template.fit(tile))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            size = 4 if "attention" in name else 0.4  # large, so that attention is sharp
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return layer


def image() -> torch.Tensor:
    """Patches of colour and noise: attention has something to tell apart."""
    generator = torch.Generator().manual_seed(2)
    patches = torch.rand(2, 3, 3, 3, generator=generator).repeat_interleave(8, 2)
    noise = torch.rand(2, 3, 24, 24, generator=generator)
    return patches.repeat_interleave(8, 3) * 0.5 + noise * 0.2 + 0.2


def branches_of(layer: LStainNorm, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The image in every space, and how much of a pixel is tissue."""
    weight = tissue_weight(x, white_of(x))
    normalization = layer.normalization
    mean, std, _ = normalization.measure(x, weight)
    return normalization(x, mean, std), weight  # type: ignore[operator]


def within_bounds(
    layer: LStainNorm, x: torch.Tensor, weight: torch.Tensor, fused: torch.Tensor
) -> torch.Tensor:
    """What the layer does to the fused image at the end, whatever is taken away before."""
    return bounded(x, fused, *shadow_range(*layer.normalization.measure_rgb(x, weight)))


# --- facts


def test_moves_of_the_target() -> None:
    layer = trained("mean")
    facts = learned_facts(layer)
    offset, spread = (
        getattr(layer.normalization, name).detach() for name in ("mean_offset", "std_offset")
    )
    names = {
        "rgb": ("R", "G", "B"),
        "lab": ("L*", "a*", "b*"),
        "hsv": ("hue", "saturation", "value"),
    }
    for s, space in enumerate(SPACES):
        for c, channel in enumerate(names[space]):
            moved = facts["target"][space][channel]
            mean, std = layer.template.mean[space][c], layer.template.std[space][c]
            assert moved["move"] == pytest.approx(float(offset[s, c]), abs=1e-3)
            assert moved["mean"][0] == pytest.approx(mean, abs=1e-4)
            assert moved["mean"][1] == pytest.approx(mean + std * float(offset[s, c]), abs=1e-3)
            factor = min(max(1 + float(spread[s, c]), 0.2), 3.0)
            assert moved["std"] == pytest.approx([std, std * factor], abs=1e-3)
    assert facts["weights"] == pytest.approx(space_weights(layer), abs=1e-4)


def test_a_channel_without_spread_does_not_move() -> None:
    template = Template({"rgb": (0.5, 0.5, 0.5)}, {"rgb": (0.0, 0.0, 0.0)})
    layer = LStainNorm("single:rgb", template=template)
    assert learned_facts(layer)["target"]["rgb"]["R"]["move"] == 0


# --- parts


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("paper", {"attention averaged", "without rgb", "without lab", "without hsv"}),
        ("product", {"attention averaged", "without rgb", "without lab", "without hsv"}),
        ("mean", {"without rgb", "without lab", "without hsv"}),
        ("single:lab", set()),
        ("reference", set()),
    ],
)
def test_which_parts_there_are(preset: str, names: set[str]) -> None:
    layer = trained(preset)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    made = variants(layer)
    assert set(made) == {"as trained", "offsets zero", *names}
    assert made["as trained"] is layer
    x = image()
    for name, variant in made.items():
        out = variant.normalize(x)[0]
        assert out.isfinite().all()
        assert name == "as trained" or (out - layer.normalize(x)[0]).abs().max() > 1e-5
    torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["paper", "product", "mean"])
@pytest.mark.parametrize("dropped", range(3))
@torch.no_grad()
def test_a_layer_without_a_space(preset: str, dropped: int) -> None:
    layer, x = trained(preset), image()
    branches, weight = branches_of(layer, x)
    kept = [k for k in range(3) if k != dropped]
    left = branches[:, kept]
    fusion = layer.fusion
    if preset == "mean":
        shares = fusion.weight[kept].clamp_min(1e-3)  # type: ignore[index]
        fused = sum(s * left[:, k] for k, s in enumerate(shares / shares.sum()))
    else:
        maps = fusion.attention(branches)[:, kept]  # type: ignore[operator]
        if preset == "product":
            shares = fusion.logits[kept].exp()  # type: ignore[index]
            shares = shares / shares.sum()
            fused = sum(shares[k] * maps[:, k] * left[:, k] for k in range(2))
        else:
            delta = fusion.delta[kept].clamp_min(0)[:, :, None, None]  # type: ignore[index]
            evidence = delta * maps + left
            ratio = evidence / (evidence[:, :1] + evidence[:, 1:] + 1e-7)
            scale, shift = (
                getattr(fusion, n)[kept][:, None, None, None] for n in ("scale", "shift")
            )
            amount = (scale * ratio + shift).clamp_min(1e-3)
            fused = (amount * left).sum(1) / amount.sum(1)
    assert isinstance(fused, torch.Tensor)
    expected = x + weight * (within_bounds(layer, x, weight, fused.clamp(0, 1)) - x)
    result = variants(layer)[f"without {SPACES[dropped]}"].normalize(x)[0]
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_layer_without_offsets() -> None:
    layer, x = trained("mean"), image()
    plain = variants(layer)["offsets zero"]
    assert plain.target == layer.template
    torch.testing.assert_close(plain.fusion.weight, layer.fusion.weight)
    tissue = plain.normalize(x)[0]
    assert (tissue - layer.normalize(x)[0]).abs().max() > 0.01


@torch.no_grad()
def test_attention_averaged() -> None:
    layer, x = trained("product"), image()
    branches, weight = branches_of(layer, x)
    maps = layer.fusion.attention(branches)  # type: ignore[operator]
    mean = maps.flatten(3).mean(3)[..., None, None]
    shares = layer.fusion.logits.softmax(0)  # type: ignore[operator]
    fused = sum(shares[k] * mean[:, k] * branches[:, k] for k in range(3))
    assert isinstance(fused, torch.Tensor)
    expected = x + weight * (within_bounds(layer, x, weight, fused.clamp(0, 1)) - x)
    result = variants(layer)["attention averaged"].normalize(x)[0]
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert (result - layer.normalize(x)[0]).abs().max() > 1e-3


def test_scores_of_the_parts(cohort: Cohort, settings: Make) -> None:
    cohort()
    config = settings()
    splits = read_splits(config.data, config.task, None, 0)
    tiles = LabelledTiles(splits.validation, config, 2, training=False)
    layer = trained("mean")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    scores = ablation(layer, network, tiles, 5)
    assert set(scores) == set(variants(layer))
    for name, variant in variants(layer).items():
        for condition, strength in (("clean", 0.0), ("simulated", 1.0)):
            rows = judge(
                LayerFront(variant, engine="torch"), network, tiles, strength=strength, seed=5
            )
            assert scores[name][condition] == round(mean_score(rows), 4)
