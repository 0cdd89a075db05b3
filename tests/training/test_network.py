"""Networks by name: what is built, what its output has to be, and what is refused."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests import builders
from wsi_norm.training.network import build_network

UNET = {
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": 3,
    "channels": [4, 8, 16],
    "strides": [2, 2],
}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
SEGFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
}

needs_monai = pytest.mark.skipif(
    importlib.util.find_spec("monai") is None, reason="MONAI is not installed"
)
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


class Tiny(nn.Module):
    """A mean, a norm and a linear layer."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(images).mean((2, 3)))


class Dense(nn.Module):
    """A convolution."""

    def __init__(self, in_channels: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(in_channels, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images)


class Several(Tiny):
    """Returns more than logits."""

    def forward(self, images: torch.Tensor) -> Any:
        return [super().forward(images)]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's module."""
    module = ModuleType("my_networks")
    module.tiny = Tiny  # type: ignore[attr-defined]
    module.dense = Dense  # type: ignore[attr-defined]
    module.several = Several  # type: ignore[attr-defined]
    module.number = lambda: 3  # type: ignore[attr-defined]
    module.constant = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_networks", module)
    return module


CLASSES = "abcde"


def build(spec: str, arguments: dict[str, Any], task: Any = "classification", **other: Any) -> Any:
    return build_network(
        spec, arguments, task=task, **{"classes": CLASSES[:2], "size": 32, **other}
    )


def refusal(*arguments: Any, **other: Any) -> str:
    return builders.refusal(build, *arguments, **other)


def saved_and_loaded(network: nn.Module, again: nn.Module) -> None:
    again.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), network.eval()(images))


# --- a function of one's own


def test_a_function(own: ModuleType) -> None:
    network = build("my_networks:tiny", {"outputs": 5}, classes=CLASSES[:5])
    assert isinstance(network, Tiny)
    assert network.training
    assert network.norm.running_mean is not None
    assert not network.norm.running_mean.any()  # the trial left no trace
    assert isinstance(build("my_networks:dense", {}, "segmentation"), Dense)


def test_the_trial_draws_nothing_from_the_seed(own: ModuleType) -> None:
    torch.manual_seed(0)
    network = build("my_networks:tiny", {})
    after = torch.rand(1)
    torch.manual_seed(0)
    same = Tiny()
    assert after == torch.rand(1)
    torch.testing.assert_close(network.state_dict(), same.state_dict())


@pytest.mark.parametrize("spec", ["resnet18", "monai:", ":UNet"])
def test_a_name_without_a_library(spec: str) -> None:
    assert refusal(spec, {}) == (
        f"network.name {spec!r}: expected monai:NAME, transformers:TYPE, timm:NAME, smp:NAME "
        "or package.module:function"
    )


def test_no_such_module() -> None:
    message = refusal("no_such_module:net", {})
    assert message == (
        "network.name 'no_such_module:net': cannot import no_such_module "
        "(No module named 'no_such_module'); is it on PYTHONPATH?"
    )


@pytest.mark.parametrize("name", ["tinny", "constant"])
def test_no_such_function(own: ModuleType, name: str) -> None:
    message = refusal(f"my_networks:{name}", {})
    assert message.startswith(f"network.name 'my_networks:{name}': my_networks has no {name!r}")
    assert (name == "tinny") == message.endswith("; did you mean 'tiny'?")


def test_a_function_that_returns_no_network(own: ModuleType) -> None:
    message = "network.name 'my_networks:number': expected a torch.nn.Module, not a int"
    assert refusal("my_networks:number", {}) == message


def test_arguments_that_do_not_fit(own: ModuleType) -> None:
    assert refusal("my_networks:tiny", {"output": 2}) == (
        "network.name 'my_networks:tiny': cannot be built with these network.arguments: "
        "Tiny.__init__() got an unexpected keyword argument 'output'"
    )


