"""Cohorts that the tests draw, and networks small enough to learn from them in seconds.

Settings name the networks as `tests.cohorts:classifier`, as they name a user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsi_norm.cohort.batches import Batch
from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.config import TrainConfig
from wsi_norm.config.evaluate import merge

STROMA, NUCLEI, GLASS = (214, 150, 186), (92, 62, 140), (242, 240, 244)
TINTS = ((1.0, 1.0, 1.0), (0.94, 0.86, 1.02))
"""Two scanners: factors on RGB."""


def classifier(classes: int = 2, dropout: float = 0.0) -> nn.Module:
    """Two convolutions and a mean."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def segmenter(classes: int = 2) -> nn.Module:
    """Two convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, classes, 1)
    )


def quick_classifier() -> nn.Module:
    """Half of that, for many trainings."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4),
        nn.BatchNorm2d(4, momentum=0.5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def quick_segmenter() -> nn.Module:
    """Each pixel by itself."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


class Cutting(nn.Module):
    """A network that lets no gradient through."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(image.mean((2, 3)))
        return logits


class Exploding(nn.Module):
    """Gives NaN when it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(image.mean((2, 3)))
        return logits * torch.nan if self.training else logits


def draw(random: np.random.Generator, size: int, discs: int, domain: int) -> tuple[Any, Any]:
    """uint8 (size, size, 3) with nuclei in stroma and glass at an edge, and the nuclei's mask."""
    image = np.tile(np.array(STROMA, float), (size, size, 1))
    image[:, : size // 8] = GLASS
    rows, columns = np.mgrid[:size, :size]
    mask = np.zeros((size, size), bool)
    for y, x in random.uniform(size * 0.2, size * 0.85, (discs, 2)):
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < (size / 9) ** 2
    image[mask] = NUCLEI
    image = image * TINTS[domain] + random.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., Path]:
    """Writes a cohort and its table; class "b" has many nuclei, "a" has few."""

    def write(*, size: int = 32, groups: int = 8, each: int = 4) -> Path:
        random = np.random.default_rng(0)
        lines = ["image,label,mask,case,centre,split"]
        for group in range(groups):
            split = "train" if group < groups // 2 else ("validation", "test")[group % 2]
            for number in range(each):
                label, domain, name = number % 2, group // 2 % 2, f"{group}-{number}"
                image, mask = draw(random, size, (1, 7)[label], domain)
                Image.fromarray(image).save(tmp_path / f"{name}.png")
                Image.fromarray(mask).save(tmp_path / f"{name}-mask.png")
                lines.append(
                    f"{name}.png,{'ab'[label]},{name}-mask.png,case {group},{'XY'[domain]},{split}"
                )
        path = tmp_path / "index.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Settings of a tiny training, with changes."""

    def make(task: str = "classification", **changes: Any) -> TrainConfig:
        common: dict[str, Any] = {
            "output": str(tmp_path / "trained"),
            "task": task,
            "data": {
                "index": str(tmp_path / "index.csv"),
                "columns": {"group": "case", "domain": "centre"},
                "train": {"split": "train"},
                "validation": {"split": "validation"},
                "test": {"split": "test"},
            },
            "normalizer": {"preset": "mean"},
            "network": {"name": "tests.cohorts:classifier"},
            "recipe": {
                "epochs": 2,
                "batch_size": 8,
                "tiles_per_group": 4,
                "learning_rate": 0.02,
                "warmup_steps": 1,
                "select_under_scanners": False,
                "device": "cpu",
            },
        }
        if task == "classification":
            common["data"]["columns"]["label"] = "label"
        else:
            common["data"]["columns"]["mask"] = "mask"
            common["data"]["classes"] = ["background", "nucleus"]
            common["network"]["name"] = "tests.cohorts:segmenter"
        data = changes.pop("data", {})
        merged = merge(common, {**changes, "data": data})
        for key, value in data.items():  # filters are replaced, not merged
            if key in {"train", "validation", "test"}:
                merged["data"][key] = value
        return TrainConfig.model_validate(merged)

    return make


def images(
    folder: Path, sizes: Sequence[tuple[int, int]], groups: Sequence[str] = (), masks: bool = False
) -> list[LabelledImage]:
    """Noise of (height, width), and masks that are the red channel's lowest bit."""
    random = np.random.default_rng(5)
    made = []
    for number, size in enumerate(sizes):
        path, mask = folder / f"n{number}.png", folder / f"n{number}-mask.png"
        noise = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(path)
        Image.fromarray(noise[..., 0] % 2).save(mask)
        group = groups[number] if groups else path.stem
        label = None if masks else number % 2
        made.append(LabelledImage(path.name, path, None, label, mask if masks else None, group, ""))
    return made


def pixels_of(path: Path) -> Any:
    """What an image file holds."""
    with Image.open(path) as image:
        return np.asarray(image)


def batch_of(groups: list[int], *, masks: bool = False, size: int = 8) -> Batch:
    """Tiles whose pixels depend on their group and place."""
    number = len(groups)
    image = torch.randint(
        60,
        250,
        (number, 3, size, size),
        generator=torch.Generator().manual_seed(1),
        dtype=torch.uint8,
    )
    label = torch.arange(number) % 2
    target = (
        torch.randint(2, (number, size, size), generator=torch.Generator().manual_seed(2))
        if masks
        else label
    )
    return Batch(image, target, torch.tensor(groups), torch.arange(number))
