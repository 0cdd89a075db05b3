"""The benchmark's modules still fit the package: nothing they import has gone."""

import importlib
import pkgutil

import pytest

import benchmarks


@pytest.mark.parametrize(
    "name",
    [
        module.name
        for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
        if not module.name.endswith("__main__")
    ],
)
def test_it_imports(name: str) -> None:
    importlib.import_module(name)
