"""What a field of settings can say of itself beside type, default and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from wsi_norm.choices import DEVICE, Choices
from wsi_norm.config.reading import nearest


@dataclass(frozen=True)
class Option:
    """How a setting is given on the command line, where its name and type do not say it all.

    Attributes
    ----------
    names
        Further names, as they are typed: "-o", "--patch-size".
    metavar
        What stands for the value in the help: "PX".
    off
        Flag that says no, as it is typed: "--resume". A flag that is on by default has its own.
    """

    names: tuple[str, ...] = ()
    metavar: str | None = None
    off: str | None = None


@dataclass(frozen=True, eq=False)
class Chosen:
    """Marks a text as one of the names of a registry: `Annotated[str, Chosen(SEGMENTERS)]`.

    Attributes
    ----------
    choices
        The registry; what is added to it later can be chosen, too.
    also
        Further names that mean something.
    but
        Names of the registry that cannot be chosen.
    """

    choices: Choices
    also: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All that can be chosen now."""
        return (*self.also, *(name for name in self.choices if name not in self.but))

    def check(self, name: str) -> str:
        """The name itself; ValueError that says what is known, and what may have been meant."""
        if name not in self.names:
            known = ", ".join(self.names)
            raise ValueError(f"{name!r} is none of {known}{nearest(name, self.names)}")
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


def _device(name: str) -> str:
    if not DEVICE.fullmatch(name):
        raise ValueError(f"{name!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
    return name


Device = Annotated[str, AfterValidator(_device)]
"""Where to compute; whether there is such a device shows when it is used."""
