"""`inspect`, `fit-template`, `verify`, `warm-up` and `demo`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import dicoms
from tests.builders import exit_status
from tests.profiles import by_imagecms, matrix_profile
from wsi_norm import TileStore, compiled, load_checkpoint
from wsi_norm.lstainnorm import Template
from wsi_norm.lstainnorm.checkpoint import open_checkpoint


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A folder of three pink-violet tiles."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    for seed in range(3):
        noise = np.random.default_rng(seed).normal((180, 110, 160), 25, (64, 80, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{seed}.png")
    return folder


def test_inspect_the_packaged_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("inspect", "paper") == 0
    text = capsys.readouterr().out
    assert open_checkpoint("paper").sha256 in text
    assert "share of each space" in text
    assert "CC BY-NC-SA 4.0" in text
    assert exit_status("inspect", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["checkpoint"], facts["preset"]) == ("density", "single:od")
    assert facts["sha256"] == open_checkpoint().sha256
    assert facts["template"] == load_checkpoint().template.to_dict()


def test_fit_template_by_folder_measures_slide_by_slide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slides = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        slides.append(
            [
                rng.normal(level, 12, (40, 48, 3)).clip(0, 255)
                for level in ((90, 60, 120), (190, 130, 170))
            ]
        )
        for number, tile in enumerate(slides[-1]):
            Image.fromarray(tile.astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    out = tmp_path / "model.safetensors"
    assert exit_status("fit-template", tmp_path, "--by-folder", "-o", out) == 0
    tiles = [[tile.astype(np.uint8) for tile in slide] for slide in slides]
    expected = Template.fit(tiles, within_tiles=True)
    got = load_checkpoint(out)
    np.testing.assert_allclose(got.target.std["od"], expected.std["od"], rtol=1e-6)
    alone = Template.fit([tile for slide in tiles for tile in slide], within_tiles=True)
    assert got.target.std["od"][0] > 2 * alone.std["od"][0]
    assert (got.provenance["tiles"], got.provenance["slides"]) == (4, 2)


def test_fit_template_of_tiles_with_a_profile(tmp_path: Path) -> None:
    profile = matrix_profile(gamma=1.8)
    tile = dicoms.picture(128)
    Image.fromarray(tile).save(tmp_path / "a.png", icc_profile=profile)
    Image.fromarray(by_imagecms(tile, profile)).save(tmp_path / "b.png")
    made = {}
    for name, choice in (("a", "apply"), ("b", "apply"), ("a", "ignore")):
        out = tmp_path / f"{name}-{choice}.safetensors"
        given = (tmp_path / f"{name}.png", "--icc", choice, "-o", out)
        assert exit_status("fit-template", *given) == 0
        made[name, choice] = load_checkpoint(out)
        assert made[name, choice].provenance["icc"] == choice
    assert made["a", "apply"].target == made["b", "apply"].target != made["a", "ignore"].target


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_fit_template_then_inspect(
    tiles: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("fit-template", tiles, "-o", tmp_path / name, "--preset", "mean") == 0
    layer = load_checkpoint(tmp_path / name)
    assert layer.config.preset == "mean"
    assert layer.provenance["tiles"] == 3
    np.testing.assert_allclose(
        layer.template.mean["rgb"], np.array([180, 110, 160]) / 255, atol=0.01
    )
    assert exit_status("inspect", tmp_path / name) == 0
    assert "mean (std) per channel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/none.png", "-o", "{folder}/m.pt"], "none.png"),
        (["{folder}/empty", "-o", "{folder}/m.pt"], "no images in this folder"),
        (["{folder}/white.png", "-o", "{folder}/m.pt"], "(almost) no tissue"),
        (["{folder}/tiles", "-o", "{folder}/m.onnx"], ".safetensors or .pt"),
        (["{folder}/tiles", "-o", "{folder}/m.pt", "--preset", "best"], "preset 'best'"),
    ],
)
def test_fit_template_errors(
    tiles: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert exit_status("fit-template", *given) == 2
    assert words in capsys.readouterr().err


def test_verify_names_what_is_damaged(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", slide_path, "-n", "0", "-q", "--tile-size", "512", "--step", "256"]
    assert exit_status(*run, "-o", tmp_path) == 0
    store = tmp_path / "synthetic.zarr"
    assert exit_status("verify", tmp_path) == 0
    assert "all whole" in capsys.readouterr().out
    shard = store / "tiles/c/0/0/0/0"
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    for damage in (bytes(flipped), whole[:-1], b""):
        shard.write_bytes(damage)
        assert exit_status("verify", store) == 1
        assert "shard 0 (tiles 0-15)" in capsys.readouterr().err
    shard.write_bytes(whole)
    (store / "coords/c/0/0").unlink()
    assert exit_status("verify", store) == 1
    assert "coords: missing" in capsys.readouterr().err


def test_verify_says_each_store_in_a_line_and_goes_on(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", slide_path, "-n", "0", "-q", "--tile-size", "512", "--step", "256"]
    assert exit_status(*run, "-o", tmp_path) == 0
    whole = tmp_path / "synthetic.zarr"
    for name in ("a", "b", "c", "d"):
        shutil.copytree(whole, tmp_path / f"{name}.zarr")
    (tmp_path / "a.zarr/zarr.json").write_bytes(b"{")
    first, second = (tmp_path / f"b.zarr/tiles/c/{shard}/0/0/0" for shard in range(2))
    first.write_bytes(second.read_bytes())
    shutil.rmtree(tmp_path / "c.zarr/coords")
    root = tmp_path / "d.zarr/zarr.json"
    root.write_text(root.read_text().replace('"overlap_px": 256', '"overlap_px": 255'))
    capsys.readouterr()
    assert exit_status("verify", tmp_path, "--deep", "3") == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"{tmp_path / n}.zarr" for n in "abcd"]
    assert all("--repair" in line for line in lines)
    assert "shard 0 (tiles 0-15)" in lines[1]
    assert "shard 1" not in lines[1]
    tiles = len(TileStore.open(whole))
    assert said.out == (
        f"{whole}: {tiles} tiles in {-(-tiles // 16)} shards, all whole; "
        "3 tiles computed anew are the same\n"
    )


def test_verify_deep_names_tiles_that_are_not_the_slides(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("run", slide_path, "-n", "0", "-q", "-o", tmp_path) == 0
    store = TileStore.open(tmp_path / "synthetic.zarr")
    tiles, flags = store[:], store.flags
    assert store.shards == 1
    tiles[2] //= 2
    store.reopen()
    store.write_shard(0, tiles, flags)
    store.finish()
    assert exit_status("verify", store.path) == 0
    assert exit_status("verify", "--deep", store.path, "--deep", "1000") == 1
    assert f"{store.path}: tile 2: not what its slide gives" in capsys.readouterr().err
    (tmp_path / "run.json").unlink()
    assert exit_status("verify", "--deep", store.path) == 1
    err = capsys.readouterr().err
    assert f"{store.path}: {tmp_path / 'run.json'}: cannot be read" in err


def test_verify_refuses_what_is_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("verify", tmp_path / "none.zarr") == 1
    assert "no store there" in capsys.readouterr().err


def test_warm_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("warm-up", "density") == 0
    resampling, kernels, *kept = capsys.readouterr().out.splitlines()
    assert resampling.startswith("resampling: ")
    assert kernels.startswith("kernels of density: ")
    folders = [Path(line.removeprefix("kept in ")) for line in kept]
    assert [path for folder in folders for path in folder.glob("kernels.average-*.nbc")]
    assert [path for folder in folders for path in folder.glob("lookup._look_up-*.nbc")]
    assert [path for folder in folders for path in folder.glob("resampling._resize-*.nbc")]
    assert exit_status("warm-up", "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setattr(compiled, "folders", list)
    assert exit_status("warm-up", "density") == 2
    assert "NUMBA_CACHE_DIR" in capsys.readouterr().err


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("demo", "-o", tmp_path, "--size", "1536", "-n", "0") == 0
    assert str(tmp_path / "after.png") in capsys.readouterr().out
    store = TileStore.open(tmp_path / "normalized" / "synthetic.zarr")
    assert len(store) > 2
    with Image.open(tmp_path / "before.png") as before, Image.open(tmp_path / "after.png") as after:
        assert before.size == after.size
        assert before.tobytes() != after.tobytes()
