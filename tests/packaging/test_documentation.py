"""Every Python block of the README and of docs/ runs, top to bottom: a file is one session."""

import re
import textwrap
from pathlib import Path

import pytest

import vfrnn

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the line it starts in."""
    text = page.read_text()
    return [(text[: m.start(2)].count("\n") + 1, textwrap.dedent(m[2])) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, text in blocks(page):
        code = compile("\n" * (line - 1) + text, str(page), "exec")  # so that a failure names its line
        exec(code, namespace)


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_what_is_looked_for_is_there():
    assert len(blocks(ROOT / "README.md")) >= 2
    assert all("```python" not in text for page in PAGES for _, text in blocks(page))
    for page in PAGES:
        assert page.read_text().count("```python") == len(blocks(page)), page


def test_every_name_that_the_readme_promises_exists():
    promised = set(re.findall(r"`vfrnn\.([A-Za-z_]\w*)", (ROOT / "README.md").read_text()))
    assert {"RNN", "VFRNN", "OrthogonalRNN", "InputFieldRNN"} <= promised
    assert {name for name in promised if not hasattr(vfrnn, name)} == set()
