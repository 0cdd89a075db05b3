"""Other people's programs: they run in an environment of their own, which `make interop` builds.

Their pins need not agree with ours, nor with each other's. WSI_NORM_INTEROP names the Python
interpreters that have them, separated as in PATH.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SECONDS = 120


@pytest.fixture(scope="session")
def other() -> Callable[..., Any]:
    """`other(code, *arguments, needs="package")`: what a snippet prints last, as JSON, read.

    In the snippet, `arguments` is a list of texts, and `json` and `sys` are imported. Skips where
    there is no such environment, or it lacks the package.
    """
    named = os.environ.get("WSI_NORM_INTEROP")
    if named is None:
        pytest.skip("no environment of other programs: make interop, or set WSI_NORM_INTEROP")
    pythons = named.split(os.pathsep)
    for python in pythons:
        if not Path(python).is_file():
            pytest.fail(f"WSI_NORM_INTEROP: {python} is no Python interpreter")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV_", "PYTEST"))
    }
    environment |= {"QT_QPA_PLATFORM": "offscreen", "NO_COLOR": "1"}

    def run(python: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
        )

    @cache
    def having(package: str) -> str:
        look = f"import importlib.util as u; print(u.find_spec({package!r}) is not None)"
        for python in pythons:
            if run(python, look).stdout.strip() == "True":
                return python
        pytest.skip(f"{package} is not installed beside {named}")

    def ask(code: str, *arguments: object, needs: str | None = None) -> Any:
        python = pythons[0] if needs is None else having(needs)
        whole = f"import json, sys\narguments = sys.argv[1:]\n{code}"
        done = run(python, whole, *map(str, arguments))
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return ask
