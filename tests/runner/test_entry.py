"""Runs in this process (workers=0): what becomes of good, bad, repeated and unfinished slides."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import tree
from wsi_norm import RunConfig, TileStore, load_checkpoint, run
from wsi_norm.errors import CheckpointError, ConfigError, ReportError
from wsi_norm.lstainnorm import Statistics
from wsi_norm.normalizers.model import Model
from wsi_norm.report import RunSummary, SlideResult
from wsi_norm.runner import ShardWritten, SlidePlanned, SlidesFound
from wsi_norm.store import TileFlag


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What a test computes beside a run is computed as the run does it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(output: Path, **settings: object) -> RunConfig:
    """Many shards of few tiles: 512 px tiles that overlap."""
    defaults = {"output": output, "workers": 0, "tile_size": 512, "step": 256}
    return RunConfig.model_validate({**defaults, **settings})


@pytest.fixture(scope="module")
def normal(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over the synthetic slide."""
    output = tmp_path_factory.mktemp("normal")
    summary = run([slide_path], config(output))
    assert summary.exit_status == 0
    return output


def test_a_run_writes_a_complete_store_and_the_report(normal: Path, slide_path: Path) -> None:
    store = TileStore.open(normal / "synthetic.zarr")
    assert store.meta.complete
    assert store.shards >= 2
    assert len(store) == len(store.coords) == len(store.flags) == len(store.tissue_fraction)
    document = json.loads((normal / "run.json").read_text())
    (slide,) = document["slides"]
    assert slide["status"] == "done"
    assert slide["tiles"] == slide["tiles_written"] == len(store)
    assert slide["slide"] == str(slide_path)
    for stage in ("planning", "reading", "computing", "writing"):
        assert slide[f"seconds_{stage}"] > 0
    assert all(peak > 1e8 for peak in document["peak_memory_bytes"].values())
    aim = load_checkpoint()
    assert document["model"]["target"] == aim.target.to_dict()
    assert document["model"]["provenance"] == aim.provenance
    assert "trained</th><td>yes" in (normal / "report.html").read_text("utf-8").replace("\n", "")
    header, row = (normal / "slides.csv").read_text().splitlines()
    assert header.startswith("name,status,error")
    assert row.startswith("synthetic,done,")


def test_events_tell_the_whole_story(slide_path: Path, tmp_path: Path) -> None:
    events: list[object] = []
    summary = run([slide_path], config(tmp_path), events.append)
    planned = [event for event in events if isinstance(event, SlidePlanned)]
    written = [event for event in events if isinstance(event, ShardWritten)]
    assert [event.tiles for event in planned] == [summary.slides[0].tiles]
    assert sum(event.tiles for event in written) == summary.slides[0].tiles
    assert isinstance(events[-1], SlideResult)


