"""What applying ICC profiles costs, and what it changes: the tables of docs/icc.md.

    python -m benchmarks.icc SLIDE... [--default-mpp UM] [--scanner FOLDER]...

Profiles are taken as if they were a slide's own; its own is the first line. A --scanner is a folder
of tiles as image files, to see whether normalised slides come nearer to them.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

from wsi_norm.config import run_config
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline.tiles import read_tiles, spread
from wsi_norm.plan import plan_slide
from wsi_norm.slide import open_slide, read_image
from wsi_norm.slide.icc import examined
from wsi_norm.sources import SlideSource

TILES = 24
REPEATS = 5
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
PROFILES = {
    "Display P3": (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), 2.2),
    "Adobe RGB": (((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)), 2.2),
    "sRGB's primaries, gamma 1.8": (SRGB, 1.8),
}
"""Primaries (CIE x, y) and gamma; white is D65."""


def matrix_profile(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    xyy = [value for primary in primaries for value in (*primary, 1.0)]
    return imagecodecs.cms_profile(
        "rgb", whitepoint=[0.3127, 0.3290, 1.0], primaries=xyy, gamma=gamma
    )


def by_imagecms(profile: bytes) -> Callable[[np.ndarray], np.ndarray]:
    opened, srgb = ImageCms.getOpenProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    intent = ImageCms.getDefaultIntent(opened)
    transform = ImageCms.buildTransform(opened, srgb, "RGB", "RGB", renderingIntent=intent)
    return lambda x: np.asarray(ImageCms.applyTransform(Image.fromarray(x), transform))


def tiles_of(path: Path, default_mpp: float | None) -> tuple[np.ndarray, bytes | None]:
    """Tissue tiles as they are stored, and the slide's own profile."""
    config = run_config(segmenter="otsu")
    with open_slide(path, default_mpp_um=default_mpp) as slide:
        plan = plan_slide(slide, SlideSource(path, path.stem), config)
        tiles, _ = read_tiles(slide, plan.grid, spread(plan.tiles, TILES))
        return tiles, slide.metadata.icc_profile


def normalized(tiles: np.ndarray) -> np.ndarray:
    normalizer = Model().load("cpu")
    return normalizer.normalize(tiles, normalizer.measure(tiles))[0]


def tissue(tiles: np.ndarray) -> np.ndarray:
    lab = rgb2lab(tiles)
    return (np.hypot(lab[..., 1], lab[..., 2]) > 8) & (lab[..., 0] < 92)


def apart(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    """Mean CIEDE2000 of pixels."""
    return float(deltaE_ciede2000(rgb2lab(one[where][None]), rgb2lab(other[where][None])).mean())


def milliseconds(work: Callable[[np.ndarray], np.ndarray], tiles: Iterable[np.ndarray]) -> float:
    """CPU time a tile, of the fastest go."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        number = sum(1 for tile in tiles if work(tile) is not None)
        taken.append((time.process_time() - start) / number * 1e3)
    return min(taken)


def cost(named: dict[str, np.ndarray]) -> None:
    profile = matrix_profile(*PROFILES["Display P3"])
    start = time.process_time()
    used, direct = examined(profile, "apply"), by_imagecms(profile)
    print(f"\ntable made in {time.process_time() - start:.2f} s of CPU; ms a tile:\n")
    print("| tiles | ImageCms | table | levels apart |\n|---|---|---|---|")
    for name, tiles in named.items():
        used.to_srgb(tiles[0])  # compiled
        levels = max(int(np.abs(used.to_srgb(t).astype(int) - direct(t)).max()) for t in tiles)
        slow, fast = (milliseconds(work, tiles) for work in (direct, used.to_srgb))
        print(f"| {name} | {slow:.2f} | {fast:.2f} | {levels} |")


def effect(
    name: str, tiles: np.ndarray, own: bytes | None, scanners: dict[str, np.ndarray]
) -> None:
    profiles = {key: matrix_profile(*value) for key, value in PROFILES.items()}
    profiles = ({} if own is None else {"its own": own}) | profiles
    where, before = tissue(tiles), normalized(tiles)
    glass = ~where & (rgb2lab(tiles)[..., 0] > 90)
    print(f"\n| {name} | tissue | glass | tissue, normalised | to {', '.join(scanners)} |")
    print("|---|---|---|---|---|")
    for label, profile in {"none": None, **profiles}.items():
        applied = tiles if profile is None else np.stack([*map(by_imagecms(profile), tiles)])
        after = normalized(applied)
        mean = rgb2lab(after)[where].mean(0)
        away = ", ".join(f"{np.linalg.norm(mean - there):.2f}" for there in scanners.values())
        raw = apart(tiles, applied, where), apart(tiles, applied, glass)
        changed = apart(before, after, where)
        print(f"| {label} | {raw[0]:.2f} | {raw[1]:.2f} | {changed:.2f} | {away} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--default-mpp", type=float)
    parser.add_argument("--scanner", action="append", default=[], type=Path)
    arguments = parser.parse_args()
    scanners = {}
    for folder in arguments.scanner:
        fields = np.stack([read_image(file) for file in sorted(folder.glob("*.png"))[:60]])
        scanners[folder.name] = rgb2lab(normalized(fields))[tissue(fields)].mean(0)
    named = {path.stem: tiles_of(path, arguments.default_mpp) for path in arguments.slides}
    noise = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    cost({name: tiles for name, (tiles, _) in named.items()} | {"noise": noise})
    for name, (tiles, own) in named.items():
        effect(name, tiles, own, scanners)


if __name__ == "__main__":
    main()
