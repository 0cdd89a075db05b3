"""A layer at rest, against the module of PyTorch that it is the numbers of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import TEMPLATE
from wsi_norm.errors import CheckpointError
from wsi_norm.lstainnorm import (
    PRESETS,
    LayerConfig,
    LayerState,
    StainLayer,
    make_layer,
    save_checkpoint,
)
from wsi_norm.lstainnorm.checkpoint import PACKAGED, read_checkpoint
from wsi_norm.lstainnorm.layer import layer_of
from wsi_norm.lstainnorm.state import shapes

OURS = [preset for preset in PRESETS if preset != "reference"]


def trained(preset: str) -> StainLayer:
    torch.manual_seed(0)
    layer = make_layer(LayerConfig.of(preset), TEMPLATE, {"data": "none"})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return layer.eval()


@pytest.mark.parametrize("preset", OURS)
def test_the_shapes_are_those_of_the_layer(preset: str) -> None:
    layer = trained(preset)
    expected = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes(layer.config) == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_template_and_target_are_the_layers_to_the_bit(preset: str) -> None:
    layer = trained(preset)
    state = layer.state()
    assert state.template == layer.template
    assert state.target == layer.target
    assert (state.target_mean == layer.normalization.target_mean.detach().numpy()).all()
    assert (state.target_std == layer.normalization.target_std.detach().numpy()).all()
    assert (state.config, state.provenance) == (layer.config, layer.provenance)


@pytest.mark.parametrize("preset", PRESETS)
def test_there_and_back(preset: str) -> None:
    layer = trained(preset)
    again = layer_of(layer.state())
    assert not again.training
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(again(image), layer(image))


def test_a_state_stays_as_it_was_when_the_layer_goes_on() -> None:
    layer = trained("paper")
    state, before = layer.state(), layer.target
    with torch.no_grad():
        layer.normalization.mean_offset += 1
    assert state.target == before != layer.target


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_is_read_as_the_state_that_was_saved(
    tmp_path: Path, preset: str, suffix: str
) -> None:
    layer = trained(preset)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.clamp_(-0.3, 0.3)
    save_checkpoint(layer, tmp_path / f"layer{suffix}")
    read, expected = read_checkpoint(tmp_path / f"layer{suffix}").state, layer.state()
    assert (read.config, read.provenance) == (expected.config, expected.provenance)
    assert read.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert (read.arrays[name] == array).all()


def test_half_precision_is_read_too(tmp_path: Path) -> None:
    layer = trained("single:lab")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((parameter / 4).bfloat16())
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        state = {name: value.to(kind) for name, value in layer.state_dict().items()}
        save_checkpoint(layer, tmp_path / "a.pt")
        held = torch.load(tmp_path / "a.pt", weights_only=True)
        torch.save({**held, "state": state}, tmp_path / "a.pt")
        read = read_checkpoint(tmp_path / "a.pt").state
        for name in ("mean_offset", "std_offset"):
            expected = getattr(layer.normalization, name).detach().numpy()
            np.testing.assert_allclose(read.arrays[f"normalization.{name}"], expected, atol=1e-3)


def test_an_untrained_one_aims_at_its_template() -> None:
    state = LayerState.untrained(LayerConfig.of("single:lab"), TEMPLATE)
    expected = make_layer(LayerConfig.of("single:lab"), TEMPLATE)
    assert state.target == expected.target
    assert {name: array.shape for name, array in state.arrays.items()} == shapes(state.config)


def test_other_statistics_and_background() -> None:
    state = trained("paper").state().configured("tile", "normalize")
    assert (state.config.statistics, state.config.background) == ("tile", "normalize")
    assert state.configured().config == state.config
    with pytest.raises(ValueError, match="background too"):
        trained("reference").state().configured(background="preserve")


@pytest.mark.parametrize("name", list(PACKAGED))
def test_the_packaged_ones_turn_colours_into_colours(name: str) -> None:
    """They are not tried when they are read."""
    layer = layer_of(read_checkpoint(name).state)
    out = layer(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert out.isfinite().all()
    assert out.std() > 0.05


@pytest.mark.filterwarnings("error")
def test_numbers_that_overflow_are_refused_in_one_line(tmp_path: Path) -> None:
    layer = trained("paper")
    with torch.no_grad():
        layer.normalization.mean_offset[:] = 1e38
        layer.normalization.template_std[:] = 1e38
    save_checkpoint(layer, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="no usable checkpoint: ") as caught:
        read_checkpoint(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)
