"""Numbers and sentences of the report."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from tests.builders import store_meta
from wsi_norm.report import SlideResult, Status, words
from wsi_norm.slide import MppSource
from wsi_norm.store import SlideMeta


def test_every_source_of_mpp_has_a_word() -> None:
    stored = get_args(SlideMeta.model_fields["mpp_source"].annotation)
    assert words.MPP_SOURCES.keys() == set(stored) == set(get_args(MppSource))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.00 s"),
        (0.025, "0.03 s"),
        (0.996, "1.0 s"),
        (16.89, "16.9 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (252, "4 min 12 s"),
        (3599.6, "1 h 00 min"),
        (4000, "1 h 07 min"),
        (11_100, "3 h 05 min"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert words.duration(seconds) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 kB"), (144, "0.144 kB"), (1_938_955, "1.94 MB"), (999_600_000, "1 GB"), (5e12, "5 TB")],
)
def test_size(number: float, expected: str) -> None:
    assert words.size(number) == expected


def test_share_and_count() -> None:
    assert [words.share(x) for x in (0, 0.004, 0.0994, 0.38, 1)] == [
        "0 %",
        "0.4 %",
        "9.9 %",
        "38 %",
        "100 %",
    ]
    assert words.count(1_234_567) == "1,234,567"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "\u2013"),
        ([], "\u2013"),
        (True, "yes"),
        (False, "no"),
        (["rgb", "lab"], "rgb, lab"),
        (0, "0"),
        (0.5, "0.5"),
    ],
)
def test_setting(value: Any, expected: str) -> None:
    assert words.setting(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it is empty; copy it (a: b; c: d)", ("it is empty", "copy it (a: b; c: d)")),
        ("differs (a: 1; b: 3); use --overwrite", ("differs (a: 1; b: 3)", "use --overwrite")),
        ("starts with b')'; copy it again", ("starts with b')'", "copy it again")),
        ("just so", ("just so", "")),
        ("never closed (a; b", ("never closed (a; b", "")),
    ],
)
def test_the_cause_ends_at_the_first_semicolon_outside_brackets(
    text: str, expected: tuple[str, str]
) -> None:
    assert words.split_cause(text) == expected


def test_the_message_is_the_error_then_the_warnings_then_the_status(damaged: SlideResult) -> None:
    assert words.message(damaged) == "2 of 50 tiles cannot be read"
    assert words.message(replace(damaged, error="/o/c.zarr: other settings")) == "other settings"
    assert words.message(replace(damaged, error=None, warnings=("a", "b"))) == "a; b"
    assert words.message(replace(damaged, error=None)).startswith("finished, but")


def test_damage_has_a_remedy_and_errors_bring_their_own(damaged: SlideResult) -> None:
    assert "--overwrite" in words.remedy(damaged)
    assert "could be read" in words.remedy(replace(damaged, counts={"tiles": 50}))
    assert words.remedy(replace(damaged, status="failed")) == ""


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({}, "not stated"),
        ({"training": ""}, "not stated"),
        ({"training": "none: a template"}, "no"),
        ({"training": "5 epochs"}, "yes"),
    ],
)
def test_the_provenance_says_whether_it_was_trained(
    provenance: dict[str, str], expected: str
) -> None:
    assert words.trained(provenance) == expected


def test_every_status_has_its_words() -> None:
    assert set(words.STATUSES) == set(get_args(Status))


@pytest.mark.parametrize(
    ("reduced", "said"), [(None, "0.5"), (1, "0.5"), (2, "0.5, JPEG decoded at 1/2")]
)
def test_tiles_of_reduced_jpeg(reduced: int | None, said: str) -> None:
    assert words.tiles(store_meta(tiling={"reduced": reduced}).tiling) == said
