"""Checkpoints: round trips in both formats, the packaged one, and files that are not ours."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from tests.builders import TEMPLATE
from wsi_norm.errors import CheckpointError
from wsi_norm.lstainnorm import (
    PRESETS,
    LStainNorm,
    StainLayer,
    load_checkpoint,
    save_checkpoint,
)
from wsi_norm.lstainnorm.checkpoint import FORMAT, KEY, PACKAGED, open_checkpoint
from wsi_norm.lstainnorm.reference import ReferenceLayer

SUFFIXES = [".safetensors", ".pt", ".pth"]
FORMATS = SUFFIXES[:2]
SPACES = ("lab", "hsv", "rgb")
PROVENANCE = {"data": "three slides of hospital Ä", "seeds": [1, 2], "dice": {"mean": 0.77}}


def trained(preset: str = "paper", **settings: Any) -> StainLayer:
    """A layer with every parameter moved."""
    torch.manual_seed(1)
    if preset == "reference":
        layer = ReferenceLayer(("lab", "hsv", "rgb"), TEMPLATE, provenance=PROVENANCE, **settings)
    else:
        layer = LStainNorm(preset, template=TEMPLATE, provenance=PROVENANCE, **settings)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return layer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A checkpoint's bytes by suffix."""
    folder = tmp_path_factory.mktemp("saved")
    for suffix in FORMATS:
        save_checkpoint(trained(), folder / f"layer{suffix}")
    return {suffix: (folder / f"layer{suffix}").read_bytes() for suffix in FORMATS}


