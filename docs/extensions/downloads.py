"""Every executed page as a script: its code cells, one after the other, in generated/scripts/NAME.py.

A page offers its own with `{download}`; `tests/packaging/test_site.py` holds that what is offered is its code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"\A(?::[\w-]+:[^\n]*\n)+\n*")
UNSEEN = ":tags: [remove-cell]"
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def cells(text: str) -> list[str]:
    """The code cells of a page that its reader sees, without their options."""
    found = [match[1] for match in CELL.finditer(text)]
    return [OPTION.sub("", cell) for cell in found if not cell.startswith(UNSEEN)]


def script(text: str) -> str:
    """The page's cells as one Python file, under its title."""
    title = TITLE.search(text)
    head = f'"""{title[1] if title else "A page of the documentation"}: the code of the tutorial."""'
    return "\n\n".join([head, *(cell.strip("\n") for cell in cells(text))]) + "\n"


def executed_pages(docs: Path) -> list[Path]:
    """The pages that have code cells."""
    return [page for page in sorted(docs.rglob("*.md")) if cells(page.read_text())]


def write_scripts(app: Sphinx) -> None:
    """Writes what is missing or out of date."""
    docs = Path(app.srcdir)
    folder = docs / "generated" / "scripts"
    folder.mkdir(parents=True, exist_ok=True)
    for page in executed_pages(docs):
        target, text = folder / f"{page.stem}.py", script(page.read_text())
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the writing of the scripts."""
    app.connect("builder-inited", write_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
