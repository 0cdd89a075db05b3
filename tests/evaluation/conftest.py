"""A tiny cohort of generated tiles, and settings of evaluations that take a second per training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_norm.config import EvaluateConfig
from wsi_norm.config.evaluate import merge

TINTS = {"A": (190, 120, 170), "B": (170, 100, 180), "C": (200, 130, 150), "D": (180, 140, 190)}
"""Mean colour of each domain; D is the one to judge on."""
SIZE = 32


def draw(tint: tuple[int, int, int], label: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """A tile of 64 px and its mask: dots on tissue, darker for label 1, and a strip of glass."""
    image = rng.normal(tint, 12, (2 * SIZE, 2 * SIZE, 3))
    mask = np.zeros(image.shape[:2], np.uint8)
    for y, x in rng.integers(8, 2 * SIZE - 8, (12, 2)):
        mask[y - 3 : y + 3, x - 3 : x + 3] = 255
    image[mask > 0] -= (60, 50, 20) if label else (25, 25, 10)
    image[:, 28:34] = rng.normal(240, 1.5, (2 * SIZE, 6, 3))
    mask[:, 28:34] = 0
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """index.csv of 48 tiles: domains A, B, C to train on and D, three cases each."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    lines = ["image,mask,label,case,domain,split"]
    for domain, tint in TINTS.items():
        for case in range(3):
            for tile in range(4):
                name = f"{domain}{case}_{tile}"
                image, mask = draw(tint, tile % 2, rng)
                Image.fromarray(image).save(folder / f"{name}.png")
                Image.fromarray(mask).save(folder / f"{name}_mask.png")
                split = "test" if domain == "D" else "train"
                row = [f"{name}.png", f"{name}_mask.png", "ab"[tile % 2], f"{domain}{case}"]
                lines.append(",".join([*row, domain, split]))
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


METHODS = {
    "none": {"change": {"normalizer": {"kind": "none"}}},
    "fixed lab": {"change": {"normalizer": {"learn": False}}},
    "learned": {},
    "fixed, network of none": {"uses": "none", "change": {"normalizer": {"learn": False}}},
}


def classification(cohort: Path) -> dict[str, Any]:
    return {
        "task": "classification",
        "data": {
            "index": str(cohort / "index.csv"),
            "columns": {"label": "label", "group": "case", "domain": "domain"},
            "train": {"split": "train"},
            "validation": 0.34,
            "test": {"split": "test"},
            "tile_size": SIZE,
        },
        "normalizer": {"preset": "single:lab"},
        "network": {"name": "tests.cohorts:quick_classifier"},
        "recipe": {
            "epochs": 2,
            "steps_per_epoch": 10,
            "batch_size": 8,
            "learning_rate": 0.02,
            "device": "cpu",
        },
    }


def segmentation(cohort: Path) -> dict[str, Any]:
    settings = classification(cohort)
    settings["task"] = "segmentation"
    settings["data"] |= {
        "columns": {"mask": "mask", "group": "case", "domain": "domain"},
        "classes": ["background", "nucleus"],
    }
    settings["network"] = {"name": "tests.cohorts:quick_segmenter"}
    return settings


Make = Callable[..., EvaluateConfig]


@pytest.fixture(scope="session")
def maker(cohort: Path) -> Callable[[Path], Make]:
    """`maker(output)(methods, training={"recipe": {"epochs": 2}}, seeds=[0, 1], ...)`."""
    tasks = {"classification": classification(cohort), "segmentation": segmentation(cohort)}

    def to(output: Path) -> Make:
        def make(
            methods: Sequence[str] | dict[str, Any] = ("none", "fixed lab"),
            training: dict[str, Any] | None = None,
            task: str = "classification",
            **settings: Any,
        ) -> EvaluateConfig:
            if not isinstance(methods, dict):
                methods = {name: METHODS[name] for name in methods}
            given = {
                "output": str(output),
                "training": merge(tasks[task], training or {}),
                "methods": methods,
                "seeds": [0],
                "resamples": 100,
            }
            return EvaluateConfig.model_validate(given | settings)

        return make

    return to


@pytest.fixture
def make(maker: Callable[[Path], Make], tmp_path: Path) -> Make:
    """Settings of an evaluation in this test's folder."""
    return maker(tmp_path / "out")
