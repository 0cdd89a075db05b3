"""`wsi-norm run` from the command line, in this process."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner
from PIL import Image
from pydantic import Field
from wsi_norm_cli import run as run_module
from wsi_norm_cli.run import command

from tests import dicoms
from tests.builders import exit_status
from tests.profiles import srgb_profile
from wsi_norm import RunConfig, TileStore
from wsi_norm.config import run_config
from wsi_norm.config.fields import Option

QUICK = ("-n", "0", "--device", "cpu")


class Ended:
    """What a run gives, as far as a quiet command asks."""

    exit_status = 0


def status(*arguments: object) -> int:
    """Exit status of `wsi-norm run` in this process."""
    return exit_status("run", *QUICK, *arguments)


def parsed(*arguments: str) -> dict[str, object]:
    """What click makes of a command line."""
    return command.make_context("run", list(arguments)).params


def test_both_spellings_and_the_fields_aliases() -> None:
    assert parsed("--patch_size", "224")["tile_size"] == 224
    assert parsed("--tile-size", "224")["tile_size"] == 224
    assert parsed("--tissue_threshold", "0.3")["min_tissue"] == 0.3
    assert parsed("--slides_csv", "a.csv")["slides_csv"] == Path("a.csv")


@pytest.mark.parametrize(
    ("arguments", "gpus", "slides"),
    [
        (["--gpus", "0", "1", "a.svs"], (0, 1), ("a.svs",)),
        (["--gpus", "2", "--mpp", "1"], (2,), ()),
        (["a.svs", "--gpus", "0", "1", "2"], (0, 1, 2), ("a.svs",)),
        (["--gpus", "0,1"], (0, 1), ()),
        (["1", "2"], None, ("1", "2")),
    ],
)
def test_several_gpus(arguments: list[str], gpus: tuple[int, ...], slides: tuple[str, ...]) -> None:
    options = parsed(*arguments)
    assert (options["gpus"], options["slides"]) == (gpus, slides)


def test_every_option_is_a_setting_and_every_setting_an_option() -> None:
    own = {"config", "no_seg", "quiet", "verbose", "help"}
    options = {parameter.name for parameter in command.params} - own
    assert options == {*RunConfig.model_fields, *RunConfig.sugar}


def test_a_new_option_is_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as it would be, were the field one of RunConfig's."""

    class Longer(RunConfig):
        halo_px: Annotated[int, Option(("-x",), "PX")] = Field(
            default=7, ge=1, description="read around each tile"
        )
        notes: Path | None = None

    given: list[Longer] = []
    monkeypatch.setattr(
        "wsi_norm.runner.run", lambda slides, config, _: given.append(config) or Ended()
    )
    monkeypatch.setattr("wsi_norm.config.RunConfig", Longer)
    monkeypatch.setattr("wsi_norm.config.run.RunConfig", Longer)
    spec = importlib.util.spec_from_file_location("wsi_norm_cli.again", run_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    runner = CliRunner()
    text = " ".join(runner.invoke(again.command, ["--help"]).output.split())
    assert "-x, --halo-px PX read around each tile [default: 7]" in text
    for arguments in (["-x", "3"], ["--halo_px", "3"], ["--notes", "n.txt"]):
        assert runner.invoke(again.command, [*arguments, "-q"]).exit_code == 0
    assert [config.halo_px for config in given] == [3, 3, 7]
    assert given[-1].absolute().notes == Path("n.txt").absolute()


@pytest.mark.parametrize(
    ("arguments", "overwrite", "report"),
    [
        ([], None, None),
        (["--resume", "--report"], False, True),
        (["--overwrite", "--no-report"], True, False),
    ],
)
def test_pairs(arguments: list[str], overwrite: bool | None, report: bool | None) -> None:
    options = parsed(*arguments)
    assert (options["overwrite"], options["report"]) == (overwrite, report)


def test_unset_options_leave_the_defaults() -> None:
    options = {key: value for key, value in parsed().items() if key in RunConfig.model_fields}
    assert run_config(None, **{k: v for k, v in options.items() if k != "slides"}) == RunConfig()


def test_a_run_and_its_summary(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(slide_path, "-o", tmp_path) == 0
    out, err = capsys.readouterr()
    assert out.startswith("synthetic  done")
    assert "tiles/s" in out
    assert str(tmp_path) in out
    assert err.splitlines()[-1].startswith("[1/1] synthetic: done, ")
    assert len(TileStore.open(tmp_path / "synthetic.zarr")) > 20


def test_the_profile_is_printed_and_written(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(slide_path, "-o", tmp_path, "--profile") == 0
    table = (tmp_path / "profile.md").read_text()
    assert table in capsys.readouterr().out
    rows = {row.split(" | ")[0].lstrip("| "): row.split(" | ") for row in table.splitlines()}
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    for stage in ("planning", "reading", "computing", "writing"):
        assert float(rows[stage][1]) == pytest.approx(stages[stage]["seconds"], abs=0.01)
        assert 0 < stages[stage]["cpu_seconds"] <= stages[stage]["seconds"] + 0.05


def test_quiet_prints_nothing(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(slide_path, "-o", tmp_path, "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_options_rule_over_the_file_over_the_defaults(slide_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("mpp: 1.0\ntile_size: 128\nmin_tissue: 0.4\n")
    assert status(slide_path, "--config", file, "--tile-size", 64, "-o", tmp_path / "o") == 0
    settings = json.loads((tmp_path / "o" / "run.json").read_text())["settings"]
    assert (settings["mpp"], settings["tile_size"], settings["min_tissue"]) == (1.0, 64, 0.4)
    assert settings["codec"] == "zstd"


def test_mag_and_no_seg(slide_path: Path, tmp_path: Path) -> None:
    assert status(slide_path, "--mag", 10, "--no-seg", "-o", tmp_path) == 0
    store = TileStore.open(tmp_path / "synthetic.zarr")
    assert store.meta.tiling.mpp_um == 1.0
    assert store.meta.tissue.segmenter == "none"
    assert len(store) == 4 * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "{missing}"], "missing.yaml: cannot read the file"),
        (["--config", "{unknown}"], "unknown key 'tile_sise'; did you mean 'tile_size'?"),
        (["--tile-size", "4"], "tile_size: Input should be greater than or equal to 16"),
        (["--overlap", "256"], "overlap 256 must be less than tile_size 256"),
        (["--mpp", "0.5", "--mag", "20"], "give either mag or mpp, not both"),
        (["--device", "tpu"], "device: 'tpu' is none of auto, cpu, cuda"),
        (["--normalizer", "none", "--ckpt", "a.pt"], "normalizer none has no use for ckpt"),
        (["--normalizer", "vahadane"], "'vahadane' is not one of 'lstainnorm', 'macenko'"),
        (["--reader", "image"], "'image' is not one of 'auto', 'direct'"),
        (["--ckpt", "{text}"], "neither .safetensors nor .pt"),
        (["--gpus", "zero"], "'zero' is not a list of numbers"),
        (["--codec", "png"], "'png' is not one of"),
        (["--roi", "{missing}", "--frobnicate"], "No such option '--frobnicate'"),
    ],
)
def test_wrong_usage_is_2_and_one_line(
    slide_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    files = {name: tmp_path / f"{name}.yaml" for name in ("missing", "unknown", "text")}
    files["unknown"].write_text("tile_sise: 3\n")
    files["text"].write_text("just text")
    given = [argument.format(**files) for argument in arguments]
    assert status(slide_path, "-o", tmp_path / "o", *given) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_dry_run_prints_a_plan(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(slide_path, tmp_path / "gone.svs", "--dry-run", "-o", tmp_path / "o") == 1
    out, err = capsys.readouterr()
    assert "fits" in out
    assert "s of one worker" in out
    assert f"error: {tmp_path / 'gone.svs'}: no such file" in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("choice", "said"), [("apply", "says sRGB, nothing to apply"), ("ignore", "ignored")]
)
def test_a_dry_run_says_what_becomes_of_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, said: str
) -> None:
    slide = tmp_path / "a.png"
    Image.fromarray(dicoms.picture()).save(slide, icc_profile=srgb_profile())
    given = ("--default-mpp", "0.5", "--icc", choice, "--dry-run", "--workers", "0")
    assert status(slide, *given, "-o", tmp_path / "o") == 0
    assert f"  ICC profile {said} (sRGB built-in)" in capsys.readouterr().out


def test_a_region_restricts_the_tiles(slide_path: Path, tmp_path: Path) -> None:
    square = [[600, 500], [1500, 500], [1500, 1200], [600, 1200], [600, 500]]
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    assert status(slide_path, "--roi", roi, "-o", tmp_path / "o") == 0
    coords = TileStore.open(tmp_path / "o" / "synthetic.zarr").coords
    assert len(coords)
    assert ((coords > (600 - 256, 500 - 256)) & (coords < (1500, 1200))).all()
