"""What waits for an import is done once it is there, and leaves the import as it was."""

import importlib
import sys

import pytest

from vfrnn_kernels.deferred import when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "imported_late"
    sys.modules.pop("imported_late", None)


def test_before_and_after(module):
    seen, finders = [], list(sys.meta_path)
    for number in range(2):
        when_imported(module, lambda number=number: seen.append((number, sys.modules[module].value)))
    assert seen == []
    late = importlib.import_module(module)
    assert sorted(seen) == [(0, 3), (1, 3)]
    assert type(late.__spec__.loader).__name__ == type(late.__loader__).__name__ == "SourceFileLoader"
    assert sys.meta_path == finders
    importlib.reload(late)
    when_imported(module, lambda: seen.append("at once"))
    assert seen[2:] == ["at once"]


def test_a_module_that_is_not_there():
    when_imported("there_is_no_such_module", lambda: pytest.fail("called"))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("there_is_no_such_module")
