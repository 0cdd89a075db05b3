"""Tables that people write: what is read, and the one line for what is refused."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_norm.errors import ConfigError
from wsi_norm.tables import Row, guarded, misspelt, read_table

EXPECTED = "names of columns, then a row each"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def refusal(path: Path) -> str:
    """The one line that a user reads."""
    with pytest.raises(ConfigError) as caught:
        read_table(path, EXPECTED)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_rows_and_where_they_stand(path: Path) -> None:
    path.write_text('image, label ,note\na.png,0,"x, y"\n\n , ,\nb.png, 10 ,\n', encoding="utf-8")
    table = read_table(path, EXPECTED)
    assert (table.path, table.columns) == (path, ["image", "label", "note"])
    assert table.rows == [
        Row("line 2", {"image": "a.png", "label": "0", "note": "x, y"}),
        Row("line 5", {"image": "b.png", "label": "10", "note": ""}),
    ]


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_spreadsheets_bom_and_newlines(path: Path, start: bytes, newline: bytes) -> None:
    path.write_bytes(start + newline.join([b"a,b", '"ä, [2]", '.encode(), b"c,d", b""]))
    table = read_table(path, EXPECTED)
    assert table.columns == ["a", "b"]
    assert [row.fields for row in table.rows] == [{"a": "ä, [2]", "b": ""}, {"a": "c", "b": "d"}]


def test_a_row_of_several_lines_is_where_it_begins(path: Path) -> None:
    path.write_text('a,b\n"H\n&E",1\n\nx,2\n', encoding="utf-8")
    assert read_table(path, EXPECTED).rows == [
        Row("line 2", {"a": "H\n&E", "b": "1"}),
        Row("line 5", {"a": "x", "b": "2"}),
    ]


def test_columns_without_a_name(path: Path) -> None:
    """Data frames write such a one for their index; it is nobody's."""
    path.write_text(",a,\n0,x,y\n", encoding="utf-8")
    assert read_table(path, EXPECTED).rows[0].fields["a"] == "x"


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("wsi;mpp\ns.tif;0,5\n", {"wsi": "s.tif", "mpp": "0,5"}),
        ("wsi\tmpp\ns.tif\t0.5\n", {"wsi": "s.tif", "mpp": "0.5"}),
        ("sep=,\nwsi,mpp\ns.tif,0.5\n", {"wsi": "s.tif", "mpp": "0.5"}),
        ('"sep=;"\r\nwsi;mpp\r\ns.tif;0,5\r\n', {"wsi": "s.tif", "mpp": "0,5"}),
        ("SEP=\t\nwsi\tmpp\ns.tif\t0.5\n", {"wsi": "s.tif", "mpp": "0.5"}),
        ("sep=;\nwsi,mpp;note\ns.tif;x\n", {"wsi,mpp": "s.tif", "note": "x"}),
        ("wsi,mpp;um\ns;1.tif,0.5\n", {"wsi": "s;1.tif", "mpp;um": "0.5"}),
        ("wsi\ns;1.tif\n", {"wsi": "s;1.tif"}),
        ("wsi;note\ns.tif;a, b\n", {"wsi": "s.tif", "note": "a, b"}),
        ('wsi;note\ns.tif;"a; b"\n', {"wsi": "s.tif", "note": "a; b"}),
    ],
)
def test_separators(path: Path, content: str, fields: dict[str, str]) -> None:
    path.write_bytes(content.encode())
    (row,) = read_table(path, EXPECTED).rows
    assert row.fields == fields


def test_comments_do_not_count_but_as_lines(path: Path) -> None:
    path.write_text(
        '# from the "archive", exported\n\n#\na,b\n#x,1\ny,"two\n# lines"\n# it\'s 5" wide\nz,#2\n',
        encoding="utf-8",
    )
    table = read_table(path, EXPECTED)
    assert table.columns == ["a", "b"]
    assert table.rows == [
        Row("line 6", {"a": "y", "b": "two\n# lines"}),
        Row("line 9", {"a": "z", "b": "#2"}),
    ]


