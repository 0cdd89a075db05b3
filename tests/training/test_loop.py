"""The loop's own parts: what it keeps, logs, and how it stops."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.errors import TrainingError
from wsi_norm.training.loop import (
    EpochLog,
    Keeper,
    Patience,
    TileData,
    device_of,
    fit,
    is_first_process,
)
from wsi_norm.training.train import build_task

Make = Callable[..., TrainConfig]
Cohort = Callable[..., Path]


def trainer_at(epoch: int, metrics: dict[str, float], *, first: bool = True) -> Any:
    return SimpleNamespace(
        current_epoch=epoch,
        global_step=10 * (epoch + 1),
        is_global_zero=first,
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
        should_stop=False,
    )


def parts(settings: Make, folder: Path, **changes: Any) -> tuple[Any, Any, Any]:
    """A task and its tiles, of two groups."""
    config = settings(**changes)
    listed = [
        LabelledImage(f"{g}-{k}", folder / f"{g}-{k}.png", None, k % 2, None, f"{g}", "")
        for g in range(2)
        for k in range(4)
    ]
    tiles = LabelledTiles(listed, config, 2, training=True)
    return build_task(config, tiles, "ab"), config, tiles


def rows_of(path: Path) -> Sequence[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log" / "metrics.csv"
    log = EpochLog(path)
    module: Any = None
    log.on_train_start(trainer_at(0, {}), module)
    for epoch in range(3):
        log.on_train_epoch_end(trainer_at(epoch, {"loss": epoch / 3}), module)
    assert [(r["epoch"], r["step"], r["loss"]) for r in rows_of(path)] == [
        ("0", "10", "0.0"),
        ("1", "20", "0.333333"),
        ("2", "30", "0.666667"),
    ]
    EpochLog(path).on_train_start(trainer_at(1, {}), module)  # goes on after epoch 0
    assert [row["epoch"] for row in rows_of(path)] == ["0"]
    log.on_train_epoch_end(trainer_at(1, {"loss": 2.0, "score": 1.0}), module)
    assert [list(row.values()) for row in rows_of(path)] == [
        ["0", "10", "0.0", ""],
        ["1", "20", "2.0", "1.0"],
    ]
    log.on_train_start(trainer_at(0, {}), module)
    assert rows_of(path) == []
    log.on_train_epoch_end(trainer_at(0, {"loss": 2.0}), module)
    assert len(rows_of(path)) == 1


def test_one_process_logs(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "metrics.csv")
    log.on_train_epoch_end(trainer_at(0, {"loss": 1.0}, first=False), None)  # type: ignore[arg-type]
    assert not (tmp_path / "metrics.csv").exists()


def test_a_keeper_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    keepers = [
        Keeper(tmp_path / name, "best", monitor="score", mode="max") for name in ("old", "new")
    ]
    old, new = keepers
    path = str(tmp_path / "old" / "best.ckpt")
    old.best_model_path = old.kth_best_model_path = path
    old.best_model_score = old.kth_value = torch.tensor(0.7)
    old.best_k_models = {path: torch.tensor(0.7)}
    new.load_state_dict(old.state_dict())
    moved = str(tmp_path / "new" / "best.ckpt")
    assert (new.best_model_path, new.kth_best_model_path) == (moved, moved)
    assert new.best_k_models == {moved: torch.tensor(0.7)}
    assert new.best_model_score == torch.tensor(0.7)
    assert new.last_model_path == ""
    assert old.state_key == new.state_key


@pytest.mark.parametrize(("waited", "stops"), [(0, False), (1, False), (2, True), (3, True)])
def test_patience_that_is_used_up(waited: int, stops: bool) -> None:
    patience = Patience("score", mode="max", patience=2)
    patience.load_state_dict({**patience.state_dict(), "wait_count": waited})
    trainer = trainer_at(3, {})
    patience.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop is stops


def test_devices(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of(settings(recipe={"device": "auto"})).type == expected
        assert device_of(settings(recipe={"device": "cpu"})).type == "cpu"
        assert device_of(settings(recipe={"device": "cuda"})).type == "cuda"


def test_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
        assert is_first_process() is (rank == 0)


def test_each_epoch_and_process_has_its_batches(
    cohort: Cohort, settings: Make, tmp_path: Path
) -> None:
    cohort()
    _, config, tiles = parts(settings, tmp_path, recipe={"batch_size": 2, "tiles_per_group": 2})
    data = TileData(tiles, tiles, config)
    seen = {}
    for epoch in (0, 1):
        for rank in (0, 1):
            data.trainer = SimpleNamespace(  # type: ignore[assignment]
                current_epoch=epoch, global_rank=rank, world_size=2
            )
            seen[epoch, rank] = [b.item.tolist() for b in data.train_dataloader()]
    for epoch in (0, 1):
        both = [item for rank in (0, 1) for batch in seen[epoch, rank] for item in batch]
        assert sorted(both) == list(range(8))
    assert seen[0, 0] + seen[0, 1] != seen[1, 0] + seen[1, 1]
    validated = [item for batch in data.val_dataloader() for item in batch.item.tolist()]
    assert sorted(validated) == list(range(8))  # whole, whatever the process


@pytest.mark.parametrize("processes", [1, 2])
def test_the_schedule_ends_with_the_training(
    cohort: Cohort,
    settings: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
) -> None:
    """Of the steps that each process makes."""
    cohort()
    task, config, tiles = parts(settings, tmp_path, recipe={"batch_size": 2, "epochs": 3})
    assert task.total_steps == 12

    class Ended(Exception):  # noqa: N818
        pass

    def run(*_: Any, **__: Any) -> None:
        raise Ended

    trainer = SimpleNamespace(world_size=processes, fit=run)
    monkeypatch.setattr(pl, "Trainer", lambda **_: trainer)
    with pytest.raises(Ended):
        fit(task, config, tiles, tiles, progress=False)
    assert task.total_steps == 12 // processes


def test_memory_that_ran_out(
    cohort: Cohort, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort()
    task, config, tiles = parts(settings, tmp_path)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(task.network, "forward", full)
    with pytest.raises(TrainingError) as caught:
        fit(task, config, tiles, tiles, progress=False)
    assert str(caught.value) == (
        "the memory of the device ran out: lower recipe.batch_size or data.tile_size"
    )


def test_sigint_is_as_before(
    cohort: Cohort, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort()
    task, config, tiles = parts(settings, tmp_path)

    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(task.network, "forward", pressed)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(task, config, tiles, tiles, progress=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_bars(
    cohort: Cohort, settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort()
    task, config, tiles = parts(settings, tmp_path, recipe={"epochs": 1})
    score = fit(task, config, tiles, tiles, progress=False)
    assert score is not None
    quiet = capsys.readouterr()
    assert (quiet.out, quiet.err) == ("", "")
    task, config, tiles = parts(
        settings, tmp_path, recipe={"epochs": 1}, output=str(tmp_path / "other")
    )
    fit(task, config, tiles, tiles, progress=True)
    shown = capsys.readouterr()
    assert "validation/score" in shown.out + shown.err
