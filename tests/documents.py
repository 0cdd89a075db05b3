"""Snippets of the documentation, to be run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def snippet(page: str, heading: str) -> str:
    """The first block of Python below a heading, and before the next one."""
    text = (DOCS / page).read_text(encoding="utf-8")
    below = re.split(rf"^##+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    (section, *_) = re.split(r"^##+ ", below, maxsplit=1, flags=re.MULTILINE)
    found = re.search(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, f"{page}: no Python below {heading!r}"
    return found[1]
