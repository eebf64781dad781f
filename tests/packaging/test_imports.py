"""Imports go one way, in no circle, and references share nothing with what they judge."""

import functools
import sys
from pathlib import Path

import pytest

from tests.packaging.import_graph import (
    Import,
    borrowed_references,
    circles,
    imports,
    impure_references,
    into,
    modules,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "vfrnn_kernels": ROOT / "vfrnn_kernels",
    "vfrnn": ROOT / "python/vfrnn",
    "vfrnn_bench": ROOT / "bench",
    "tools": ROOT / "tools",
}
KNOWN = modules(PACKAGES)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Groups of entry points: what names them to whom.
ENTRY_POINTS = {"console_scripts": PROJECT["scripts"], **PROJECT.get("entry-points", {})}


@functools.cache
def project_imports():
    groups = {group: [target.split(":")[0] for target in points.values()] for group, points in ENTRY_POINTS.items()}
    return imports(PACKAGES, groups)


def shown(found) -> str:
    return "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("vfrnn_kernels", ("vfrnn", "vfrnn_bench", "tools", "tests")),
        ("vfrnn", ("vfrnn_bench", "tools", "tests")),
        ("vfrnn_bench", ("tools", "tests")),
    ],
)
def test_imports_go_one_way(package, forbidden):
    found = into(project_imports(), package, *forbidden)
    # the command line finds the commands of vfrnn_bench, where that is installed, as entry points
    found = [edge for edge in found if not (edge.by_entry_point and package == "vfrnn")]
    assert not found, shown(found)


def test_no_module_is_in_a_circle():
    assert circles(project_imports(), KNOWN) == []


def test_a_reference_imports_references_alone():
    found = impure_references(project_imports(), set(sys.stdlib_module_names))
    assert not found, shown(found)


def test_production_imports_a_reference_in_its_declaration_alone():
    # What is for developers may compare with a reference: the suite of benchmarks and the tools do.
    found = [e for e in borrowed_references(project_imports()) if e.source.split(".")[0] in ("vfrnn_kernels", "vfrnn")]
    assert not found, shown(found)


@pytest.mark.parametrize("group", ENTRY_POINTS)
def test_the_entry_points_of_the_distribution_exist(group):
    for name, target in ENTRY_POINTS[group].items():
        module, _, attribute = target.partition(":")
        assert module in KNOWN, name
        assert f"def {attribute}(" in KNOWN[module].read_text(), name


# What the walk itself finds, in packages of a few lines.


@pytest.fixture
def planted(tmp_path):
    """Two packages whose modules import each other in every way there is."""

    def plant(**files):
        for name, text in files.items():
            path = tmp_path / Path(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        packages = {folder.name: folder for folder in sorted(tmp_path.iterdir())}
        for folder in packages.values():
            (folder / "__init__.py").touch()
        return packages

    return plant


@pytest.mark.parametrize(
    "text",
    [
        "import upper",
        "import upper.module",
        "import upper.module as other",
        "from upper import module",
        "from upper.module import name as other",
        "def later():\n    from upper import module",
        "class Late:\n    def method(self):\n        import upper.module",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from upper.module import name",
        "import importlib\nimportlib.import_module('upper.module')",
        "from importlib import import_module as load\nload('upper.module')",
        "__import__('upper')",
        "try:\n    import upper\nexcept ImportError:\n    upper = None",
    ],
)
def test_an_import_that_goes_up_is_found(planted, text):
    packages = planted(lower__module=text, upper__module="name = 1")
    assert len(into(imports(packages), "lower", "upper")) == 1
    assert into(imports(packages), "upper", "lower") == []


@pytest.mark.parametrize("call", ["entry_points(group='lower.plugins')", "importlib.metadata.entry_points().select()"])
def test_an_entry_point_counts_as_an_import(planted, call):
    text = "import importlib.metadata\nfrom importlib.metadata import entry_points\n" + call
    packages = planted(lower__module=text, upper__module="from lower.module import name\ndef main(): ...")
    found = imports(packages, {"lower.plugins": ["upper.module"]})
    there = "group" in call
    assert into(found, "lower", "upper") == [Import("lower.module", "upper.module", 3, True)] * there
    assert circles(found, modules(packages)) == [["lower.module", "upper.module"]] * there


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from lower import other", "from lower.one import name"),
        ("from . import other", "from .one import name"),
        ("import lower.other", "def later():\n    from .one import name"),
        ("from lower.other import x", "import importlib\nimportlib.import_module('.one', 'lower')"),
    ],
)
def test_a_circle_is_found(planted, one, other):
    packages = planted(lower__one=one, lower__other=other, lower__third="from lower import one")
    assert circles(imports(packages), modules(packages)) == [["lower.one", "lower.other"]]


def test_a_circle_through_packages_is_found(planted):
    packages = planted(a__x="import b.y", b__y="import c.z", c__z="from a.x import name", c__w="import b.y")
    assert circles(imports(packages), modules(packages)) == [["a.x", "b.y", "c.z"]]


def test_a_reference_that_shares_code_is_found(planted):
    packages = planted(
        lower__op__reference="import math\nimport torch.nn\nfrom ..two.reference import f\nfrom lower import shared",
        lower__two__reference="",
        lower__shared="",
    )
    assert impure_references(imports(packages), {"math"}) == [Import("lower.op.reference", "lower.shared", 4)]


def test_a_borrowed_reference_is_found(planted):
    packages = planted(
        lower__op__reference="",
        lower__op__op="from lower.op.reference import f",
        lower__op__plan="from .reference import f",
        lower__two__op="from lower.op import reference",
        lower__two__reference="from lower.op.reference import f",
    )
    assert [edge.source for edge in borrowed_references(imports(packages))] == ["lower.op.plan", "lower.two.op"]
