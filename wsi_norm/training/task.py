"""The module that is trained: augmentation, front, network, loss, score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_norm.cohort.augment import augment
from wsi_norm.cohort.batches import Batch
from wsi_norm.cohort.conditions import CONDITIONS, seeded, simulate
from wsi_norm.cohort.scores import balanced_accuracy, dice_per_item, overlap
from wsi_norm.config import TrainConfig
from wsi_norm.errors import TrainingError
from wsi_norm.lstainnorm.sums import numbered
from wsi_norm.training.front import Front, LayerFront


class StainTask(pl.LightningModule):
    """A front (normaliser) and a network, trained together on one task.

    Parameters
    ----------
    front
        Maps images and groups to images; see `wsi_norm.training.front`.
    network
        Maps float (B, 3, H, W) to logits (B, classes) or (B, classes, H, W).
    config
        Task, augmentation and recipe.
    classes
        How many.
    class_weights
        Of the cross-entropy, one per class; None weighs all alike.
    total_steps
        Of the training; the learning rate ends at zero there.
    """

    def __init__(
        self,
        front: Front,
        network: nn.Module,
        config: TrainConfig,
        classes: int,
        class_weights: Sequence[float] | None,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.front: Front = front
        self.network, self.config = network, config
        self.classes, self.total_steps = classes, total_steps
        weight = None if class_weights is None else torch.tensor(class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weight, persistent=False)
        if config.task == "segmentation":
            self.dice_loss = DiceCELoss(softmax=True, to_onehot_y=True, weight=weight)
        self._seen: list[Tensor] = []
        if config.network.frozen:
            network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> StainTask:
        """As of any module, but that a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.config.network.frozen:
            self.network.eval()
        return self

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        """Logits of float images (B, 3, H, W) in [0, 1]; group is long (B,)."""
        with full_precision(image):
            normalized = self.front(image, group)
        logits: Tensor = self.network(normalized)
        return logits.float()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch; the draws depend on the seed and the step alone."""
        generator = seeded(self.config.seed, self.global_step, self.global_rank)
        torch.manual_seed(generator.initial_seed())  # for dropout and its like
        image = batch.image.float() / 255
        with full_precision(image):
            image, target = augment(
                image, batch.target, self._unit(batch), self.config.augmentation, generator
            )
        loss = self.loss(self(image, batch.group), target)
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"the loss became {loss.item()} at step {self.global_step}: lower "
                "recipe.learning_rate or recipe.layer_learning_rate, or use precision 32"
            )
        if self.config.network.frozen and not loss.requires_grad:
            raise TrainingError(
                f"no gradient reaches the layer through network.name {self.config.network.name!r}: "
                "something inside it cuts it off (torch.no_grad, detach)"
            )
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collects what the epoch's score is computed from."""
        scanned = self.config.recipe.select_under_scanners
        strength = CONDITIONS["simulated" if scanned else "clean"]
        with full_precision(batch.image):
            image = simulate(batch, strength, self.config.seed)
        logits = self(image, batch.group)
        if self.config.task == "classification":
            self._seen.append(torch.stack([logits.argmax(1), batch.target], dim=1))
        else:
            self._seen.append(torch.cat([batch.item[:, None], overlap(logits, batch.target)], 1))

    def on_validation_epoch_end(self) -> None:
        """Balanced accuracy, or mean Dice per image, of the validation split."""
        if not self._seen:
            return
        seen = torch.cat(self._seen)
        self._seen.clear()
        if self.config.task == "classification":
            score = balanced_accuracy(*seen.cpu().unbind(1))
        else:
            score = float(dice_per_item(seen[:, 0], seen[:, 1:])[1].mean())
        self.log("validation/score", score, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Logs the target and the spaces' weights, where they are learned."""
        front = self.front
        if isinstance(front, LayerFront) and any(p.requires_grad for p in front.parameters()):
            self.log_dict({f"layer/{name}": value for name, value in front.learned().items()})

    def configure_optimizers(self) -> Any:
        """AdamW, the layer at its own rate without decay; warm-up, then cosine to zero."""
        recipe = self.config.recipe
        parts = (
            (self.network, recipe.learning_rate, recipe.weight_decay),
            (self.front, recipe.layer_learning_rate, 0.0),
        )
        groups = [
            {"params": learning, "lr": rate, "weight_decay": decay}
            for module, rate, decay in parts
            if (learning := [p for p in module.parameters() if p.requires_grad])
        ]
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A frozen network is not kept with every epoch: it is in its own file."""
        if self.config.network.frozen:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: v for k, v in state.items() if not _of_network(k)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was not kept is as it is."""
        checkpoint["state_dict"] = self.completed(checkpoint["state_dict"])

    def completed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state of a kept epoch, with a frozen network's own."""
        if not self.config.network.frozen:
            return state
        return {**{k: v for k, v in self.state_dict().items() if _of_network(k)}, **state}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, or Dice + cross-entropy."""
        if self.config.task == "classification":
            return F.cross_entropy(logits, target, self.class_weights)
        loss: Tensor = self.dice_loss(logits, target[:, None])
        return loss

    def _rate(self, step: int) -> float:
        warmup = min(self.config.recipe.warmup_steps, self.total_steps // 2)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, self.total_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _unit(self, batch: Batch) -> Tensor:
        """Who shares colours in augmentation: a slide does, where statistics are the slide's."""
        if self.front.per_group:
            return numbered(batch.group)[1]
        return torch.arange(len(batch.group), device=batch.group.device)


def _of_network(name: str) -> bool:
    return name.startswith("network.")


def full_precision(image: Tensor) -> torch.autocast:
    """Mixed precision is for the network: colours are transformed as they will be in a run."""
    return torch.autocast(image.device.type, enabled=False)
