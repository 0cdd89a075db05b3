"""How large a benchmark is."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """Sizes of one go; edges in px."""

    name: str
    tile_edges: tuple[int, ...] = (224, 256, 512, 1024)
    rounds: int = 5
    slide_edge: int = 40_000
    native_slide_edge: int = 20_000
    pipeline_rounds: int = 3
    pipeline_share: float = 1.0  # of the tiles that slow contestants get
    memory_slide_edge: int = 8_000
    memory_workers: tuple[int, ...] = (2, 8, 32)
    loading_s: float = 5.0  # of each form
    growth_edges: tuple[int, ...] = (10_000, 20_000, 40_000)
    growth_tile_edges: tuple[int, ...] = (256, 512, 768, 1024, 2048, 3072)
    growth_slides: tuple[int, ...] = (8, 32, 128)  # more than one
    growth_rounds: int = 2
    shards: int = 20_000


NORMAL = Scale("normal")
FULL = replace(NORMAL, name="full", shards=1_000_000)
QUICK = Scale(
    "quick",
    tile_edges=(224, 256, 512),
    rounds=2,
    slide_edge=12_000,
    native_slide_edge=6_000,
    pipeline_rounds=1,
    pipeline_share=0.1,
    memory_slide_edge=3_000,
    memory_workers=(2, 4),
    loading_s=1.0,
    growth_edges=(6_000, 12_000),
    growth_tile_edges=(256, 512, 1024, 2048),
    growth_slides=(2, 4),
    growth_rounds=1,
    shards=1_000,
)
