"""Is the net whole? Each mutant of our own code has to be caught by the test named for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.mutations import VARIABLE

ROOT = Path(__file__).parent.parent.parent
PROMISES = "tests/faults/test_promises.py"
CAUGHT_BY = {
    "shard_skipped": "test_every_tile_of_the_plan_is_written",
    "shard_written_twice": "test_every_tile_is_of_its_own_place",
    "read_error_swallowed": "test_a_tile_that_cannot_be_read_is_said",
    "flag_dropped": "test_flags_stand_in_the_store",
    "fingerprint_unchecked": "test_a_slide_that_is_replaced_on_the_way_is_not_mixed",
}
"""Mutants of `mutations`, and the test of PROMISES that fails of each."""

PASSED, FAILED = 0, 1
"""Exit statuses of pytest."""


def all_caught() -> bool:
    """Whether each test passes as the code is, and fails of its mutant; a line for each."""
    good = True
    for mutation, test in CAUGHT_BY.items():
        statuses = of_test(test, ""), of_test(test, mutation)
        caught = statuses == (PASSED, FAILED)
        print(f"mutant {mutation}: {'caught' if caught else f'NOT caught {statuses}'} by {test}")
        good &= caught
    return good


def of_test(test: str, mutation: str) -> int:
    """Exit status of pytest on one test, with the code as it is or mutated."""
    plugin = ("-p", "tests.faults.mutations", "-n", "0", "-q", "-x")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, f"{PROMISES}::{test}"],
        cwd=ROOT,
        env={**os.environ, VARIABLE: mutation},
        stdout=subprocess.DEVNULL,
    ).returncode
