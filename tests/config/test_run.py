"""Settings: where they come from, what they refuse, how they say it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wsi_norm.config import RunConfig, read_yaml, run_config
from wsi_norm.errors import ConfigError


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "run.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def refusal(file: Path | None = None, **options: Any) -> str:
    """The one line of the ConfigError that these settings give."""
    with pytest.raises(ConfigError) as caught:
        run_config(file, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    if file is not None:
        assert message.startswith(f"{file}: ")
    return message


# --- precedence


def test_defaults_are_those_of_the_contract() -> None:
    config = run_config()
    assert (config.tile_size, config.mpp, config.overlap) == (256, 0.5, 0)
    assert (config.min_tissue, config.segmenter, config.codec) == (0.1, "otsu", "zstd")
    assert (config.normalizer, config.target) == ("lstainnorm", None)
    assert (config.reader, config.device, config.output) == ("auto", "auto", Path("normalized"))
    assert config.default_mpp is None
    assert config.statistics is None
    assert config.report is True
    assert config.fail_fast is config.dry_run is config.overwrite is False
    assert config == RunConfig()


def test_options_rule_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "tile_size: 512\nmin_tissue: 0.3\nsegmenter: hsv\n")
    config = run_config(file, tile_size=128, segmenter=None)
    assert config.tile_size == 128
    assert config.min_tissue == 0.3
    assert config.segmenter == "hsv"  # None means: not given
    assert config.mpp == 0.5


def test_false_and_zero_are_given(tmp_path: Path) -> None:
    file = write(tmp_path, "report: true\nmin_tissue: 0.3\nworkers: 4\n")
    config = run_config(file, report=False, min_tissue=0.0, workers=0)
    assert (config.report, config.min_tissue, config.workers) == (False, 0.0, 0)


def test_every_key_can_stand_in_a_file(tmp_path: Path) -> None:
    lines = {
        "slides": "[a.svs, 'b c.svs']",
        "slides_csv": "t.csv",
        "recursive": "yes",
        "output": "out",
        "normalizer": "reinhard",
        "ckpt": "m.safetensors",
        "template": "t.yaml",
        "target": "null",
        "tile_size": "224",
        "mpp": "0.25",
        "overlap": "32",
        "default_mpp": "0.5",
        "override_mpp": "0.25",
        "min_tissue": "0.5",
        "segmenter": "none",
        "whole_slide": "true",
        "roi": "r.geojson",
        "colour_check": "warn",
        "icc": "apply",
        "resample": "exact",
        "statistics": "tile",
        "background": "preserve",
        "layout": "tiles",
        "codec": "jpeg",
        "quality": "80",
        "overwrite": "true",
        "repair": "false",
        "report": "false",
        "reader": "tiffslide",
        "device": "cpu",
        "gpus": "[]",
        "batch_size": "8",
        "workers": "2",
        "scheduler": "tcp://host:1",
        "cluster": "null",
        "max_unreadable": "0.5",
        "task_timeout": "90",
        "fail_fast": "true",
        "profile": "true",
        "dry_run": "true",
    }
    assert lines.keys() == RunConfig.model_fields.keys()
    config = run_config(write(tmp_path, "".join(f"{k}: {v}\n" for k, v in lines.items())))
    assert config.slides == ("a.svs", "b c.svs")
    assert config.slides_csv == Path("t.csv")
    assert config.mpp == 0.25
    assert config.codec == "jpeg"
    assert config.cluster is None
    defaults = RunConfig()
    same = {key for key in lines if getattr(config, key) == getattr(defaults, key)}
    assert same == {"gpus", "cluster", "target", "repair", "layout"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_means_defaults(tmp_path: Path, text: str) -> None:
    assert run_config(write(tmp_path, text)) == RunConfig()


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    assert run_config(write(tmp_path, b"\xef\xbb\xbfmpp: 1\n")).mpp == 1


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        run_config().mpp = 1.0  # type: ignore[misc]


# --- unknown keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("tile_sze", "tile_size"),
        ("tile-size", "tile_size"),
        ("mmp", "mpp"),
        ("segmentor", "segmenter"),
        ("min_tisue", "min_tissue"),
        ("steps", "step"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, key: str, nearest: str) -> None:
    message = refusal(write(tmp_path, f"{key}: 1\n"))
    assert f"unknown key {key!r}" in message
    assert message.endswith(f"did you mean {nearest!r}?")
    assert f"did you mean {nearest!r}?" in refusal(**{key: 1})


def test_an_unknown_key_like_none_of_ours(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "zzzzzz: 1\n"))
    assert "unknown key 'zzzzzz'" in message
    assert "did you mean" not in message


# --- sugar


@pytest.mark.parametrize(("mag", "mpp"), [(20, 0.5), (40, 0.25), (10.0, 1.0), ("20", 0.5)])
def test_mag_is_sugar_for_mpp(tmp_path: Path, mag: Any, mpp: float) -> None:
    assert run_config(mag=mag).mpp == mpp
    assert run_config(write(tmp_path, f"mag: {mag}\n")).mpp == mpp


def test_step_is_sugar_for_overlap(tmp_path: Path) -> None:
    assert run_config(step=128).overlap == 128
    assert run_config(step=200, tile_size=512).overlap == 312
    assert run_config(step=256).overlap == 0
    assert run_config(write(tmp_path, "tile_size: 512\n"), step=500).overlap == 12


@pytest.mark.parametrize("both", [{"mag": 20, "mpp": 0.5}, {"step": 128, "overlap": 128}])
def test_sugar_beside_its_key_is_a_conflict(tmp_path: Path, both: dict[str, Any]) -> None:
    (one, _), (other, _) = both.items()
    assert f"give either {one} or {other}, not both" in refusal(**both)
    text = "".join(f"{key}: {value}\n" for key, value in both.items())
    assert f"give either {one} or {other}, not both" in refusal(write(tmp_path, text))


def test_an_option_takes_the_place_of_the_files_sugar(tmp_path: Path) -> None:
    file = write(tmp_path, "mag: 40\nstep: 128\n")
    assert run_config(file, mpp=1.0).mpp == 1.0
    assert run_config(file, mag=10).mpp == 1.0
    assert run_config(file, overlap=64).overlap == 64
    assert run_config(file, mpp=1.0).overlap == 128
    plain = write(tmp_path, "mpp: 0.25\noverlap: 8\n")
    assert run_config(plain, mag=10).mpp == 1.0
    assert run_config(plain, step=250).overlap == 6


# --- ranges


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": 15},
        {"tile_size": 8193},
        {"tile_size": 256.5},
        {"tile_size": "big"},
        {"mpp": 0},
        {"mpp": -1},
        {"mpp": float("nan")},
        {"mpp": float("inf")},
        {"default_mpp": 0},
        {"default_mpp": float("inf")},
        {"overlap": -1},
        {"overlap": 256},
        {"overlap": 64, "tile_size": 64},
        {"min_tissue": -0.1},
        {"min_tissue": 1.1},
        {"min_tissue": float("nan")},
        {"max_unreadable": 2},
        {"segmenter": "unet"},
        {"codec": "jpeg2000"},
        {"reader": "fastslide"},
        {"statistics": "cohort"},
        {"background": "white"},
        {"colour_check": "off"},
        {"normalizer": "vahadane"},
        {"normalizer": "layer"},
        {"reader": "image"},
        {"device": "tpu"},
        {"device": "cuda:"},
        {"device": "cuda:x"},
        {"batch_size": 0},
        {"workers": -1},
        {"slides": "a.svs"},
        {"mag": 0},
        {"mag": -20},
        {"mag": "twenty"},
        {"mag": [20]},
        {"mag": 1e-320},
        {"step": 0},
        {"step": 257},
    ],
    ids=str,
)
def test_out_of_range(options: dict[str, Any]) -> None:
    refusal(**options)


@pytest.mark.parametrize(
    "options", [{"tile_size": 16}, {"tile_size": 8192}, {"min_tissue": 0}, {"min_tissue": 1}]
)
def test_limits_are_in_range(options: dict[str, Any]) -> None:
    run_config(**options)


def test_a_refusal_names_its_key() -> None:
    assert "tile_size" in refusal(tile_size=4)
    assert "mag" in refusal(mag=-1)
    assert "overlap 300 must be less than tile_size 256" in refusal(overlap=300)


@pytest.mark.parametrize(
    "options",
    [
        {"gpus": (0,), "device": "cpu"},
        {"gpus": (0,), "scheduler": "tcp://a:1"},
        {"gpus": (0,), "cluster": "c.yaml"},
        {"scheduler": "tcp://a:1", "cluster": "c.yaml"},
    ],
)
def test_conflicting_places_to_work(options: dict[str, Any]) -> None:
    assert "give" in refusal(**options)


@pytest.mark.parametrize("normalizer", ["lstainnorm", "none"])
def test_a_target_is_for_the_classic_normalisers(normalizer: str) -> None:
    message = refusal(normalizer=normalizer, target="t.png")
    assert message == f"normalizer {normalizer} has no use for target; leave it out"


@pytest.mark.parametrize("normalizer", ["macenko", "none"])
@pytest.mark.parametrize("key", ["ckpt", "template"])
def test_a_checkpoint_is_for_those_that_aim_at_its_template(normalizer: str, key: str) -> None:
    message = refusal(normalizer=normalizer, **{key: "m.pt"})
    assert message == f"normalizer {normalizer} has no use for {key}; leave it out"


def test_one_target_at_a_time() -> None:
    assert "give either target or ckpt" in refusal(normalizer="reinhard", target="t", ckpt="m.pt")


@pytest.mark.parametrize(
    "options",
    [
        {"normalizer": "macenko"},
        {"normalizer": "macenko", "target": "t.png"},
        {"normalizer": "reinhard", "target": "t.png"},
        {"normalizer": "reinhard", "ckpt": "m.pt", "template": "t.yaml"},
        {"normalizer": "lstainnorm", "ckpt": "m.pt"},
        {"normalizer": "none"},
    ],
)
def test_what_goes_together(options: dict[str, Any]) -> None:
    assert run_config(**options).normalizer == options["normalizer"]


def test_a_misspelt_choice_names_the_nearest(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "segmenter: hvs\n"))
    assert message.endswith("'hvs' is none of otsu, hsv, none; did you mean 'hsv'?")


# --- paths


class Longer(RunConfig):
    """Settings with one path more."""

    notes: Path | None = None
    more: Path = Path("more")


def test_every_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Longer(roi=Path("r.geojson"), cluster=tmp_path / "c.yaml", slides=("a.svs",))
    absolute = config.absolute()
    assert absolute.roi == tmp_path / "r.geojson"
    assert absolute.cluster == tmp_path / "c.yaml"
    assert absolute.output == tmp_path / "normalized"
    assert absolute.more == tmp_path / "more"
    assert (absolute.ckpt, absolute.notes, absolute.slides) == (None, None, ("a.svs",))
    others = {"roi", "output", "more"}
    assert absolute.model_dump(exclude=others) == config.model_dump(exclude=others)


def test_the_name_of_a_packaged_checkpoint_is_no_path() -> None:
    assert RunConfig(ckpt="paper").absolute().ckpt == Path("paper")
    assert RunConfig(ckpt="own.pt").absolute().ckpt == Path("own.pt").absolute()


# --- bad files


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "mpp: 1\n  tile_size: 2\n",
        "\tmpp: 1",
        "mpp: 0.5\x00",
        "!!python/object/apply:os.getcwd []",
        "mpp: 2026-13-45\n",
        "? [a]\n: 1\n",
        "[" * 600,
    ],
    ids=["open", "indent", "tab", "nul", "tag", "date", "key", "deep"],
)
def test_bad_yaml(tmp_path: Path, text: str) -> None:
    assert "not YAML" in refusal(write(tmp_path, text))


@pytest.mark.parametrize("text", ["- mpp\n", "just words\n", "3\n", "1: 2\n"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    assert "expected 'key: value' lines" in refusal(write(tmp_path, text))


@pytest.mark.parametrize("text", ["mag: [20]\n", "step: 128\ntile_size:\n", "step: {a: 1}\n"])
def test_values_of_a_wrong_kind(tmp_path: Path, text: str) -> None:
    refusal(write(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "absent.yaml")
    assert "cannot read" in refusal(tmp_path)
    assert "cannot read" in refusal(write(tmp_path, b"\xff\xfe\x00"))


def test_read_yaml_returns_the_mapping(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "a: 1\nb: [x]\n")) == {"a": 1, "b": ["x"]}


@pytest.mark.parametrize("output", ["s3://bucket/out", "gs:/bucket", "https://host/x"])
def test_urls_are_no_output(output: str) -> None:
    with pytest.raises(ConfigError, match="not yet to URLs"):
        run_config(None, output=Path(output))
