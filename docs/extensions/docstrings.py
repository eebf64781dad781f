"""Docstrings as they are written for a terminal, turned into what Sphinx reads."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

#: `Source:` begins a paragraph in our docstrings, and napoleon would take it for nothing.
SOURCE = re.compile(r"^(\s*)Source: ", re.MULTILINE)
#: "arXiv 2102.09589" and "doi 10.1137/0705041" as links.
ARXIV = re.compile(r"\barXiv (\d{4}\.\d{4,5})\b")
DOI = re.compile(r"\bdoi (10\.\d{4,}/[^\s),]+)")


def improve(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Links of papers, and the name of a source in bold."""
    text = SOURCE.sub(r"\1**Source:** ", "\n".join(lines))
    text = ARXIV.sub(r"`arXiv \1 <https://arxiv.org/abs/\1>`__", text)
    text = DOI.sub(r"`doi \1 <https://doi.org/\1>`__", text)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the change, after napoleon's."""
    app.connect("autodoc-process-docstring", improve, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
