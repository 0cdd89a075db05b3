"""Fixtures of labelled cohorts."""

from tests.cohorts import _networks, cohort, settings

__all__ = ["_networks", "cohort", "settings"]
