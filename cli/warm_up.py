"""`wsi-norm warm-up`."""

from __future__ import annotations

import click

from .output import say


@click.command("warm-up")
@click.argument("checkpoints", nargs=-1)
def command(checkpoints: tuple[str, ...]) -> None:
    """Compile the kernels of CHECKPOINTS (those of the package, if none) and keep them.

    Runs do so by themselves, the first time on a machine. What is kept is for this user, this
    processor and this version of the package: compile it where it will run, or an image for it.
    """
    import time
    from pathlib import Path

    import numpy as np

    from wsi_norm import compiled
    from wsi_norm.config import RunConfig
    from wsi_norm.errors import ConfigError
    from wsi_norm.lstainnorm.checkpoint import PACKAGED
    from wsi_norm.normalizers.model import Model
    from wsi_norm.resampling import fit
    from wsi_norm.slide import lookup  # noqa: F401 # it compiles as it is imported

    start = time.perf_counter()
    fit(np.zeros((8, 8, 3), np.uint8), 4, 4)
    say(f"resampling: {time.perf_counter() - start:.1f} s")
    for checkpoint in checkpoints or PACKAGED:
        start = time.perf_counter()
        Model.of(RunConfig(ckpt=Path(checkpoint))).load("cpu").warm_up()
        say(f"kernels of {checkpoint}: {time.perf_counter() - start:.1f} s")
    if not (folders := compiled.folders()):
        raise ConfigError(
            "compiled kernels can be kept nowhere: set NUMBA_CACHE_DIR to a folder for them"
        )
    for folder in folders:
        say(f"kept in {folder}")
