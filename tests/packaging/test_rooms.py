"""Every module has a test file of its name, in the room of its package."""

from pathlib import Path

import pytest

from tests.packaging.import_graph import modules

ROOT = Path(__file__).parents[2]
PACKAGES = {"vfrnn_kernels": ROOT / "vfrnn_kernels", "vfrnn": ROOT / "python/vfrnn", "vfrnn_bench": ROOT / "bench"}
#: Folders of tests/ by package. What lies in a folder of a package (an op, the command line) may also have the test
#: file of that folder: tests/ops/test_recurrence.py is about all of vfrnn_kernels/recurrence/.
ROOMS = {
    "vfrnn_kernels": ("ops", "backends"),
    "vfrnn": ("modules", "cli", "tasks"),
    "vfrnn_bench": ("bench",),
}
#: Modules without a test file, and why. Nor has a `__main__`, one call that the tests of its package make, nor a test.
EXCEPTIONS = {
    "vfrnn.tasks": "the table of tasks, each of which has its test",
}


def candidates_for(module: str) -> set[str]:
    """The test files of tests/ that may be about a module."""
    package, *parts = module.split(".")
    folders = [] if module.startswith("vfrnn.tasks.") else parts[:-1]
    return {f"{room}/test_{name}.py" for room in ROOMS[package] for name in (*folders, parts[-1])}


MODULES = [
    name
    for name in modules(PACKAGES)
    if "." in name and name not in EXCEPTIONS and not name.rpartition(".")[2].startswith(("test_", "__main__"))
]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_test_file(module):
    candidates = candidates_for(module)
    assert [file for file in candidates if (ROOT / "tests" / file).exists()], f"none of {', '.join(sorted(candidates))}"


@pytest.mark.parametrize("module", EXCEPTIONS)
def test_no_exception_is_out_of_date(module):
    assert module in modules(PACKAGES)


def test_every_test_file_is_short_and_in_a_room():
    rooms = {room for of_package in ROOMS.values() for room in of_package} | {"packaging"}
    for path in (ROOT / "tests").rglob("*.py"):
        inside = path.relative_to(ROOT / "tests").parts
        assert len(inside) == 1 or inside[0] in rooms, path
        assert len(path.read_text().splitlines()) < 400, path