def refusal(path: Path, **arguments: Any) -> str:
    """The message that refuses a file: one line that begins with its path."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **arguments)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def refusal_if_any(path: Path) -> str | None:
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, preset: str, suffix: str) -> None:
    layer = trained(preset, statistics="tile")
    path = tmp_path / f"layer{suffix}"
    save_checkpoint(layer, path)
    again = load_checkpoint(path)
    assert again.config == layer.config
    assert again.provenance == PROVENANCE
    assert again.target == layer.target
    assert again.template == layer.template
    state = layer.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(image), layer.eval()(image))
    assert not again.training


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_settings_round_trip(tmp_path: Path, suffix: str) -> None:
    spaces = ("hed", "hsv", "lab", "rgb")
    layer = trained(spaces=spaces, background="normalize", circular_hue=False)
    save_checkpoint(layer, tmp_path / f"layer{suffix}")
    config = load_checkpoint(tmp_path / f"layer{suffix}").config
    assert config == layer.config
    assert (config.spaces, config.background, config.circular_hue) == (spaces, "normalize", False)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    save_checkpoint(trained(), str(tmp_path / "layer.pt"))
    assert load_checkpoint(str(tmp_path / "layer.pt")).config.preset == "paper"


@pytest.mark.parametrize("suffix", FORMATS)
def test_provenance_given_wins_over_the_layers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"layer{suffix}"
    save_checkpoint(trained(), path, {"trained_on": "other"})
    assert load_checkpoint(path).provenance == {"trained_on": "other"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_layer_in_training_with_views_as_weights(tmp_path: Path, suffix: str) -> None:
    layer = trained().train()
    with torch.no_grad():
        layer.fusion.delta.set_(torch.rand(3, 3).T)
    save_checkpoint(layer, tmp_path / f"layer{suffix}")
    again = load_checkpoint(tmp_path / f"layer{suffix}")
    assert torch.equal(again.fusion.delta, layer.fusion.delta)
    assert again.fusion.delta.requires_grad
    assert layer.training


def test_the_same_layer_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.safetensors" for index in range(8)]
    for file in files:
        save_checkpoint(trained(), file)
    assert len({file.read_bytes() for file in files}) == 1
    assert len({open_checkpoint(file).sha256 for file in files}) == 1


def test_anyone_can_read_what_a_safetensors_file_says(saved: dict[str, bytes]) -> None:
    (size,) = np.frombuffer(saved[".safetensors"][:8], "<u8")
    header = json.loads(saved[".safetensors"][8 : 8 + int(size)])
    facts = json.loads(header["__metadata__"][KEY])
    assert facts["format"] == FORMAT
    assert facts["config"]["preset"] == "paper"
    assert facts["provenance"] == PROVENANCE


@pytest.mark.parametrize(("name", "preset"), [("density", "single:od"), ("paper", "paper")])
def test_a_packaged_checkpoint_is_plausible_and_says_how_it_was_made(
    name: str, preset: str
) -> None:
    layer = load_checkpoint(name)
    assert layer.config.preset == preset
    assert not layer.training
    assert "MoNuSeg" in layer.provenance["data"]
    assert "CC BY-NC-SA" in layer.provenance["licence"]
    assert layer.provenance["training"].startswith("segmentation")
    assert layer.provenance["scores"]["test_clean"] > 0.7
    assert (layer.target != layer.template) == (name == "paper")  # it has learned something
    assert open_checkpoint(name).sha256 == open_checkpoint(PACKAGED[name]).sha256
    assert len(open_checkpoint(name).sha256) == 64


def test_density_is_what_is_taken_where_nothing_is_named() -> None:
    assert open_checkpoint().sha256 == open_checkpoint("density").sha256


def test_the_packaged_papers_colours_are_those_of_tissue() -> None:
    layer = load_checkpoint("paper")
    for aim in (layer.template, layer.target):
        lightness, red, yellow = aim.mean["lab"]
        assert 45 < lightness < 75
        assert 10 < red < 40
        assert -30 < yellow < 0
        for space in layer.config.spaces:
            assert min(aim.std[space]) > 0
        assert 5 < aim.std["lab"][0] < 25


def test_the_packaged_densitys_stroma_is_pink_and_its_nuclei_are_purple() -> None:
    aim = load_checkpoint("density").target
    stroma = np.exp(-np.array(aim.mean["od"]))
    nuclei = stroma * np.exp(-np.array(aim.std["od"]))
    assert stroma[0] > stroma[2] > stroma[1] > 0.4
    assert nuclei[2] > nuclei[0] > nuclei[1] > 0.15


def test_the_packaged_template_has_one_colour_in_all_spaces() -> None:
    """The mean RGB of the cohort is not far from its mean L*, and its hue lies at its a*, b*."""
    mean = load_checkpoint("paper").template.mean
    red, green, blue = mean["rgb"]
    assert green < blue < red + 0.05  # pink to purple
    assert mean["hsv"][2] == pytest.approx(max(red, blue), abs=0.1)
    assert 4.5 < mean["hsv"][0] < 6.2


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.safetensors")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    refusal(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_file(tmp_path: Path, saved: dict[str, bytes], suffix: str) -> None:
    data = saved[suffix]
    path = tmp_path / f"cut{suffix}"
    lengths = [1, 2, 7, 8, 9, 10, 64, len(data) - 1, *range(100, len(data), len(data) // 20)]
    for length in lengths:
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_refused_or_read_but_nothing_else_happens(
    tmp_path: Path, saved: dict[str, bytes], suffix: str
) -> None:
    """Some bytes are weights or a comment, so not every damage shows."""
    rng = np.random.default_rng(1)
    path = tmp_path / f"damaged{suffix}"
    refused = 0
    for _ in range(400):
        data = bytearray(saved[suffix])
        for at in rng.integers(0, min(len(data), 3000), size=3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        message = refusal_if_any(path)
        assert message is None or message.startswith(f"{path}: ")
        assert message is None or "\n" not in message
        refused += message is not None
    assert refused > 100


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("letter.txt", "Dear reader")
    return buffer.getvalue()


FOREIGN = {
    "text": b"these are not the weights you are looking for\n",
    "json": json.dumps(TEMPLATE.to_dict()).encode(),
    "padded json": b"\x40" + bytes(7) + b'{"a": 1}' + b" " * 56,
    "png": png(),
    "zip": archive(),
    "noise": bytes(np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)),
    "zeros": bytes(1000),
    "pickled number": pickle.dumps(3),
    "pickled list": pickle.dumps([1, "two"]),
    "old pickle": pickle.dumps({"a": 1}, protocol=0),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_foreign_file(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(FOREIGN[name])
    refusal(path)


def test_the_suffix_does_not_decide_what_is_read(tmp_path: Path, saved: dict[str, bytes]) -> None:
    for suffix, other in (FORMATS, reversed(FORMATS)):
        path = tmp_path / f"renamed{other}"
        path.write_bytes(saved[suffix])
        assert load_checkpoint(path).provenance == PROVENANCE


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(nn.Linear(3, 2).state_dict(), path, metadata)
    assert "not a wsi-norm checkpoint" in refusal(path)


FOREIGN_DATA = {
    "state dict": nn.Linear(3, 2).state_dict(),
    "nested": {"state_dict": nn.Linear(3, 2).state_dict(), "epoch": 3},
    "tensor": torch.zeros(3),
    "list": [torch.zeros(3)],
    "other format": {KEY: json.dumps({"format": "other-1"}), "state": {}},
    "no json": {KEY: "{", "state": {}},
    "format alone": {KEY: json.dumps({"format": FORMAT}), "state": {}},
    "no state": {KEY: json.dumps({"format": FORMAT, "config": {}, "provenance": {}})},
    "state is a list": {KEY: json.dumps({"format": FORMAT}), "state": [1, 2]},
    "numbers": {1: 2},
    "empty": {},
}


@pytest.mark.parametrize("name", FOREIGN_DATA)
def test_foreign_data_in_pt(tmp_path: Path, name: str) -> None:
    path = tmp_path / "foreign.pt"
    torch.save(FOREIGN_DATA[name], path)
    refusal(path)


def written(path: Path, state: dict[str, Tensor], **facts: object) -> Path:
    """A checkpoint of our format with this state, and some facts replaced."""
    layer = trained()
    ours = {"format": FORMAT, "config": layer.config.to_dict(), "provenance": {}} | facts
    if path.suffix == ".pt":
        torch.save({KEY: json.dumps(ours), "state": state}, path)
    else:
        safetensors.torch.save_file(state, path, metadata={KEY: json.dumps(ours)})
    return path


def state() -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trained().state_dict().items()}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", list(state()))
def test_weights_that_are_no_numbers(tmp_path: Path, suffix: str, value: float, name: str) -> None:
    bad = state()
    bad[name].view(-1)[-1] = value
    message = refusal(written(tmp_path / f"bad{suffix}", bad))
    assert name in message
    assert "NaN" in message


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", list(state()))
def test_a_missing_weight_is_named(tmp_path: Path, suffix: str, name: str) -> None:
    bad = {key: value for key, value in state().items() if key != name}
    assert name in refusal(written(tmp_path / f"bad{suffix}", bad))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", list(state()))
def test_a_weight_of_another_shape_is_refused(tmp_path: Path, suffix: str, name: str) -> None:
    bad = state() | {name: torch.ones(5)}
    assert "damaged" in refusal(written(tmp_path / f"bad{suffix}", bad))


@pytest.mark.parametrize("shape", [(3,), (3, 3, 3), (3, 4), ()])
def test_a_template_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bad = state() | {"normalization.template_mean": torch.ones(shape)}
    refusal(written(tmp_path / "bad.safetensors", bad))


def test_a_weight_too_many_is_refused(tmp_path: Path) -> None:
    bad = state() | {"fusion.more": torch.ones(5)}
    assert "fusion.more" in refusal(written(tmp_path / "bad.safetensors", bad))


def config(**changes: object) -> dict[str, object]:
    return {"config": trained().config.to_dict() | changes}


BAD_FACTS = {
    "config is text": {"config": "{"},
    "config is a list": {"config": []},
    "config is null": {"config": None},
    "no spaces": {"config": {"preset": "paper"}},
    "unknown preset": config(preset="best"),
    "preset is a number": config(preset=3),
    "unknown space": config(spaces=["rgb", "lab", "xyz"]),
    "spaces are numbers": config(spaces=[1, 2, 3]),
    "fewer spaces": config(spaces=["rgb", "lab"]),
    "unknown setting": config(colour="blue"),
    "unknown statistics": config(statistics="all"),
    "provenance is text": {"provenance": "?"},
    "provenance is a number": {"provenance": 3},
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", BAD_FACTS)
def test_facts_that_make_no_layer(tmp_path: Path, suffix: str, name: str) -> None:
    refusal(written(tmp_path / f"bad{suffix}", state(), **BAD_FACTS[name]))


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.copyfile, (__file__, str(self.marker))


def hostile(form: str, marker: Path) -> bytes:
    bomb = Hostile(marker)
    buffer = io.BytesIO()
    wrapped: dict[str, Any] = {
        "pickle": bomb,
        "old pickle": bomb,
        "first pickle": bomb,
        "zip": bomb,
        "legacy torch": bomb,
        "inside our format": {KEY: json.dumps({"format": FORMAT}), "state": {"weight": bomb}},
        "inside a state dict": {"weight": torch.zeros(2), "mu_lab": bomb},
    }
    if form in ("pickle", "old pickle", "first pickle"):
        protocol = {"pickle": 4, "old pickle": 2, "first pickle": 0}[form]
        return pickle.dumps(bomb, protocol=protocol)
    torch.save(wrapped[form], buffer, _use_new_zipfile_serialization=form != "legacy torch")
    return buffer.getvalue()


HOSTILE = [
    "pickle",
    "old pickle",
    "first pickle",
    "zip",
    "legacy torch",
    "inside our format",
    "inside a state dict",
]


@pytest.mark.parametrize("form", HOSTILE)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_code_runs(tmp_path: Path, form: str, suffix: str) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / f"hostile{suffix}"
    path.write_bytes(hostile(form, marker))
    message = refusal(path, template=None)
    assert not marker.exists()
    if form != "first pickle":
        assert "would run code" in message


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_the_hostile_files_are_hostile(tmp_path: Path, form: str) -> None:
    marker = tmp_path / "marker"
    data = io.BytesIO(hostile(form, marker))
    if form == "pickle":
        pickle.load(data)
    else:
        torch.load(data, weights_only=False)
    assert marker.exists()


def authors_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}_{space}": (3,) for name in ("mu", "sigma", "gamma") for space in SPACES
    }
    shapes |= {"mu": (3,), "sigma": (3,), "a0": (3,), "b0": (3,)}
    for name, out in (("f", 1), ("g", 1), ("h", 3)):
        shapes[f"SelfAttention.{name}.weight"] = (out, 3, 1, 1)
        shapes[f"SelfAttention.{name}.bias"] = (out,)
    shapes["model.fc.weight"] = (2, 4)
    return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def authors_template() -> dict[str, Any]:
    return {space: (TEMPLATE.mean[space], TEMPLATE.std[space]) for space in SPACES}


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_authors_state_dict(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"theirs{suffix}"
    theirs = authors_state()
    torch.save(theirs, path) if suffix == ".pt" else safetensors.torch.save_file(theirs, path)
    layer = load_checkpoint(path, authors_template())
    expected = LStainNorm.from_reference(theirs, authors_template())
    assert layer.config.preset == "reference"
    assert not layer.training
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(image), expected(image))
    assert "template" in refusal(path)
    assert "hsv" in refusal(path, template={"lab": authors_template()["lab"]})
    ours = tmp_path / "ours.safetensors"
    save_checkpoint(layer, ours)
    assert torch.equal(load_checkpoint(ours)(image), layer(image))


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_the_authors_state_dict_inside_a_training_checkpoint(tmp_path: Path, key: str) -> None:
    path = tmp_path / "theirs.pt"
    torch.save({key: authors_state(), "epoch": 7}, path)
    assert load_checkpoint(path, authors_template()).config.preset == "reference"


@pytest.mark.parametrize("key", ["a0", "SelfAttention.h.bias", "sigma_hsv", "mu_rgb"])
def test_an_incomplete_state_dict_of_the_authors(tmp_path: Path, key: str) -> None:
    path = tmp_path / "theirs.pt"
    theirs = authors_state()
    del theirs[key]
    torch.save(theirs, path)
    assert f"'{key}' is missing" in refusal(path, template=authors_template())


def test_a_state_dict_of_the_authors_with_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    torch.save(authors_state() | {"a0": torch.ones(4)}, path)
    refusal(path, template=authors_template())


def test_a_state_dict_of_the_authors_with_nan(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    torch.save(authors_state() | {"a0": torch.full((3,), float("nan"))}, path)
    assert "NaN" in refusal(path, template=authors_template())


@pytest.mark.parametrize("bad", [{"lab": 3}, {"lab": ((1, 2), (3, 4))}, {"lab": ((1, 2, 3),)}])
def test_a_template_of_another_form(tmp_path: Path, bad: dict[str, Any]) -> None:
    path = tmp_path / "theirs.pt"
    torch.save(authors_state(), path)
    refusal(path, template=authors_template() | bad)


@pytest.mark.parametrize("name", ["layer", "layer.ckpt", "layer.h5", "layer.PT.txt"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="name the checkpoint") as caught:
        save_checkpoint(trained(), path)
    assert str(path) in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_where_nothing_can_be_written(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    file = tmp_path / "file"
    file.touch()
    for path in (folder, file / f"a{suffix}"):
        with pytest.raises(CheckpointError) as caught:
            save_checkpoint(trained(), path)
        assert str(caught.value).startswith(f"{path}: cannot write")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_any_other_file(tmp_path: Path, suffix: str, umask: int) -> None:
    """safetensors' own writer leaves 0600, which colleagues cannot read."""
    path = tmp_path / "new folder" / f"layer{suffix}"
    before = os.umask(umask)
    try:
        save_checkpoint(trained(), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    load_checkpoint(path)


# --- numbers from outside

TEMPLATE_STD, TEMPLATE_MEAN = "normalization.template_std", "normalization.template_mean"


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-45, 300.0, 1e30, 1e38])
def test_a_template_that_no_tissue_has(tmp_path: Path, value: float) -> None:
    for name in (TEMPLATE_STD, TEMPLATE_MEAN):
        bad = state()
        bad[name][0, 1] = value if name == TEMPLATE_STD else -abs(value) - 0.1
        message = refusal(written(tmp_path / "bad.safetensors", bad))
        assert message.startswith("no usable checkpoint: its template has mean ")
        assert "for G of rgb; a mean lies in 0 to 1, a std above 0 and up to 1" in message


