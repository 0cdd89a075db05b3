"""The index of a cohort: a CSV or a folder, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import refusal
from wsi_norm.cohort.index import in_order, listed, read_folder, read_index, under
from wsi_norm.config.train import DataConfig
from wsi_norm.tables import Row


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "index.csv"
    path.write_text('image,label,note\na.png,0,"x, y"\n\nb.png, 10 ,\n', encoding="utf-8")
    return path


def test_rows_and_where_they_stand(table: Path, tmp_path: Path) -> None:
    read = read_index(tmp_path, DataConfig(index=Path("index.csv")))
    assert (read.path, read.base) == (table, tmp_path)
    assert read.columns == ["image", "label", "note"]
    assert read.rows == [
        Row("line 2", {"image": "a.png", "label": "0", "note": "x, y"}),
        Row("line 4", {"image": "b.png", "label": "10", "note": ""}),
    ]
    assert read.column("note", "columns.group") == "note"
    assert read.cell(read.rows[0], "note") == "x, y"
    assert "line 4: 'note' is empty" in refusal(read.cell, read.rows[1], "note")
    assert "no column 'lable' (data.where); did you" in refusal(read.column, "lable", "where")


def test_a_filter(table: Path) -> None:
    read = read_index(None, DataConfig(index=table))
    assert read.matching({"label": ["10", "3"]}, "test") == [read.rows[1]]
    assert read.matching({"label": ["0", "10"], "image": ["a.png"]}, "test") == [read.rows[0]]
    assert refusal(read.matching, {"label": ["3"]}, "test") == (
        f"{table}: data.test (label 3) matches no row; 'label' holds 0, 10"
    )


def test_a_csv_that_is_none(table: Path) -> None:
    """The rest is said in the tests of tables."""
    table.write_bytes(b"")
    message = refusal(read_index, None, DataConfig(index=table))
    assert message == (
        f"{table}: an empty file; expected a line of column names, then one per image"
    )


def test_a_folder_as_an_index(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a/deep/1.tif", "a/._1.tif", "a/notes.txt"):
        (tmp_path / "cohort" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cohort" / name).touch()
    read = read_folder(tmp_path, DataConfig(folder=Path("cohort")))
    assert read.columns == ("image", "label", "group")
    assert [tuple(row.fields.values()) for row in read.rows] == [
        ("a/deep/1.tif", "a", "1"),
        ("b/2.PNG", "b", "2"),
    ]


def test_hidden_folders_and_files_are_no_classes(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/1.png", "a/.1.png", ".git/x/1.png")
    for name in ("a/1.png", "b/2.png", *hidden):
        (tmp_path / "cohort" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cohort" / name).touch()
    read = read_folder(tmp_path, DataConfig(folder=Path("cohort")))
    assert [row.fields["image"] for row in read.rows] == ["a/1.png", "b/2.png"]
    # What lies above the cohort's folder does not count.
    above = tmp_path / ".hidden"
    (tmp_path / "cohort").rename(above)
    assert len(read_folder(tmp_path, DataConfig(folder=above)).rows) == 2


def test_order_of_names() -> None:
    assert in_order({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert in_order({"10", "9", "b"}) == ["10", "9", "b"]


def test_long_lists_end() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(20)], most=3) == "0, 1, 2 ... (20)"


def test_where_paths_start() -> None:
    assert under(None, Path("a")) == Path("a")
    assert under(Path("root"), Path("a")) == Path("root/a")
    assert under(Path("root"), Path("/a")) == Path("/a")
