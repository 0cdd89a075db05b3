"""What the parts of the layer cost, as ratios from one interleaved run.

    python benchmarks/layer.py [--tile-size PX] [--rounds N]

Every form sees the same tiles in every round; the figure is the median over rounds of its time
divided by the time of `single:rgb` (the cheapest preset) in the same round. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from wsi_norm import LStainNorm, Normalizer, load_checkpoint
from wsi_norm.lstainnorm import PRESETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = arguments.tile_size
    tiles = np.random.default_rng(0).integers(60, 255, (4, size, size, 3), dtype=np.uint8)
    forms = normalizers()
    known = forms["single:rgb"].measure(tiles)
    ratios: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(arguments.rounds):
        seconds = {name: timed(normalizer, tiles, known) for name, normalizer in forms.items()}
        for name, spent in seconds.items():
            ratios[name].append(spent / seconds["single:rgb"])
    print(f"{size} px tiles, slide statistics, torch {torch.__version__}, one thread")
    for name, values in ratios.items():
        print(f"{name:24} {statistics.median(values):6.2f} x single:rgb")


def normalizers() -> dict[str, Normalizer]:
    """Every preset, and `paper` with the full softmax."""
    template = load_checkpoint().template
    presets = [name for name in PRESETS if name not in {"reference", "single:hed"}]
    forms = {name: Normalizer(LStainNorm(name, template=template), "cpu") for name in presets}
    direct = LStainNorm("paper", template=template)
    direct.attention_form = "direct"
    return {**forms, "paper, full softmax": Normalizer(direct, "cpu")}


def timed(normalizer: Normalizer, tiles: np.ndarray, known: object) -> float:
    start = time.perf_counter()
    normalizer(tiles, known)  # type: ignore[arg-type]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