def test_a_finished_slide_is_skipped_and_left_alone(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(normal, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.zarr/**/*")}
    summary = run([slide_path], config(tmp_path / "out"))
    assert [slide.status for slide in summary.slides] == ["skipped"]
    assert summary.tiles_written == 0
    assert summary.exit_status == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_missing_and_cut_shards_are_written_again_to_the_same_bytes(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(normal, output)
    store = output / "synthetic.zarr"
    attributes = json.loads((store / "zarr.json").read_text())
    attributes["attributes"]["wsi_norm"] |= {"complete": False, "counts": None}
    (store / "zarr.json").write_text(json.dumps(attributes))
    (store / "tiles/c/0/0/0/0").unlink()
    cut = store / "tiles/c/1/0/0/0"
    cut.write_bytes(cut.read_bytes()[:-100])
    (store / "tiles/c/2/0/0").mkdir(parents=True, exist_ok=True)
    (store / "tiles/c/2/0/0/0.dead.partial").write_bytes(b"litter")
    summary = run([slide_path], config(output))
    assert summary.slides[0].status == "done"
    assert 0 < summary.tiles_written < summary.slides[0].tiles + 1
    assert tree(store) == tree(normal / "synthetic.zarr")


def test_a_finished_store_that_lost_a_shard_gets_it_back(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(normal, tmp_path / "out")
    (tmp_path / "out/synthetic.zarr/tiles/c/1/0/0/0").unlink()
    (slide,) = run([slide_path], config(tmp_path / "out")).slides
    assert slide.status == "done"
    assert 0 < slide.tiles_written < slide.tiles
    assert tree(tmp_path / "out" / "synthetic.zarr") == tree(normal / "synthetic.zarr")


@pytest.mark.parametrize("lost", ["", "zarr.json", "thumbnail/c/0/0/0", "flags/c/0"])
def test_repair_writes_what_is_damaged_and_nothing_else(
    normal: Path, slide_path: Path, tmp_path: Path, lost: str
) -> None:
    store = Path(shutil.copytree(normal, tmp_path / "out")) / "synthetic.zarr"
    shards = {shard: store / f"tiles/c/{shard}/0/0/0" for shard in range(2)}
    data = bytearray(shards[1].read_bytes())
    data[5000] ^= 1
    shards[1].write_bytes(data)
    if lost:
        (store / lost).unlink()
    kept = shards[0].stat().st_mtime_ns
    (slide,) = run([slide_path], config(tmp_path / "out", repair=True)).slides
    assert slide.status == "done"
    assert tree(store) == tree(normal / "synthetic.zarr")
    rows = [len(range(*TileStore.open(store).rows(shard).indices(slide.tiles))) for shard in shards]
    assert slide.tiles_written == (sum(rows) if lost == "flags/c/0" else rows[1])
    assert (shards[0].stat().st_mtime_ns == kept) == (lost != "flags/c/0")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    (slide,) = run([slide_path], config(tmp_path / "out", repair=True)).slides
    assert (slide.status, slide.tiles_written) == ("skipped", 0)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_overwrite_replaces_no_store_made_since(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    """The younger run does the slide before the older, too told to overwrite, comes to it."""
    output = Path(shutil.copytree(normal, tmp_path / "out"))
    written: list[dict[str, bytes]] = []

    def meanwhile(event: object) -> None:
        if isinstance(event, SlidesFound) and not written:
            younger = config(output, overwrite=True, codec="none")
            assert run([slide_path], younger).exit_status == 0
            written.append(tree(output / "synthetic.zarr"))

    (slide,) = run([slide_path], config(output, overwrite=True), meanwhile).slides
    assert "taken this store over" in (slide.error or "")
    assert [tree(output / "synthetic.zarr")] == written
    assert run([slide_path], config(output, overwrite=True)).exit_status == 0
    assert tree(output / "synthetic.zarr") == tree(normal / "synthetic.zarr")


def test_repair_of_a_store_of_other_settings_is_refused(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(normal, tmp_path / "out")) / "synthetic.zarr"
    (store / "zarr.json").unlink()
    before = tree(store)
    (slide,) = run([slide_path], config(tmp_path / "out", repair=True, codec="none")).slides
    assert slide.status == "failed"
    assert "cannot be repaired" in (slide.error or "")
    assert tree(store) == before


@pytest.mark.parametrize(
    "settings", [{}, {"overwrite": True}, {"overwrite": True, "ckpt": "paper"}]
)
def test_a_younger_run_on_the_same_folder(
    normal: Path, slide_path: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    """It comes and ends while the older is held up between two shards."""
    younger: list[RunSummary] = []

    def meanwhile(event: object) -> None:
        if isinstance(event, ShardWritten) and not younger:
            younger.append(run([slide_path], config(tmp_path, **settings)))

    (slide,) = run([slide_path], config(tmp_path), meanwhile).slides
    assert younger[0].exit_status == 0
    store = TileStore.open(tmp_path / "synthetic.zarr")
    assert store.damage() == []
    if "ckpt" in settings:
        assert "another run has taken this store over" in (slide.error or "")
        assert store.meta.model.preset == "paper"
        run([slide_path], config(tmp_path / "alone", ckpt="paper"))
        assert tree(store.path) == tree(tmp_path / "alone" / "synthetic.zarr")
    else:
        assert slide.status == "done"
        assert tree(store.path) == tree(normal / "synthetic.zarr")


def test_relative_paths_work_from_any_directory(
    normal: Path, slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(slide_path.parent)
    summary = run([slide_path.name], config(Path(os.path.relpath(tmp_path)), report=False))
    assert summary.slides[0].slide == str(slide_path)
    assert tree(tmp_path / "synthetic.zarr") == tree(normal / "synthetic.zarr")


def test_other_settings_are_an_error_that_lists_them(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(normal, tmp_path / "out")
    before = tree(tmp_path / "out" / "synthetic.zarr")
    summary = run([slide_path], config(tmp_path / "out", min_tissue=0.5, codec="none"))
    (slide,) = summary.slides
    assert slide.status == "failed"
    assert slide.error is not None
    assert "tissue.min_tissue: 0.1 != 0.5" in slide.error
    assert "codec: zstd != none" in slide.error
    assert "--overwrite" in slide.error
    assert tree(tmp_path / "out" / "synthetic.zarr") == before
    again = run([slide_path], config(tmp_path / "out", min_tissue=0.5, overwrite=True))
    assert again.exit_status == 0
    assert TileStore.open(tmp_path / "out" / "synthetic.zarr").meta.tissue.min_tissue == 0.5


def test_another_slide_of_that_name_is_not_taken_for_finished(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(normal, tmp_path / "out")
    other = tmp_path / "synthetic.svs"
    other.write_bytes(slide_path.read_bytes() + b"\0")
    (slide,) = run([other], config(tmp_path / "out")).slides
    assert slide.status == "failed"
    assert "slide.size_bytes" in (slide.error or "")


def test_something_else_under_the_stores_name_is_not_replaced(
    slide_path: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "synthetic.zarr" / "notes.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    for overwrite in (False, True):
        (slide,) = run([slide_path], config(tmp_path, overwrite=overwrite)).slides
        assert slide.status == "failed"
        assert "synthetic.zarr" in (slide.error or "")
        assert precious.read_text() == "mine"


def test_one_bad_slide_does_not_stop_the_others(slide_path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"")
    summary = run([bad, slide_path, tmp_path / "missing.svs"], config(tmp_path / "out"))
    assert [slide.status for slide in summary.slides] == ["failed", "done", "failed"]
    assert summary.exit_status == 1
    for slide in summary.slides[::2]:
        assert slide.error is not None
        assert slide.slide in slide.error
        assert "\n" not in slide.error


def test_fail_fast_leaves_the_rest(slide_path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"")
    summary = run([bad, slide_path], config(tmp_path / "out", fail_fast=True))
    assert [slide.status for slide in summary.slides] == ["failed", "interrupted"]
    assert run([slide_path], config(tmp_path / "out")).exit_status == 0


def test_slides_of_one_name_are_refused_and_the_others_done(
    slide_path: Path, tmp_path: Path
) -> None:
    for name in ("a/slide.svs", "b/Slide.svs", "b/other.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(slide_path, tmp_path / name)
    summary = run([tmp_path / "a", tmp_path / "b"], config(tmp_path / "out"))
    statuses = {Path(slide.slide).name: slide.status for slide in summary.slides}
    assert statuses == {"slide.svs": "failed", "Slide.svs": "failed", "other.svs": "done"}


def test_names_with_spaces_and_other_letters(slide_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Präparate 2024"
    folder.mkdir()
    name = "Fall 12 - Lymphknoten µm [a] 漢字"
    shutil.copy(slide_path, folder / f"{name}.svs")
    summary = run([folder], config(tmp_path / "aus gabe"))
    assert summary.exit_status == 0
    assert TileStore.open(tmp_path / "aus gabe" / f"{name}.zarr").meta.slide.name == name


def test_a_slide_without_tissue_is_an_empty_complete_store_and_a_warning(tmp_path: Path) -> None:
    from PIL import Image

    glass = np.random.default_rng(0).normal(243, 1, (700, 900, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    summary = run([tmp_path / "glass.png"], config(tmp_path / "out", default_mpp=0.5))
    (slide,) = summary.slides
    assert slide.status == "empty"
    assert summary.exit_status == 0
    assert any("no tissue" in warning for warning in slide.warnings)
    store = TileStore.open(tmp_path / "out" / "glass.zarr")
    assert len(store) == 0
    assert store.meta.complete
    again = run([tmp_path / "glass.png"], config(tmp_path / "out", default_mpp=0.5))
    assert again.slides[0].status == "skipped"


def test_without_statistics_tiles_pass_through_and_say_so(tmp_path: Path) -> None:
    from PIL import Image

    glass = np.random.default_rng(0).normal(243, 1, (700, 900, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    settings = config(tmp_path / "out", default_mpp=0.5, segmenter="none", tile_size=256, step=256)
    (slide,) = run([tmp_path / "glass.png"], settings).slides
    assert slide.counts[TileFlag.PASSED_THROUGH.key] == slide.tiles > 0
    store = TileStore.open(tmp_path / "out" / "glass.zarr")
    assert (store.flags & TileFlag.PASSED_THROUGH).all()
    np.testing.assert_array_equal(store[0], glass[:256, :256])


@pytest.mark.parametrize("statistics", ["slide", "tile"])
@pytest.mark.parametrize("name", ["macenko", "reinhard", "none"])
def test_every_normaliser_makes_a_store_like_any_other(
    slide_path: Path, tmp_path: Path, name: str, statistics: str
) -> None:
    """OpenSlide's pixels through the normaliser alone; resumed, skipped, verified, reported."""
    import openslide

    whose = {} if name == "none" else {"statistics": statistics}
    settings = config(tmp_path, tile_size=256, step=256, normalizer=name, **whose)
    assert run([slide_path], settings).exit_status == 0
    path = tmp_path / "synthetic.zarr"
    store, before = TileStore.open(path), tree(path)
    meta = store.meta
    assert (meta.model.normalizer, meta.model.statistics) == (name, whose.get("statistics", name))
    assert (meta.statistics is not None) == (meta.model.statistics == "slide")
    normalizer = Model(name, **whose).load("cpu")
    known = Statistics.from_dict(meta.statistics) if meta.statistics else None
    with openslide.OpenSlide(slide_path) as slide:
        for row in range(0, len(store), 7):
            x, y = map(int, store.coords[row])
            source = np.asarray(slide.read_region((x, y), 0, (256, 256)).convert("RGB"))
            expected, usable = normalizer.normalize(source[None], known, meta.white)
            np.testing.assert_array_equal(store[row], expected[0])
            assert bool(store.flags[row] & TileFlag.PASSED_THROUGH) == (not usable[0])
    assert name == "none" or np.abs(store[0].astype(int) - source).mean() > 1
    assert store.damage() == []
    (path / "tiles/c/0/0/0/0").unlink()
    assert run([slide_path], settings).slides[0].status == "done"
    assert tree(path) == before
    assert run([slide_path], settings).slides[0].status == "skipped"
    assert json.loads((tmp_path / "run.json").read_text())["model"]["normalizer"] == name


@pytest.mark.parametrize("name", ["macenko", "reinhard"])
def test_glass_passes_a_classic_normaliser_and_is_counted(tmp_path: Path, name: str) -> None:
    from PIL import Image

    glass = np.random.default_rng(0).normal(243, 1, (700, 900, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    settings = config(
        tmp_path / "out",
        default_mpp=0.5,
        segmenter="none",
        tile_size=256,
        step=256,
        normalizer=name,
    )
    (slide,) = run([tmp_path / "glass.png"], settings).slides
    assert slide.counts["passed_through"] == slide.tiles > 0
    assert "no statistics" in slide.warnings[0]
    store = TileStore.open(tmp_path / "out" / "glass.zarr")
    np.testing.assert_array_equal(store[0], glass[:256, :256])


@pytest.mark.parametrize("statistics", ["slide", "tile"])
def test_tiles_equal_the_normalizer_on_openslide_pixels(
    slide_path: Path, tmp_path: Path, statistics: str
) -> None:
    """Native resolution, so a tile is read_region's pixels through the layer, nothing else."""
    import openslide

    from wsi_norm import Normalizer, Statistics

    settings = config(tmp_path, tile_size=256, step=256, statistics=statistics)
    run([slide_path], settings)
    store = TileStore.open(tmp_path / "synthetic.zarr")
    known = Statistics.from_dict(store.meta.statistics) if store.meta.statistics else None
    assert (known is None) == (statistics == "tile")
    normalizer = Normalizer(load_checkpoint(), "cpu")
    with openslide.OpenSlide(slide_path) as slide:
        for row in range(0, len(store), 5):
            x, y = store.coords[row].tolist()
            source = np.asarray(slide.read_region((x, y), 0, (256, 256)).convert("RGB"))
            expected, _ = normalizer.normalize(source[None], known, store.meta.white)
            np.testing.assert_array_equal(store[row], expected[0])


def test_the_dry_run_writes_nothing_and_counts_right(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    summary = run([slide_path], config(tmp_path / "out", dry_run=True))
    (slide,) = summary.slides
    assert slide.status == "planned"
    assert slide.tiles == len(TileStore.open(normal / "synthetic.zarr"))
    assert slide.expected_bytes
    assert slide.expected_seconds
    assert not (tmp_path / "out").exists()


def test_the_report_can_be_left_out(slide_path: Path, tmp_path: Path) -> None:
    run([slide_path], config(tmp_path, report=False))
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic.zarr"]


def test_an_interrupt_writes_the_report_and_can_be_resumed(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, ShardWritten):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([slide_path], config(tmp_path), interrupt)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["interrupted"]
    assert document["slides"][0]["status"] == "interrupted"
    assert run([slide_path], config(tmp_path)).exit_status == 0
    assert tree(tmp_path / "synthetic.zarr") == tree(normal / "synthetic.zarr")


def test_unreadable_tiles_above_the_share_fail_the_slide(faulty: Path, tmp_path: Path) -> None:
    settings = {"workers": 0, "output": tmp_path, "max_unreadable": 0.05}
    summary = run([faulty / "zeroed_tiles.svs"], RunConfig.model_validate(settings))
    (slide,) = summary.slides
    assert slide.status == "failed"
    assert "6 of 55 tiles cannot be read" in (slide.error or "")
    assert "--max-unreadable" in (slide.error or "")
    assert not TileStore.open(tmp_path / "zeroed_tiles.zarr", allow_partial=True).meta.complete


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"ckpt": Path("/nowhere.pt")}, CheckpointError, "/nowhere.pt"),
        ({"output": Path("/proc/nowhere")}, ConfigError, "/proc/nowhere: cannot write"),
        ({"device": "cuda:9"}, ConfigError, "cuda:9"),
        ({"slides_csv": Path("/none.csv")}, ConfigError, "/none.csv"),
    ],
)
def test_what_concerns_every_slide_is_said_before_the_first(
    slide_path: Path, tmp_path: Path, settings: dict[str, object], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        run([slide_path], config(**{"output": tmp_path, **settings}))


def test_a_store_made_anew_is_opened_anew(slide_path: Path, tmp_path: Path) -> None:
    """A worker keeps the store it works on; `--overwrite` puts another in its place."""
    first = run(slide_path, config(tmp_path, tile_size=256))
    second = run(slide_path, config(tmp_path, tile_size=512, overwrite=True))
    assert (first.exit_status, second.exit_status) == (0, 0)
    assert TileStore.open(tmp_path / "synthetic.zarr")[0].shape == (512, 512, 3)


def test_no_slides_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no slides"):
        run([], config(tmp_path))


def test_a_table_rules_over_what_slides_say(slide_path: Path, faulty: Path, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(
        "wsi,mpp,name\n"
        f"{faulty / 'mpp_10x.svs'},0.499,fixed\n"
        f"{faulty / 'mpp_garbage.svs'},,\n"
        f"{slide_path},,\n"
    )
    settings = RunConfig(slides_csv=table, workers=0, output=tmp_path / "out")
    summary = run([], settings)
    assert [slide.status for slide in summary.slides] == ["done", "failed", "done"]
    meta = TileStore.open(tmp_path / "out" / "fixed.zarr").meta
    assert meta.slide.mpp_source == "table"
    assert meta.slide.mpp_um == 0.499


def test_one_mpp_rules_over_what_all_slides_say(
    slide_path: Path, faulty: Path, tmp_path: Path
) -> None:
    settings = config(tmp_path / "out", override_mpp=0.4, report=True)
    summary = run([faulty / "mpp_10x.svs", slide_path], settings)
    assert [slide.status for slide in summary.slides] == ["done", "done"]
    for store in (tmp_path / "out").glob("*.zarr"):
        meta = TileStore.open(store).meta
        assert (meta.slide.mpp_um, meta.slide.mpp_source) == (0.4, "override")
    assert "--override-mpp" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_url_is_a_slide_like_any_other(slide_path: Path, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/synthetic.svs", slide_path.read_bytes())
    slides = ["memory://bucket/synthetic.svs", "memory://bucket/none.svs"]
    summary = run(slides, config(tmp_path, statistics="tile"))
    assert [slide.status for slide in summary.slides] == ["done", "failed"]
    assert "memory://bucket/none.svs: nothing there" in (summary.slides[1].error or "")
    run([slide_path], config(tmp_path / "local", statistics="tile", reader="tiffslide"))
    remote = TileStore.open(tmp_path / "synthetic.zarr")
    local = TileStore.open(tmp_path / "local" / "synthetic.zarr")
    np.testing.assert_array_equal(remote[:], local[:])


def test_a_slide_that_is_gone_for_a_moment_leaves_no_white_tiles(
    normal: Path, slide_path: Path, tmp_path: Path
) -> None:
    """It vanishes after the first shard; once it is back, the same run finishes it."""
    slide = tmp_path / "synthetic.svs"
    shutil.copy(slide_path, slide)

    def cut(event: object) -> None:
        if isinstance(event, ShardWritten):
            os.truncate(slide, 2000)

    (result,) = run([slide], config(tmp_path / "out", workers=0), cut).slides
    assert result.status == "failed"
    assert "changed during the run" in (result.error or "")
    store = TileStore.open(tmp_path / "out" / "synthetic.zarr", allow_partial=True)
    assert store.missing_shards()
    assert not (store.flags & TileFlag.UNREADABLE).any()
    shutil.copy(slide_path, slide)
    assert run([slide], config(tmp_path / "out")).exit_status == 0
    assert tree(tmp_path / "out" / "synthetic.zarr") == tree(normal / "synthetic.zarr")


def test_a_slide_above_max_unreadable_is_read_again_by_the_next_run(
    faulty: Path, tmp_path: Path
) -> None:
    settings = {"workers": 0, "output": tmp_path, "max_unreadable": 0.05}
    slides = [faulty / "zeroed_tiles.svs"]
    for _ in range(2):
        (slide,) = run(slides, RunConfig.model_validate(settings)).slides
        assert slide.status == "failed"
        assert slide.tiles_written == 55
    (slide,) = run(slides, RunConfig.model_validate({**settings, "max_unreadable": 0.5})).slides
    assert slide.status == "damaged"


def test_one_slide_in_two_rows_of_a_table_is_two_stores(slide_path: Path, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(f"WSI,Name\n{slide_path},a\n{slide_path},b\n")
    summary = run(slide_path, RunConfig(slides_csv=table, workers=0, output=tmp_path / "out"))
    assert [(slide.name, slide.status) for slide in summary.slides] == [
        ("a", "done"),
        ("b", "done"),
    ]


def test_misuse_from_python(slide_path: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="RunConfig"):
        run([slide_path], {"output": tmp_path})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="empty name"):
        run([""], config(tmp_path))
    with pytest.raises(ConfigError, match="cannot read the region file"):
        run([slide_path], config(tmp_path, roi=tmp_path / "none.geojson"))


def test_a_report_that_cannot_be_written_is_one_line(slide_path: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(ReportError, match="the report cannot be written: Is a directory"):
        run([slide_path], config(tmp_path))
    assert TileStore.open(tmp_path / "synthetic.zarr").meta.complete
