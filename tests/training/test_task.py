"""Loss, score and optimiser of a task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from sklearn.metrics import f1_score
from torch import nn

from tests.cohorts import batch_of
from wsi_norm.config import TrainConfig
from wsi_norm.errors import TrainingError
from wsi_norm.lstainnorm import LStainNorm, Template
from wsi_norm.normalizers.classic import Unchanged
from wsi_norm.normalizers.model import Model
from wsi_norm.training.front import Front, LayerFront
from wsi_norm.training.task import StainTask, full_precision

Make = Callable[..., TrainConfig]
Tensor = torch.Tensor


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task_of(config: TrainConfig, front: nn.Module | None = None, **changes: Any) -> StainTask:
    network: nn.Module = (
        nn.Conv2d(3, 2, 1)
        if config.task == "segmentation"
        else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    )
    given: dict[str, Any] = {"classes": 2, "class_weights": None, "total_steps": 10, **changes}
    return StainTask(front or Front(Unchanged()), network, config, **given)


def layer_front() -> LayerFront:
    tile = np.random.default_rng(0).integers(40, 200, (16, 16, 3), np.uint8)
    return LayerFront(LStainNorm("mean", template=Template.fit(tile)))


# --- loss and score


def test_the_loss_of_a_classifier(settings: Make) -> None:
    logits, target = torch.randn(6, 2, generator=random()), torch.tensor([0, 1, 1, 0, 0, 1])
    each = torch.logsumexp(logits, 1) - logits[torch.arange(6), target]
    torch.testing.assert_close(task_of(settings()).loss(logits, target), each.mean())
    weight = torch.tensor([0.5, 2.0])
    weighted = (each * weight[target]).sum() / weight[target].sum()
    task = task_of(settings(), class_weights=weight.tolist())
    torch.testing.assert_close(task.loss(logits, target), weighted)
    assert not [name for name in task.state_dict() if "weights" in name]


def test_the_loss_of_a_segmenter(settings: Make) -> None:
    logits = torch.randn(2, 2, 8, 8, generator=random())
    target = torch.randint(2, (2, 8, 8), generator=random())
    loss = task_of(settings("segmentation")).loss(logits, target)
    monai = DiceCELoss(softmax=True, to_onehot_y=True)(logits, target[:, None])
    torch.testing.assert_close(loss, monai)
    chance = logits.softmax(1)
    truth = torch.stack([target == 0, target == 1], 1).float()
    dims = (2, 3)
    dice = (2 * (chance * truth).sum(dims) + 1e-5) / (chance.sum(dims) + truth.sum(dims) + 1e-5)
    entropy = -(truth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, (1 - dice).mean() + entropy, rtol=1e-4, atol=1e-5)


class Logged(StainTask):
    """Keeps what it logs."""

    def log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        self.__dict__.setdefault("seen", {})[name] = float(value)

    def log_dict(self, dictionary: Any, *_: Any, **__: Any) -> None:
        for name, value in dictionary.items():
            self.log(name, value)


class Fixed(nn.Module):
    """Says what it was told, whatever it sees; goes on with the next batch."""

    def __init__(self, *answers: list[int], classes: int) -> None:
        super().__init__()
        self.answers, self.classes = list(answers), classes

    def forward(self, image: Tensor) -> Tensor:
        answer = torch.tensor(self.answers.pop(0))
        return nn.functional.one_hot(answer, self.classes).float()


def test_balanced_accuracy_over_batches(settings: Make) -> None:
    """Of the classes that there are: no image of class 2, which is predicted once."""
    task = Logged(Front(Unchanged()), Fixed([0, 0, 1], [2, 0], classes=3), settings(), 3, None, 1)
    for labels in ([0, 0, 1], [1, 1]):
        batch = batch_of([0] * len(labels))
        task.validation_step(batch._replace(target=torch.tensor(labels)), 0)
    task.on_validation_epoch_end()
    assert task.__dict__["seen"]["validation/score"] == pytest.approx((1 + 1 / 3) / 2)
    assert task._seen == []
    task.on_validation_epoch_end()  # nothing was seen: nothing to say


def test_mean_dice_over_items(settings: Make) -> None:
    """Tiles of an image count together, in whatever batch they come."""
    config = settings("segmentation")
    first, second = (torch.randint(2, (2, 8, 8), generator=random(k)) for k in (1, 2))
    truth = torch.randint(2, (2, 2, 8, 8), generator=random(3))

    class Masks(nn.Module):
        answers = [first, second]

        def forward(self, image: Tensor) -> Tensor:
            return nn.functional.one_hot(self.answers.pop(0), 2).permute(0, 3, 1, 2).float()

    task = Logged(Front(Unchanged()), Masks(), config, 2, None, 1)
    for k in range(2):
        batch = batch_of([0, 0])._replace(target=truth[k], item=torch.tensor([4, k]))
        task.validation_step(batch, 0)
    task.on_validation_epoch_end()
    found = {4: (first[0], second[0]), 0: (first[1],), 1: (second[1],)}
    true = {4: (truth[0, 0], truth[1, 0]), 0: (truth[0, 1],), 1: (truth[1, 1],)}
    scores = [
        f1_score(torch.stack(true[k]).flatten(), torch.stack(found[k]).flatten()) for k in found
    ]
    assert task.__dict__["seen"]["validation/score"] == pytest.approx(np.mean(scores))


def test_what_is_logged_of_the_layer(settings: Make) -> None:
    front = layer_front()
    task = Logged(front, nn.Identity(), settings(), 2, None, 1)
    task.on_train_epoch_end()
    assert task.__dict__["seen"] == {f"layer/{k}": v for k, v in front.learned().items()}
    task.__dict__.pop("seen")
    front.requires_grad_(False)
    task.on_train_epoch_end()
    assert "seen" not in task.__dict__


# --- steps


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(settings: Make, value: float) -> None:
    task = Logged(Front(Unchanged()), nn.Linear(1, 1), settings(), 2, None, 1)
    task.forward = lambda image, group: torch.full((2, 2), value)  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        task.training_step(batch_of([0, 0]), 0)
    assert str(caught.value).startswith("the loss became nan at step 0: lower recipe.learning_rate")


def test_a_step_depends_on_seed_and_step_alone(settings: Make) -> None:
    config = settings(augmentation={"jitter": 0.3, "scanners": 1.0})
    task = task_of(config, layer_front())
    task.log = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    task.network.insert(0, nn.Dropout(0.5))  # type: ignore[operator]
    batch = batch_of([3, 3, 1, 1])
    losses = []
    for _ in range(2):
        torch.rand(3)
        losses.append(float(task.training_step(batch, 0).detach()))
    assert losses[0] == losses[1]
    other = task_of(settings(seed=1, augmentation={"jitter": 0.3}), layer_front())
    other.network = task.network
    other.log = task.log  # type: ignore[method-assign]
    assert float(other.training_step(batch, 0).detach()) != losses[0]


def test_who_shares_colours(settings: Make) -> None:
    batch = batch_of([8, 3, 8, 3, 5])
    per_tile = layer_front()
    per_tile.layer.configure(statistics="tile")
    fronts = {
        (2, 0, 2, 0, 1): [layer_front(), Front(Model("reinhard").load("cpu"))],
        (0, 1, 2, 3, 4): [per_tile, Front(Model("reinhard", statistics="tile").load("cpu")), None],
    }
    for expected, those in fronts.items():
        for front in those:
            assert tuple(task_of(settings(), front)._unit(batch).tolist()) == expected


def test_mixed_precision_is_for_the_network_alone(settings: Make) -> None:
    seen: list[torch.dtype] = []

    class Spy(Front):
        def forward(self, image: Tensor, group: Tensor) -> Tensor:
            flat = image.flatten(2)
            seen.append((flat @ flat.mT).dtype)
            return image

    task = task_of(settings(augmentation={"scanners": 1.0}), Spy(Unchanged()))
    task.log = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    inputs: list[torch.dtype] = []
    task.network[2].register_forward_hook(  # type: ignore[index]
        lambda module, given, output: inputs.append(output.dtype)
    )
    image = batch_of([0, 1]).image.float() / 255
    plain = task(image, torch.tensor([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        logits = task(image, torch.tensor([0, 1]))
        task.training_step(batch_of([0, 1]), 0)
        task.validation_step(batch_of([0, 1]), 0)
        with full_precision(image):
            assert (image.flatten(2) @ image.flatten(2).mT).dtype == torch.float32
    assert set(seen) == {torch.float32}
    assert inputs == [torch.float32, *[torch.bfloat16] * 3]
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, plain, atol=0.02, rtol=0)


# --- optimiser


def test_the_layer_has_its_own_rate(settings: Make) -> None:
    config = settings(
        recipe={"learning_rate": 0.02, "layer_learning_rate": 0.3, "weight_decay": 0.05}
    )
    task = task_of(config, layer_front())
    groups = task.configure_optimizers()["optimizer"].param_groups
    assert [(g["initial_lr"], g["weight_decay"]) for g in groups] == [(0.02, 0.05), (0.3, 0.0)]
    owners = [{id(p) for p in module.parameters()} for module in (task.network, task.front)]
    assert [{id(p) for p in g["params"]} for g in groups] == owners
    task.front.requires_grad_(False)
    assert len(task.configure_optimizers()["optimizer"].param_groups) == 1


@pytest.mark.parametrize(("warmup", "total"), [(4, 20), (0, 10), (100, 10), (3, 1)])
def test_the_schedule(settings: Make, warmup: int, total: int) -> None:
    config = settings(recipe={"warmup_steps": warmup, "learning_rate": 0.1})
    made = task_of(config, total_steps=total).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"] / 0.1)
        optimizer.step()
        schedule.step()
    ramp = min(warmup, total // 2)
    rising = [(k + 1) / (ramp + 1) for k in range(ramp)]
    falling = [(1 + math.cos(math.pi * k / (total - ramp))) / 2 for k in range(total - ramp)]
    np.testing.assert_allclose(rates, rising + falling, rtol=1e-6)
    assert rates[ramp] == pytest.approx(1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert all(rate > 0 for rate in rates)