def test_a_constructor_that_raises_at_length(
    own: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> nn.Module:
        raise KeyError("no\nsuch" + 400 * " key")

    monkeypatch.setattr(own, "broken", broken, raising=False)
    message = refusal("my_networks:broken", {})
    assert len(message) < 450
    assert message.endswith("...")


def test_the_wrong_number_of_classes(own: ModuleType) -> None:
    assert refusal("my_networks:tiny", {}, classes=CLASSES[:3]) == (
        "network.name 'my_networks:tiny': the output for images (2, 3, 32, 32) has to be of shape "
        "(2, 3) but is (2, 2); check network.arguments and the classes, of which 3 "
        "were found: a, b, c"
    )
    message = refusal("my_networks:tiny", {}, "segmentation")
    assert "has to be of shape (2, 2, 32, 32) but is (2, 2);" in message


def test_an_output_that_is_no_tensor(own: ModuleType) -> None:
    message = refusal("my_networks:several", {})
    assert "has to be of shape (2, 2) but is a list;" in message


def test_a_network_that_fails_on_the_images(own: ModuleType) -> None:
    message = refusal("my_networks:dense", {"in_channels": 4}, "segmentation")
    assert message.startswith(
        "network.name 'my_networks:dense': fails on images of 32 x 32 px: Given groups=1, "
    )


# --- MONAI


@needs_monai
def test_monai() -> None:
    network = build("monai:UNet", UNET, "segmentation", classes=CLASSES[:3])
    saved_and_loaded(network, build("monai:UNet", UNET, "segmentation", classes=CLASSES[:3]))


@needs_monai
def test_monai_refuses() -> None:
    assert refusal("monai:UNett", {}).endswith("monai has no 'UNett'; did you mean 'UNet'?")
    message = refusal("monai:UNet", UNET | {"chanels": 1})
    assert message.endswith("got an unexpected keyword argument 'chanels'")
    message = refusal("monai:UNet", UNET | {"strides": []})
    assert message.startswith("network.name 'monai:UNet': cannot be built with these ")
    assert "fails on images of 34 x 34 px" in refusal("monai:UNet", UNET, "segmentation", size=34)


# --- transformers


@needs_transformers
def test_transformers_classifies() -> None:
    network = build("transformers:vit", VIT, classes=CLASSES[:5])
    assert all(key.startswith("model.") for key in network.state_dict())
    saved_and_loaded(network, build("transformers:vit", VIT, classes=CLASSES[:5]))


@needs_transformers
def test_transformers_segments_at_full_size() -> None:
    network = build("transformers:segformer", SEGFORMER, "segmentation", classes=CLASSES[:3])
    saved_and_loaded(
        network, build("transformers:segformer", SEGFORMER, "segmentation", classes=CLASSES[:3])
    )


@needs_transformers
def test_transformers_refuses() -> None:
    assert refusal("transformers:segfrmer", {}, "segmentation") == (
        "network.name 'transformers:segfrmer': transformers has no 'segfrmer' for segmentation; "
        "did you mean 'segformer'?"
    )
    message = refusal("transformers:resnet", {}, "segmentation")
    assert "transformers has no 'resnet' for segmentation" in message
    assert refusal("transformers:vit", VIT | {"hiden_size": 16}) == (
        "network.arguments: ViTConfig has no 'hiden_size'; did you mean 'hidden_size'?"
    )
    message = refusal("transformers:vit", VIT | {"hidden_size": "wide"})
    assert message.startswith("network.name 'transformers:vit': cannot be built with these ")
    message = refusal("transformers:vit", VIT, size=40)
    assert "fails on images of 40 x 40 px: Input image size" in message


# --- the zoo


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, num_classes: int, drop_rate: float = 0) -> nn.Module:
        return Tiny(num_classes)

    timm = ModuleType("timm")
    timm.list_models = lambda: ["resnet18", "vit_tiny"]  # type: ignore[attr-defined]
    timm.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    for name in ("resnet18", "resnet18.a1_in1k", "hf-hub:someone/something"):
        assert build(f"timm:{name}", {"drop_rate": 0.1}, classes=CLASSES[:4]).head.out_features == 4
    assert refusal("timm:resnet81", {}) == (
        "network.name 'timm:resnet81': timm has no 'resnet81'; did you mean 'resnet18'?"
    )
    assert "is (2, 7);" in refusal("timm:vit_tiny", {"num_classes": 7})


def test_smp(monkeypatch: pytest.MonkeyPatch) -> None:
    def unet(encoder_weights: str | None, classes: int, in_channels: int = 3) -> nn.Module:
        assert encoder_weights is None
        return Dense(in_channels, classes)

    smp = ModuleType("segmentation_models_pytorch")
    smp.Unet = unet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", smp)
    build("smp:Unet", {"in_channels": 3}, "segmentation", classes=CLASSES[:4])
    assert refusal("smp:Unett", {}, "segmentation").endswith("; did you mean 'Unet'?")


@pytest.mark.parametrize(
    ("spec", "module", "extra"),
    [
        ("timm:resnet18", "timm", "zoo"),
        ("smp:Unet", "segmentation_models_pytorch", "zoo"),
        ("monai:UNet", "monai.networks.nets", "train"),
        ("transformers:vit", "transformers", "train"),
    ],
)
@pytest.mark.parametrize("error", [ImportError, RuntimeError, AttributeError])
def test_a_library_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    module: str,
    extra: str,
    error: type[Exception],
) -> None:
    def fail(name: str) -> ModuleType:
        raise error("operator torchvision::nms\ndoes not exist")

    monkeypatch.setattr("wsi_norm.training.network.importlib.import_module", fail)
    assert refusal(spec, {}) == (
        f"network.name {spec!r}: cannot import {module} "
        f"(operator torchvision::nms does not exist); pip install 'wsi-norm[{extra}]'"
    )
