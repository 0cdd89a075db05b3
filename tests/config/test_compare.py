"""Settings beside those of before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_norm.config.compare import differences

BEFORE = {
    "output": "a",
    "recipe": {"device": "cpu", "devices": 1, "epochs": 2},
    "software": {"numpy": "2.0", "torch": "2.6"},
    "classes": ["x", "y"],
    "views": {},
}


def test_what_differs_is_named_and_sorted() -> None:
    now = {
        "seed": 3,
        "output": "a",
        "recipe": {"device": "cuda", "epochs": 2},
        "software": {"numpy": "2.0", "torch": "2.7"},
        "classes": ["y", "x"],
        "views": {"in": "center"},
    }
    assert differences(BEFORE, now) == [
        "classes: ['x', 'y'] != ['y', 'x']",
        "recipe.device: cpu != cuda",
        "recipe.devices: 1 != None",
        "seed: None != 3",
        "software.torch: 2.6 != 2.7",
        "views.in: None != center",
    ]


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ((), ["output", "recipe.device", "recipe.devices", "software.torch"]),
        (("output", "recipe"), ["software.torch"]),
        (("recipe.device",), ["output", "recipe.devices", "software.torch"]),
        (("out", "software.t", "device"), None),
        (("software", "output", "recipe.device", "recipe.devices"), []),
    ],
)
def test_what_does_not_count(ignore: tuple[str, ...], left: list[str] | None) -> None:
    now = BEFORE | {"output": "b", "recipe": {"epochs": 2}, "software": {"numpy": "2.0"}}
    found = [line.split(":")[0] for line in differences(BEFORE, now, ignore)]
    assert found == (
        ["output", "recipe.device", "recipe.devices", "software.torch"] if left is None else left
    )


def test_a_setting_that_became_a_group() -> None:
    assert differences({"validation": 0.2}, {"validation": {"split": ["a"]}}) == [
        "validation: 0.2 != None",
        "validation.split: None != ['a']",
    ]


names = st.sampled_from(["a", "b", "c"])
settings = st.recursive(
    st.dictionaries(names, st.integers(0, 2)), lambda inner: st.dictionaries(names, inner)
)


@given(settings, settings)
def test_nothing_differs_from_itself_and_no_order_counts(one: Any, other: Any) -> None:
    assert differences(one, dict(reversed(one.items()))) == []
    assert len(differences(one, other)) == len(differences(other, one))
