"""Fixtures of labelled cohorts."""

from tests.cohorts import cohort, settings

__all__ = ["cohort", "settings"]
