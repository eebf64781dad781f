"""Every import of a set of packages, found in their sources: `import`, `from`, relative, inside functions, under
TYPE_CHECKING, `importlib.import_module` with a literal, and the entry points of the distribution."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Import:
    """One module imports another, which may be outside of the packages."""

    source: str
    target: str
    line: int
    by_entry_point: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(packages: dict[str, Path]) -> dict[str, Path]:
    """Every module of the packages, by name, with its file."""
    found = {}
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(packages: dict[str, Path], entry_points: dict[str, list[str]] | None = None) -> list[Import]:
    """All imports of all modules. `entry_points` are the groups of the distribution, each with its modules: who calls
    `entry_points(group=...)` imports them at run time."""
    known = modules(packages)
    found = set()
    for source, path in known.items():
        tree = ast.parse(path.read_text(), str(path))
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        found |= {Import(source, target, line) for target, line in _of(package, tree, known)}
        for group, line in _groups(tree):
            found |= {Import(source, target, line, True) for target in (entry_points or {}).get(group, [])}
    return sorted(found)


def _groups(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The groups of entry points that a module reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) == "entry_points":
            for value in [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "group")]:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value, node.lineno


def _called(node: ast.Call) -> str | None:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


def _of(package: str, tree: ast.Module, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """What a module of `package` imports, and in which line."""
    functions = {"import_module", "__import__"}  # and what they are called here
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "importlib":
            functions |= {alias.asname for alias in node.names if alias.name == "import_module" and alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node.level, node.module)
            for alias in node.names:
                member = f"{base}.{alias.name}"
                yield (member if member in known else base), node.lineno
        elif isinstance(node, ast.Call) and _called(node) in functions and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            if isinstance(name, str):
                dots = len(name) - len(name.lstrip("."))
                yield _absolute(package, dots, name[dots:]), node.lineno


def _absolute(package: str, level: int, module: str | None) -> str:
    """The module of `from <level dots><module>` inside a package."""
    if level == 0:
        return module or ""
    parent = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*parent, *([module] if module else [])])


def into(found: list[Import], source: str, *targets: str) -> list[Import]:
    """The imports of package `source` that go to one of the packages `targets`."""
    return [edge for edge in found if edge.source.split(".")[0] == source and edge.target.split(".")[0] in targets]


def circles(found: list[Import], known: dict[str, Path]) -> list[list[str]]:
    """Groups of modules that import each other, directly or around. That a module's package is imported before it is
    not counted: every `from package.module import ...` would be a circle with what the package itself gathers."""
    graph = {name: sorted({e.target for e in found if e.source == name and e.target in known}) for name in known}
    order, low, stack, result = {}, {}, [], []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in graph[name]:
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in graph[name]:
                result.append(sorted(group))

    for name in graph:
        if name not in order:
            visit(name)
    return sorted(result)


def is_reference(module: str) -> bool:
    """Whether the module is `reference`, or belongs to references, as `reference_plan`."""
    return module.rpartition(".")[2].startswith("reference")


def impure_references(found: list[Import], allowed: set[str]) -> list[Import]:
    """Imports of references that are neither references, nor torch, nor among `allowed`."""
    return [
        edge
        for edge in found
        if is_reference(edge.source)
        and not is_reference(edge.target)
        and edge.target.split(".")[0] not in {"torch", *allowed}
    ]


def borrowed_references(found: list[Import]) -> list[Import]:
    """Imports of a reference by production code: by all but references, an op's declaration `op.py`, and its folder,
    which shows the reference to users."""
    return [
        edge
        for edge in found
        if is_reference(edge.target)
        and not is_reference(edge.source)
        and edge.source not in (edge.target.rpartition(".")[0] + ".op", edge.target.rpartition(".")[0])
    ]
