"""Paths stay paths, URLs become UPaths, both survive a pickle."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from upath import UPath

from wsi_norm.location import location


@pytest.mark.parametrize("name", ["a/b.svs", "/a b/ü.svs", "C:/x.svs", Path("a/b.svs")])
def test_paths(name: str | Path) -> None:
    assert location(name) == Path(name)
    assert isinstance(location(name), Path)


@pytest.mark.parametrize("url", ["memory://bucket/a.svs", "file:///a/b.svs"])
def test_urls(url: str) -> None:
    place = location(url)
    assert isinstance(place, UPath)
    assert not isinstance(place, Path)
    assert str(place) == url
    assert location(place) == place
    assert pickle.loads(pickle.dumps(place)) == place
