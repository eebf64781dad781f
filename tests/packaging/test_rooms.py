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
    "vfrnn_bench": ("bench", "cli"),
}
#: Modules without a test file, and why. Nor has a `__main__`, one call that the tests of its package make, nor a test.
EXCEPTIONS = {
    "vfrnn.tasks": "the table of tasks, each of which has its test",
    "vfrnn_bench.cli": "an empty folder, of the commands that have their tests",
    "vfrnn_bench.gpu": "an empty folder, of what needs a GPU",
    "vfrnn_bench.tasks": "an empty folder, of the learning benchmarks",
}


def candidates_for(module: str) -> set[str]:
    """The names of the test files that may be about a module."""
    parts = module.split(".")[1:]
    folders = [] if module.startswith(("vfrnn.tasks.", "vfrnn_bench.")) else parts[:-1]
    return {f"test_{name}.py" for name in (*folders, parts[-1])}


def files_for(module: str) -> set[str]:
    """The names of the test files in the rooms of its package."""
    return {path.name for room in ROOMS[module.split(".")[0]] for path in (ROOT / "tests" / room).rglob("test_*.py")}


MODULES = [
    name
    for name in modules(PACKAGES)
    if "." in name and name not in EXCEPTIONS and not name.rpartition(".")[2].startswith(("test_", "__main__"))
]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_test_file(module):
    assert candidates_for(module) & files_for(module), f"none of {', '.join(sorted(candidates_for(module)))}"


@pytest.mark.parametrize("module", EXCEPTIONS)
def test_no_exception_is_out_of_date(module):
    assert module in modules(PACKAGES)


def test_every_test_file_is_short_and_in_a_room():
    rooms = {room for of_package in ROOMS.values() for room in of_package} | {"packaging", "gpu_simulator", "fuzz"}
    for path in (ROOT / "tests").rglob("*.py"):
        inside = path.relative_to(ROOT / "tests").parts
        assert len(inside) == 1 or inside[0] in rooms, path
        assert len(path.read_text().splitlines()) < 400, path
