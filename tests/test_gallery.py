"""benchmarks.gallery: what counts as a wrong colour, and one drawn subject from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gallery import __main__ as command
from benchmarks.gallery import faults
from benchmarks.gallery.page import BEGIN, END, best, replace_table, table
from benchmarks.gallery.subjects import METHODS, SUBJECTS, Subject
from benchmarks.gallery.work import Result, Row, work
from wsi_norm.normalizers.classic import Unchanged

WHITE = (0.95, 0.95, 0.95)


def pixel(*rgb: int) -> faults.UInt8:
    return np.array([[rgb]], np.uint8)


@pytest.mark.parametrize(
    ("rgb", "greenish", "bluish", "crushed"),
    [
        ((240, 240, 240), False, False, False),  # glass
        ((230, 120, 170), False, False, False),  # eosin
        ((90, 70, 140), False, False, False),  # haematoxylin: more green absorbed than red
        ((100, 109, 90), True, False, False),
        ((100, 108, 90), False, False, False),  # 8 above red is not more than 8
        ((100, 120, 130), False, False, False),  # green, but blue leads, by less than 40 on red
        ((100, 111, 141), True, False, False),  # cyan
        ((100, 110, 141), False, True, False),
        ((100, 100, 180), False, False, False),  # no greener than red
        ((100, 101, 140), False, False, False),  # 40 above red is not more than 40
        ((250, 255, 5), False, False, False),
        ((15, 15, 15), False, False, True),
        ((15, 16, 15), False, False, False),
    ],
)
def test_colours(rgb: tuple[int, int, int], greenish: bool, bluish: bool, crushed: bool) -> None:
    found = [is_wrong(pixel(*rgb)).item() for is_wrong in faults.COLOURS.values()]
    assert found == [greenish, bluish, crushed]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((200, 100, 150), (255, 120, 160), True),
        ((255, 100, 150), (255, 120, 160), False),  # it was there before
        ((255, 100, 150), (255, 255, 160), True),  # of another channel
        ((231, 231, 231), (255, 255, 255), False),  # glass: 0.95 of 0.95 * 255 is 230.1
        ((231, 230, 231), (255, 255, 255), True),
        ((200, 100, 150), (254, 254, 254), False),
    ],
)
def test_clipped(before: tuple[int, int, int], after: tuple[int, int, int], expected: bool) -> None:
    assert faults.clipped(pixel(*before), pixel(*after), WHITE).item() is expected


def test_greyed_is_colour_that_was_there() -> None:
    assert faults.greyed(pixel(140, 100, 120), pixel(100, 81, 90)).item()
    assert not faults.greyed(pixel(140, 100, 120), pixel(100, 80, 90)).item()
    assert not faults.greyed(pixel(139, 100, 120), pixel(100, 99, 98)).item()


def test_only_what_the_input_had_not_counts() -> None:
    green, pink, black = (60, 120, 60), (230, 120, 170), (5, 5, 5)
    before = np.array([[green, pink, pink, black]], np.uint8)
    after = np.array([[green, green, black, black]], np.uint8)
    counts = faults.made(before, after, WHITE)
    assert counts == {"greenish": 1, "bluish": 0, "crushed": 1, "clipped": 0, "greyed": 1}
    assert not any(faults.made(before, before, WHITE).values())


def row(**greenish: int) -> Row:
    counts = dict.fromkeys((*faults.FAULTS, "greyed"), 0)
    nothing = np.zeros((1, 1, 3), np.uint8)
    results = {name: Result(nothing, counts | {"greenish": n}) for name, n in greenish.items()}
    return Row(Subject("a", "a.png"), nothing, 10_000, results)


def test_the_fewest_faults_within_half_a_thousandth_are_best() -> None:
    shown = row(packaged=26, macenko=20, reinhard=25)
    assert best(shown) == ["macenko", "reinhard"]
    text = table([shown])
    assert "| | greenish | 26 (2.6) | 20 (2.0) | 25 (2.5) | |" in text
    assert "- a: 2.6 per thousand, `macenko` 2.0, `reinhard` 2.5" in text


def test_a_new_table_takes_the_place_of_the_old_one() -> None:
    page = f"head\n{BEGIN}\nold\n{END}\ntail\n"
    assert replace_table(page, "new") == f"head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"
    with pytest.raises(ValueError, match="lacks the marks"):
        replace_table("head", "new")


def test_subjects_have_names_of_their_own() -> None:
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)


def test_doing_nothing_has_no_faults(slide_path: Path) -> None:
    shown = work(Subject("drawn", "", (600, 600), edge=64), slide_path, {"none": Unchanged()})
    assert shown.before.shape == (64, 64, 3)
    assert shown.pixels % 256**2 == 0
    assert not any(shown.results["none"].counts.values())
    assert (shown.results["none"].picture == shown.before).all()


def test_the_command_draws_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One drawn subject; images that are not there are left out."""
    (tmp_path / "images").mkdir()
    page = tmp_path / "gallery.md"
    page.write_text(f"{BEGIN}{END}")
    output = tmp_path / "out"
    places = ["--data", str(tmp_path), "--output", str(output), "--docs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gallery", *places, "--only", "blood"])
    command.main()
    assert "| blood, drawn |" in page.read_text()
    assert "blood in vessels" not in page.read_text()
    with Image.open(tmp_path / "images" / "gallery_drawn.jpg") as strip:
        assert strip.size == (144 * (1 + len(METHODS)), 144)
    index = (output / "index.html").read_text()
    pictures = sorted(path.name for path in (output / "pictures").glob("*.png"))
    assert pictures == sorted(f"00_{name}.png" for name in ("before", *METHODS))
    assert all(f'src="pictures/{name}"' in index for name in pictures)
