"""The `reference` preset against outputs and gradients of the authors' own layer."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsi_norm.lstainnorm import LStainNorm

SPACES = ("lab", "hsv", "rgb")
VECTORS = ["init0_rand_64_1", "rnd11_rand_64_1", "rnd11_rand_224_2_forward"]
WITH_GRADIENTS = VECTORS[:2]
ATTENTION_PARAMETERS = [f"SelfAttention.{n}.{p}" for n in "fgh" for p in ("weight", "bias")]
PARAMETERS = [
    *(f"{name}_{space}" for name in ("mu", "sigma", "gamma") for space in SPACES),
    "a0",
    "b0",
    *ATTENTION_PARAMETERS,
]
NO_GRADIENT = "SelfAttention.g.bias"
"""A constant added to every key cancels in the softmax: its gradient is rounding error."""


def load(refvectors_dir: Path, name: str) -> dict[str, Any]:
    return torch.load(refvectors_dir / f"{name}.pt", weights_only=True)


def template_of(config: dict[str, list[float]]) -> dict[str, tuple[list[float], list[float]]]:
    return {space: (config[f"mu0_{space}"], config[f"sigma0_{space}"]) for space in SPACES}


def layer_of(vector: dict[str, Any]) -> LStainNorm:
    return LStainNorm.from_reference(vector["sa3_state"], template_of(vector["sa3_cfg"]))


def branches_of(layer: LStainNorm, image: Tensor) -> Tensor:
    inside = layer.normalization.convert(image)
    return layer.normalization(inside, *layer.normalization.measure(inside))


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def made_up() -> dict[str, Any]:
    """A state and template of the right names, for tests that need no numbers."""
    generator = torch.Generator().manual_seed(3)
    shapes = dict.fromkeys(PARAMETERS, (3,))
    shapes |= {f"SelfAttention.{name}.weight": (1, 3, 1, 1) for name in "fg"}
    shapes |= {f"SelfAttention.{name}.bias": (1,) for name in "fg"}
    shapes["SelfAttention.h.weight"] = (3, 3, 1, 1)
    return {
        "state": {
            name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()
        },
        "template": {
            "lab": ((60.0, 27.0, -15.0), (14.0, 8.0, 7.0)),
            "hsv": ((5.3, 0.32, 0.72), (0.25, 0.12, 0.13)),
            "rgb": ((0.7, 0.5, 0.68), (0.15, 0.16, 0.12)),
        },
    }


@pytest.mark.parametrize("name", VECTORS)
def test_output(refvectors_dir: Path, name: str) -> None:
    vector = load(refvectors_dir, name)
    close(layer_of(vector)(vector["input"]), vector["sa3_out"])


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_branches_and_attention_maps(refvectors_dir: Path, name: str) -> None:
    vector = load(refvectors_dir, name)
    layer = layer_of(vector)
    branches = branches_of(layer, vector["input"])
    for index, space in enumerate(SPACES):
        close(branches[:, index], vector[f"branch_{space}"])
        close(layer.fusion.attention(vector[f"branch_{space}"]), vector[f"attn_{space}"])


@pytest.mark.parametrize("name", VECTORS)
def test_single_space_layer(refvectors_dir: Path, name: str) -> None:
    vector = load(refvectors_dir, name)
    config, state = vector["lab_cfg"], vector["lab_state"]
    template = {"lab": (config["mu0"], config["sigma0"])}
    layer = LStainNorm.from_reference(state, template)
    assert layer.config.spaces == ("lab",)
    close(layer(vector["input"]), vector["labprenorm_out"])
    fixed = LStainNorm.from_reference(
        {key: torch.zeros_like(value) for key, value in state.items()}, template
    )
    close(fixed(vector["input"]), vector["templatenorm_out"])


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_gradients(refvectors_dir: Path, name: str) -> None:
    vector = load(refvectors_dir, name)
    layer = layer_of(vector)
    image = vector["input"].clone().requires_grad_()
    out = layer(image)
    noise = torch.rand(out.shape, generator=torch.Generator().manual_seed(999))
    (out * noise).mean().backward()
    got = {"__input__": image.grad, **gradients_in_their_names(layer)}
    checked = 0
    for key, expected in vector["grads"].items():
        if key != NO_GRADIENT:
            assert (got[key] - expected).abs().max() <= 1e-3 * expected.abs().max(), key
            checked += 1
    assert checked == len(PARAMETERS)


def gradients_in_their_names(layer: LStainNorm) -> dict[str, Tensor]:
    normalization, fusion = layer.normalization, layer.fusion
    names = {"f": fusion.query, "g": fusion.key, "h": fusion.value}
    rows = {
        f"{name}_{space}": parameter.grad[index]
        for name, parameter in (
            ("mu", normalization.mean_offset),
            ("sigma", normalization.std_offset),
            ("gamma", fusion.gamma),
        )
        for index, space in enumerate(SPACES)
    }
    convolutions = {
        f"SelfAttention.{name}.{part}": getattr(convolution, part).grad
        for name, convolution in names.items()
        for part in ("weight", "bias")
    }
    return {**rows, **convolutions, "a0": fusion.scale.grad, "b0": fusion.shift.grad}


@pytest.mark.parametrize("key", [k for k in PARAMETERS if k not in ATTENTION_PARAMETERS])
def test_a_missing_parameter_is_named(made_up: dict[str, Any], key: str) -> None:
    state = {name: value for name, value in made_up["state"].items() if name != key}
    with pytest.raises(ValueError, match=rf"'{key}' is missing"):
        LStainNorm.from_reference(state, made_up["template"])


@pytest.mark.parametrize("key", ATTENTION_PARAMETERS)
def test_a_missing_attention_parameter_is_named(made_up: dict[str, Any], key: str) -> None:
    state = {name: value for name, value in made_up["state"].items() if name != key}
    with pytest.raises(ValueError, match=re.escape(f"'{key}' is missing")):
        LStainNorm.from_reference(state, made_up["template"])


@pytest.mark.parametrize("space", SPACES)
def test_a_missing_space_of_the_template_is_named(made_up: dict[str, Any], space: str) -> None:
    template = {key: value for key, value in made_up["template"].items() if key != space}
    with pytest.raises(ValueError, match=rf"'{space}' is missing"):
        LStainNorm.from_reference(made_up["state"], template)


def test_a_foreign_state_dict_is_refused(made_up: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not the authors' layer"):
        LStainNorm.from_reference(torch.nn.Linear(2, 2).state_dict(), made_up["template"])


def test_a_parameter_of_the_wrong_shape_is_refused(made_up: dict[str, Any]) -> None:
    state = made_up["state"] | {"SelfAttention.h.weight": torch.zeros(5, 3, 1, 1)}
    with pytest.raises((ValueError, RuntimeError), match="size mismatch"):
        LStainNorm.from_reference(state, made_up["template"])


def test_the_network_behind_the_layer_is_ignored(made_up: dict[str, Any]) -> None:
    network = {"model.conv1.weight": torch.ones(4, 3, 7, 7), "model.fc.bias": torch.ones(9)}
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    plain = LStainNorm.from_reference(made_up["state"], made_up["template"])
    with_network = LStainNorm.from_reference(made_up["state"] | network, made_up["template"])
    assert with_network.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(with_network(image), plain(image))


@pytest.mark.parametrize(("height", "width"), [(70, 45), (8, 8), (1, 9), (64, 65), (3, 2)])
def test_any_height_and_width(made_up: dict[str, Any], height: int, width: int) -> None:
    layer = LStainNorm.from_reference(made_up["state"], made_up["template"])
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    out = layer(image)
    assert out.shape == image.shape
    assert out.isfinite().all()


def test_it_trains_on_tiles_and_transforms_the_background(made_up: dict[str, Any]) -> None:
    layer = LStainNorm.from_reference(made_up["state"], made_up["template"])
    assert (layer.config.preset, layer.config.statistics) == ("reference", "tile")
    assert (layer.config.background, layer.config.circular_hue) == ("normalize", False)
    with pytest.raises(ValueError, match="background"):
        layer.configure(background="preserve")


def test_the_target_is_the_template_plus_offsets_in_native_units(made_up: dict[str, Any]) -> None:
    layer = LStainNorm.from_reference(made_up["state"], made_up["template"])
    for space, (mean, std) in made_up["template"].items():
        offsets = made_up["state"][f"mu_{space}"], made_up["state"][f"sigma_{space}"]
        close(torch.tensor(layer.target.mean[space]), torch.tensor(mean) + offsets[0])
        close(torch.tensor(layer.target.std[space]), torch.tensor(std) + offsets[1])
