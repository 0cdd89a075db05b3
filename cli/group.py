"""`wsi-norm`: the group of its commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

COMMANDS = {
    "run": "Normalise slides into zarr stores.",
    "train": "Train the layer in front of a classifier or a segmenter.",
    "evaluate": "Compare normalisers: seeds, unseen domains, intervals.",
    "inspect": "Show what a checkpoint holds.",
    "fit-template": "Make an untrained checkpoint aimed at a cohort of tiles.",
    "verify": "Read stores back; name what is damaged.",
    "export": "Write stores in formats of other tools.",
    "warm-up": "Compile the kernels, so that no run has to.",
    "demo": "Make a synthetic slide and normalise it.",
}
"""Commands and their one-line help; a command's module is imported when it is called."""

FILE = click.Path(path_type=Path)
"""Type of options and arguments that are paths."""


class LazyGroup(click.Group):
    """A group whose help costs no import, and whose options take underscores for dashes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        name = cmd_name.replace("_", "-")
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"wsi_norm_cli.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def dashes(token: str) -> str:
    """`--patch_size` as `--patch-size`: both spellings are known in the field."""
    return token.replace("_", "-")


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="wsi-norm", prog_name="wsi-norm")
def cli() -> None:
    """Stain normalisation of whole-slide images by a learned layer (LStainNorm).

    Start with `wsi-norm demo`, then `wsi-norm run SLIDES... -o OUT`.
    """