@pytest.mark.parametrize("name", sorted({*state()} - {TEMPLATE_MEAN, TEMPLATE_STD}))
@pytest.mark.parametrize("value", [-1e30])
def test_weights_that_no_training_gives(tmp_path: Path, name: str, value: float) -> None:
    bad = state()
    bad[name].view(-1)[0] = value
    refusal(written(tmp_path / "bad.safetensors", bad))


def test_attention_that_would_need_gigabytes(tmp_path: Path) -> None:
    bad = state()
    for part in ("query", "key"):
        bad[f"fusion.attention.{part}_weight"].fill_(300.0)
    assert "attention's weights" in refusal(written(tmp_path / "bad.safetensors", bad))


def test_weights_that_divide_by_zero(tmp_path: Path) -> None:
    layer = trained("reference")
    with torch.no_grad():
        layer.fusion.scale.zero_()
        layer.fusion.shift.zero_()
    save_checkpoint(layer, tmp_path / "bad.safetensors")
    assert "turns colours into NaN" in refusal(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    rounded = {name: value.to(dtype) for name, value in state().items()}
    layer = load_checkpoint(written(tmp_path / "layer.safetensors", rounded))
    assert all(torch.equal(layer.state_dict()[n], v.float()) for n, v in rounded.items())


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "int": lambda x: x.to(torch.int64),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "a view of 10**12 numbers": lambda x: x.view(-1)[:1].expand(10**12),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_are_no_plain_floats(tmp_path: Path, kind: str) -> None:
    bad = state()
    bad["fusion.scale"] = ODD[kind](bad["fusion.scale"])
    refusal(written(tmp_path / "bad.pt", bad))


def framed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}}


