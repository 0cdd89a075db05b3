"""Other people's programs: they run in an environment of their own, which `make interop` builds.

Their pins need not agree with ours. WSI_NORM_INTEROP names the Python interpreter that has them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
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
    python = os.environ.get("WSI_NORM_INTEROP")
    if python is None:
        pytest.skip("no environment of other programs: make interop, or set WSI_NORM_INTEROP")
    if not Path(python).is_file():
        pytest.fail(f"WSI_NORM_INTEROP={python} is no Python interpreter")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV_", "PYTEST"))
    }
    environment |= {"QT_QPA_PLATFORM": "offscreen", "NO_COLOR": "1"}

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
        )

    def ask(code: str, *arguments: object, needs: str | None = None) -> Any:
        if needs is not None:
            found = run(f"import importlib.util as u; print(u.find_spec({needs!r}) is not None)")
            if found.stdout.strip() != "True":
                pytest.skip(f"{needs} is not installed beside {python}")
        done = run(f"import json, sys\narguments = sys.argv[1:]\n{code}", *map(str, arguments))
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return ask
