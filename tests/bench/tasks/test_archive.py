"""Series in the package aeon: found where they lie, without an import of it."""

import importlib.util
import sys

import pytest
from vfrnn_bench.tasks.archive import archive_folder
from vfrnn_bench.tasks.benchmarks import BENCHMARKS

from vfrnn.tasks.reading import read_series

ARCHIVED = [benchmark.archive for benchmark in BENCHMARKS.values() if benchmark.archive]


def test_a_data_set_is_found_in_the_package_which_is_not_imported(tmp_path, monkeypatch):
    folder = tmp_path / "aeon" / "datasets" / "data" / "Leaves"
    folder.mkdir(parents=True)
    (tmp_path / "aeon" / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.delitem(sys.modules, "aeon", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert archive_folder("Leaves") == folder
    with pytest.raises(RuntimeError, match=r"aeon must have the data set Trees in .*, got none"):
        archive_folder("Trees")


def test_how_to_get_aeon_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"Leaves comes with aeon: pip install 'vfrnn-kernels\[series\]'"):
        archive_folder("Leaves")


@pytest.mark.parametrize("name", ARCHIVED)
def test_the_benchmarks_have_their_data_in_aeon(name):
    if importlib.util.find_spec("aeon") is None:
        pytest.skip("aeon is not installed")
    source = read_series(archive_folder(name))
    assert source.tests > 50
    assert len(source.collection.values) - source.tests >= 100