LIES = {
    "no header": framed({}, length=0),
    "a header longer than the file": framed(tensor([1], 0, 4), b"1234", length=1 << 26),
    "a header of all there is": framed(tensor([1], 0, 4), b"1234", length=(1 << 64) - 1),
    "numbers that overflow": framed(tensor([1 << 62], 0, 4), b"1234"),
    "negative": framed(tensor([-1], 0, 4), b"1234"),
    "data that is not there": framed(tensor([1 << 40], 0, 1 << 42), b"1234"),
    "backwards": framed(tensor([1], 4, 0), b"1234"),
    "facts without end": framed(
        {"__metadata__": {KEY: "[" * 100_000}, **tensor([1], 0, 4)}, b"1234"
    ),
    "facts of megabytes": framed(
        {"__metadata__": {KEY: json.dumps("x" * (1 << 21))}, **tensor([1], 0, 4)}, b"1234"
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(LIES[lie])
    refusal(path)


def test_files_that_unfold_or_never_end(tmp_path: Path, saved: dict[str, bytes]) -> None:
    """A sparse file of gigabytes, a zip that is compressed, a pipe: none is read to its end."""
    sparse, packed, pipe = (tmp_path / name for name in ("s.safetensors", "p.pt", "pipe"))
    size = 1 << 32
    with sparse.open("wb") as file:
        file.write(framed(tensor([size // 4], 0, size)))
        file.truncate(file.tell() + size)
    with (
        zipfile.ZipFile(io.BytesIO(saved[".pt"])) as whole,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in whole.namelist():
            archive.writestr(name, whole.read(name) + bytes(1 << 20))
    os.mkfifo(pipe)
    assert "larger than 512 MiB" in refusal(sparse)
    assert "it is compressed" in refusal(packed)
    assert "a pipe or a device" in refusal(pipe)