def test_a_name_with_a_hash_can_be_quoted(path: Path) -> None:
    path.write_text('a\n"#1.svs"\n', encoding="utf-8")
    assert read_table(path, EXPECTED).rows == [Row("line 2", {"a": "#1.svs"})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", f"an empty file; expected {EXPECTED}"),
        (b"\n,,\n", f"an empty file; expected {EXPECTED}"),
        (b"# a comment\n#\n", f"an empty file; expected {EXPECTED}"),
        (b"sep=;\n", f"an empty file; expected {EXPECTED}"),
        (b"image;label\n", f"no rows below its first line; expected {EXPECTED}"),
        (
            b"image;label\na;0;1\n",
            "line 2 has 3 fields but line 1 names 2 columns; quote fields that hold semicolons",
        ),
        (b"sep=|\na|b\nc\n", "line 3 has 1 fields but line 2 names 2 columns; quote fields that h"),
        (b"image,label\n", f"no rows below its first line; expected {EXPECTED}"),
        (b"image,label,label\na,0,0\n", "line 1 names 'label' twice; it holds the columns' names"),
        (
            b"image,label,case,center\na.png,0,a,0\nb,c.png,0,b,0\n",
            "line 3 has 5 fields but line 1 names 4 columns; quote fields that hold commas",
        ),
        (b"\nimage,label\na.png\n", "line 3 has 1 fields but line 2 names 2 columns"),
        ("image,label\nä.png,0\n".encode("latin-1"), "not UTF-8 (invalid continuation byte); "),
        (b'image\n"a.png\nb.png\nc.png"\n', "line 2: its quoted field runs on to line 4"),
        (b'image,note\na,"x\nb,y\nc,z"\n', "line 2: its quoted field runs on to line 4"),
        (b'image,label,note\na,"0,x\nb,0",y\n', "line 2: its quoted field runs on to line 3"),
        (b'image,note\n"a,x\nb",y\n', "line 2: its quoted field runs on to line 3"),
        (b"image,label\na.png,0\nb\0.png,0\n", "line 3 holds a byte of 0; save it as CSV UTF-8"),
        (b"image," * 30_000 + b"label\n", "line 1 is too long to hold names of columns"),
        (b"image\n" + b"a" * 200_000, "line 2: field larger than field limit (131072)"),
        (b'image,label\n"a.png,0\n', "line 2: unexpected end of data; close its quotes"),
        (b'image,label\n"a"b,0\n', "line 2: ',' expected after '\"'; close its quotes"),
    ],
)
def test_a_table_that_is_none(path: Path, content: bytes, expected: str) -> None:
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: {expected}")


def test_no_table(path: Path) -> None:
    assert refusal(path) == f"{path}: cannot read the table: No such file or directory"
    assert refusal(path.parent) == f"{path.parent}: cannot read the table: Is a directory"


KNOWN = ("mpp", "mask_path", "roi_path", "name")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mmp", "mpp"),
        ("mp", "mpp"),
        ("mppp", "mpp"),
        ("pmp", "mpp"),
        ("mpp_um", "mpp"),
        ("mask", "mask_path"),
        ("mask-path", "mask_path"),
        ("maskpath", "mask_path"),
        ("roi", "roi_path"),
        ("nmae", "name"),
        ("mpp", None),
        ("", None),
        ("m", None),
        ("na", None),
        ("stain", None),
        ("filename", None),
        ("case", None),
        ("ppm", None),
        ("report_path", None),
        ("slide_path", None),
    ],
)
def test_names_that_are_near(name: str, meant: str | None) -> None:
    assert misspelt(name, KNOWN) == meant


@given(st.sampled_from(KNOWN), st.integers(0, 8), st.sampled_from("xyz"))
def test_one_slip_is_always_found(name: str, place: int, letter: str) -> None:
    place %= len(name)
    before, at, after = name[:place], name[place], name[place + 1 :]
    swapped = before + after[:1] + at + after[1:]
    for slip in (before + after, before + letter + after, before + letter + at + after, swapped):
        assert slip == name or misspelt(slip, KNOWN) == name


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "'=1", "''=1", "\uff1d1"]


@pytest.mark.parametrize("text", [*FORMULAS, "a=b", "'a", "a-b", "'", ""])
def test_no_spreadsheet_works_out_what_is_guarded_and_we_read_it_back(
    path: Path, text: str
) -> None:
    cell = guarded(text)
    assert cell.lstrip()[:1] not in tuple("=+-@\uff1d")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["name", "x"], [cell, "1"]])
    assert read_table(path, EXPECTED).rows[0].fields["name"] == text


@given(st.text(min_size=1))
def test_what_is_guarded_is_one_line(text: str) -> None:
    cell = guarded(text)
    assert len(cell.splitlines()) == 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in cell)


def test_a_pipe_is_no_table(path: Path) -> None:
    os.mkfifo(path)
    assert "a pipe or a device" in refusal(path)
