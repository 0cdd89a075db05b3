"""The other end of `machine.child`: call one function, leave its answer as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main(function: str, answer: str, arguments: str) -> None:
    module, name = function.split(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
