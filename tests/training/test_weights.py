"""Weights of a network from a file: which files are read, which do not fit, which are refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.cohorts import classifier
from wsi_norm.config import TrainConfig
from wsi_norm.errors import ConfigError
from wsi_norm.training.network import LogitsOf, network_of
from wsi_norm.training.weights import load_into, with_digest

Make = Callable[..., TrainConfig]
Tensor = torch.Tensor


def trained() -> dict[str, Tensor]:
    """A state dict whose every number is known."""
    state = classifier().state_dict()
    return {name: torch.full_like(value, 3) for name, value in state.items()}


def refusal(path: Path, network: nn.Module | None = None) -> str:
    """The one line that a user reads, without the setting and the file."""
    with pytest.raises(ConfigError) as caught:
        load_into(network or classifier(), path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"network.weights {path}: ")
    return message.removeprefix(f"network.weights {path}: ")


def saved(path: Path, data: Any) -> Path:
    torch.save(data, path)
    return path


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{name}": v for name, v in state.items()}},
        lambda state: {"state_dict": {f"model.{name}": v for name, v in state.items()}},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
    ids=["bare", "state_dict", "model", "DataParallel", "Lightning", "float64"],
)
def test_files_of_torch(tmp_path: Path, nest: Callable[[Any], Any]) -> None:
    network = classifier()
    load_into(network, saved(tmp_path / "w.pth", nest(trained())))
    for value in network.state_dict().values():
        assert bool((value == 3).all())
    assert next(network.parameters()).dtype == torch.float32


def test_safetensors_of_a_hugging_face_model(tmp_path: Path) -> None:
    """Its names lack the prefix of our wrapper, whatever the file is called."""
    path = tmp_path / "w.bin"
    safetensors.torch.save_file(trained(), path)
    network = LogitsOf(classifier())
    load_into(network, path)
    assert bool((network.state_dict()["model.0.weight"] == 3).all())


def test_a_prefix_of_a_network_whose_own_names_begin_with_it(tmp_path: Path) -> None:
    """Lightning's "model." before the "model." of MONAI's U-Net."""
    network = LogitsOf(classifier())
    state = {f"model.model.{name}": value for name, value in trained().items()}
    load_into(network, saved(tmp_path / "w.ckpt", {"state_dict": state}))
    assert bool((network.state_dict()["model.0.weight"] == 3).all())


def test_what_does_not_fit(tmp_path: Path) -> None:
    """classifier() has 2 convolutions, 1 batch norm, 1 linear: 2 * 2 + 5 + 2 = 11 tensors."""
    state = trained()
    del state["1.running_var"], state["4.bias"]
    state |= {"extra.weight": torch.zeros(1), "8.weight": torch.zeros(5, 8)}
    assert refusal(saved(tmp_path / "w.pt", state)) == (
        "not those of this network, of whose 11 tensors there are 2 missing (first: "
        "1.running_var), 1 that it does not have (first: extra.weight), 1 of another shape (first: "
        "8.weight is (5, 8), not (2, 8)); check network.name and network.arguments"
    )


def test_a_network_is_as_it_was_where_weights_do_not_fit(tmp_path: Path) -> None:
    network = classifier()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    refusal(saved(tmp_path / "w.pt", {**trained(), "8.bias": torch.zeros(7)}), network)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_file_that_would_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "w.pt", {"state_dict": trained(), "more": Hostile()})
    assert refusal(path).startswith("refused: loading it would run code from the file")
    whole = saved(tmp_path / "whole.pt", classifier())  # a pickled module needs its code, too
    assert refusal(whole).startswith("refused: loading it would run code from the file")
    assert capsys.readouterr().out == ""


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    text = tmp_path / "w.txt"
    text.write_text("no weights here")
    assert refusal(text).startswith("neither .safetensors nor .pt")
    assert refusal(tmp_path / "gone.pt") == "cannot read it: No such file or directory"
    nothing = saved(tmp_path / "list.pt", [torch.zeros(1)])
    assert refusal(nothing).startswith("holds no state dict")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(safetensors.torch.save(trained())[:-9])
    assert refusal(cut).startswith("truncated or damaged")
    broken = saved(tmp_path / "nan.pt", {**trained(), "4.bias": torch.full((8,), torch.nan)})
    assert refusal(broken) == "4.bias holds NaN or infinity"


def test_the_digest(tmp_path: Path, settings: Make) -> None:
    path = saved(tmp_path / "w.pt", trained())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = settings(network={"weights": str(path)})
    assert with_digest(config).network.sha256 == digest
    assert with_digest(with_digest(config)).network.sha256 == digest
    other = settings(network={"weights": str(path), "sha256": "0" * 64})
    with pytest.raises(ConfigError, match=f"its sha256 is {digest}, not the network.sha256 000"):
        with_digest(other)
    gone = settings(network={"weights": str(tmp_path / "gone.pt")})
    with pytest.raises(ConfigError, match=r"gone\.pt: cannot read it: No such file"):
        with_digest(gone)
    assert with_digest(settings()) == settings()


def test_random_weights_are_not_frozen(settings: Make) -> None:
    for name in ("monai:UNet", "transformers:vit", "timm:resnet18", "smp:Unet"):
        config = settings(network={"name": name, "frozen": True})
        with pytest.raises(ConfigError, match=r"would be random; give network\.weights"):
            network_of(config, ("a", "b"), 32)
    own = network_of(settings(network={"frozen": True}), ("a", "b"), 32)
    assert not own.training
    assert not any(parameter.requires_grad for parameter in own.parameters())
    assert network_of(settings(), ("a", "b"), 32).training


def test_files_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    """A sparse file of gigabytes is mapped, and refused by its shapes; a pipe is not waited for."""
    network = nn.Linear(2, 3)
    sparse, pipe = tmp_path / "sparse.safetensors", tmp_path / "pipe"
    header = {"weight": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}}
    text = json.dumps(header).encode()
    with sparse.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + (1 << 32))
    os.mkfifo(pipe)
    for path, reason in ((sparse, "first: weight is"), (pipe, "a pipe or a device")):
        with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
            load_into(network, path)
        assert "\n" not in str(caught.value)


def test_tensors_without_plain_numbers(tmp_path: Path) -> None:
    network, path = nn.Linear(2, 3), tmp_path / "w.pt"
    for odd in (torch.ones(3, device="meta"), torch.ones(3).to_sparse()):
        torch.save(network.state_dict() | {"bias": odd}, path)
        with pytest.raises(ConfigError, match="bias holds no plain numbers"):
            load_into(network, path)
