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


def test_everything_public_has_an_example():
    public = [getattr(package, name) for package in (vfrnn, vfrnn_kernels) for name in package.__all__]
    of_meshes = [getattr(vfrnn.LatentMesh, name) for name in ("complete", "random", "from_edges", "grid", "dense")]
    functions = [found for found in public + of_meshes if callable(found)]
    assert len(functions) > 30
    assert [found for found in functions if ">>> " not in found.__doc__] == []
