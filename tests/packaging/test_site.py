"""The documentation site, without building it: what must be on a page is there (`make test-docs` builds and looks)."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import vfrnn
import vfrnn_kernels

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def extension(name):
    """A module of docs/extensions, which is no package of the distribution."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented():
    """The full names that the pages of docs/api describe, members included."""
    names, package, last = set(), "", ""
    for page in sorted((DOCS / "api").glob("*.md")):
        for line in page.read_text().splitlines():
            if found := re.match(r"\.\. (?:py:)?(?:current)?module:: (\S+)", line):
                package = found[1]
            elif found := re.match(r"\.\. auto(?:class|function)::\s+(\S+)|\.\. data::\s+(\S+)", line):
                name = found[1] or found[2]
                last = name if name.startswith("vfrnn") else f"{package}.{name}"
                names.add(last)
            elif found := re.match(r"   :members: (.+)", line):
                names |= {f"{last}.{member}" for member in found[1].split(", ")}
    return names


def public_names(module):
    """What a module defines for its users: `__all__`, or what is defined there without an underscore."""
    if hasattr(module, "__all__"):
        return {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize(
    "name",
    [
        "vfrnn",
        "vfrnn_kernels",
        "vfrnn.init",
        "vfrnn.parametrizations",
        "vfrnn.doctor",
        "vfrnn.warmup",
        "vfrnn.inspection",
    ],
)
def test_every_public_name_is_on_a_page(name):
    found = documented()
    module = importlib.import_module(name)
    # `inspect` is vfrnn.inspect, wherever it is imported from
    wanted = {f"{name}.{public}" for public in public_names(module)} - {"vfrnn.inspection.inspect"}
    assert wanted - found == set()


def test_what_convert_returns_is_on_a_page():
    assert {"vfrnn.convert.Conversion", "vfrnn.convert.Replacement"} <= documented()


def test_what_other_packages_call_is_on_a_page():
    assert {"vfrnn_kernels.onnx.translation_table", "vfrnn.privacy.gradients_of_samples"} <= documented()


@pytest.mark.parametrize("name", [name for name in vfrnn.__all__ if inspect.isclass(getattr(vfrnn, name))])
def test_every_method_of_ours_is_on_a_page(name):
    # What torch.nn.RNN and torch.nn.Module have too is described by PyTorch.
    theirs = {"flatten_parameters", "all_weights", "check_input", "check_hidden_size", "check_forward_args",
              "get_expected_hidden_size", "permute_hidden", "extra_repr", "reset_parameters"}  # fmt: skip
    cls = getattr(vfrnn, name)
    methods = {
        method
        for base in cls.__mro__
        if base.__module__.startswith("vfrnn")
        for method, value in vars(base).items()
        if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
    }
    missing = {f"vfrnn.{name}.{method}" for method in methods - theirs} - documented()
    assert missing == set()


def test_what_is_on_a_page_exists():
    for name in documented():
        parts = name.split(".")
        value = importlib.import_module("vfrnn_kernels" if parts[0] == "vfrnn_kernels" else "vfrnn")
        for k, part in enumerate(parts[1:], 2):
            try:  # `vfrnn.convert` is a function and a module
                value = getattr(value, part)
            except AttributeError:
                value = getattr(importlib.import_module(".".join(parts[: k - 1])), part)
    assert callable(vfrnn_kernels.skew_expm)


READ = re.compile(r"""(?:environ\.get\(|environ\[|getenv\()["'](\w+)["']""")


def variables_of_the_code():
    """The environment variables that the library, its build and its benchmarks read."""
    sources = [ROOT / "setup.py"]
    for folder, pattern in (("python", "*.py"), ("vfrnn_kernels", "*.py"), ("bench", "*.py"), ("csrc", "*.cpp")):
        sources += (ROOT / folder).rglob(pattern)
    text = "\n".join(path.read_text() for path in sources)
    listed = re.findall(r"^(?:OPTIONS|ISA_LIMITS) = \(([^)]*)\)", text, re.MULTILINE)
    return set(READ.findall(text)) | {name for names in listed for name in re.findall(r'"(\w+)"', names)}


def test_every_environment_variable_is_on_the_page_and_no_other():
    page = (DOCS / "how-to" / "environment.md").read_text()
    rows = {
        name for line in page.splitlines() if line.startswith("| `") for name in re.findall(r"`([A-Z_]{3,})`", line)
    }
    values = {"AUTO", "OFF"}
    found = variables_of_the_code()
    assert {"VFRNN_BACKEND", "VFRNN_ISA", "VFRNN_CUDA_ARCHS", "TRITON_INTERPRET"} <= found
    assert found - rows == set()
    assert rows - values - found == set()


def test_every_op_has_a_page_of_its_derivation():
    for readme in (ROOT / "vfrnn_kernels").glob("*/README.md"):
        page = DOCS / "design" / f"{readme.parent.name}.md"
        assert f"../../vfrnn_kernels/{readme.parent.name}/README.md" in page.read_text()


def test_every_executed_page_offers_its_script():
    downloads = extension("downloads")
    pages = downloads.executed_pages(DOCS)
    assert len(pages) >= 11
    for page in pages:
        assert f"</generated/scripts/{page.stem}.py>`" in page.read_text(), page
        compile(downloads.script(page.read_text()), str(page), "exec")


def test_a_script_has_what_the_reader_sees():
    page = (
        "# Title\n\n```{code-cell} python\nx = 1\n```\n\n```{code-cell} python\n:tags: [hide-input]\n\ny = 2\n```\n"
        "\n```{code-cell} python\n:tags: [remove-cell]\n\nz = 3\n```\n\n```python\nw = 4\n```\n"
    )
    assert extension("downloads").script(page) == '"""Title: the code of the tutorial."""\n\nx = 1\n\ny = 2\n'


def test_entries_keep_their_names_together():
    text = """One sentence.

    Args:
        a, b, c,
            d: four of them,
            in two lines.

        e: the last.

    Returns:
        f: as it is.

    Attributes:
        w_l[k], with `_reverse` for the other: the weight."""
    assert (
        "\n".join(extension("docstrings").sections(text.splitlines()))
        == """One sentence.

    :Parameters:
        - **a**, **b**, **c**, **d**: four of them, in two lines.
        - **e**: the last.

    Returns:
        f: as it is.

    :Attributes:
        - **w_l[k]**, with `_reverse` for the other: the weight."""
    )


def test_a_broken_link_is_found(tmp_path):
    from tools.site_in_browser import broken_links

    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there">b</a><a href="b.html#not">b</a></p>')
    (tmp_path / "b.html").write_text(
        '<p id="there"><a href="a.html#here">a</a><img src="no.png"><a href="https://x">x</a></p>'
    )
    assert broken_links(tmp_path) == ["a.html: b.html#not has no such anchor", "b.html: no.png leads nowhere"]
