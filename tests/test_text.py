"""Foreign text as one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_norm.errors import ConfigError
from wsi_norm.text import shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Präparat 7 漢字 😀 a\u3000b", "Präparat 7 漢字 😀 a\u3000b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x9b0m\x7f", r"\x1b[31m\x9b0m\x7f"),
        ("gpj\u202e.svs", r"gpj\u202e.svs"),
        ("\u2028\udcff", r"\u2028\udcff"),
    ],
)
def test_what_steers_is_escaped_and_what_is_read_stays(text: str, line: str) -> None:
    assert shown(text) == line
    assert str(ConfigError(text)) == line


@given(st.text())
def test_any_text_is_one_line_and_stays_so(text: str) -> None:
    line = shown(text)
    assert len(line.splitlines()) <= 1
    assert shown(line) == line
