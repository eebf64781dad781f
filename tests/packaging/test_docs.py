"""Every example of a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import vfrnn
import vfrnn_kernels

MODULES = [
    info.name
    for package in (vfrnn_kernels, vfrnn)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.endswith(("__main__", "_host")) and "libvfrnn" not in info.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch, "vfrnn": vfrnn})
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(bool(test.examples) for module in modules for test in finder.find(module)) >= 10
