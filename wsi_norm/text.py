"""Foreign text (names of files, cells, provenance) where people read it: one line, and no more."""

from __future__ import annotations

import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's controls, formats (which turn the direction of text), half characters, line breaks."""


def shown(text: str) -> str:
    r"""Text as one line that is what it looks like: what steers terminals is escaped, as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSEEN else c
        for c in text
    )
