"""Docstrings as they are written for a terminal, turned into what napoleon and Sphinx read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: The header of a section of an entry for every line that is indented by four.
SECTION = re.compile(r"^(\s*)(Args|Attributes):$")
TITLES = {"Args": "Parameters", "Attributes": "Attributes"}
#: "name, other: what it is"; a name may be `weight_ih_l[k]`, a colon inside of parentheses ends none.
ENTRY = re.compile(r"^([^\s:(][^:]*?): (.*)$")
#: `Source:` begins a paragraph in our docstrings.
SOURCE = re.compile(r"^(\s*)Source: ", re.MULTILINE)
#: "arXiv 2102.09589" and "doi 10.1137/0705041" become links.
ARXIV = re.compile(r"\barXiv (\d{4}\.\d{4,5})\b")
DOI = re.compile(r"\bdoi (10\.\d{4,}/[^\s),]+)")


def sections(lines: list[str]) -> list[str]:
    """The docstring with its arguments and attributes as lists, each in a field of its name.

    Napoleon takes the first line of an entry for its names, repeats what they share, and makes an object of every
    attribute: ours may share an entry, as `dt, substeps: the arguments`, and its names may go on in the next line.
    """
    found: list[str] = []
    k = 0
    while k < len(lines):
        header = SECTION.match(lines[k])
        k += 1
        if header is None:
            found.append(lines[k - 1])
            continue
        indent = header[1]
        entries: list[str] = []
        while k < len(lines) and (lines[k].startswith(indent + "    ") or _blank_inside(lines, k, indent)):
            text = lines[k][len(indent) + 4 :]
            if entries and (not text or text.startswith(" ") or ": " not in entries[-1]):
                entries[-1] += f" {text.strip()}" if text else ""
            else:
                entries.append(text)
            k += 1
        found += [f"{indent}:{TITLES[header[2]]}:", *(f"{indent}    - {_entry(entry)}" for entry in entries)]
    return found


def _blank_inside(lines: list[str], k: int, indent: str) -> bool:
    """Whether line k is empty and the section goes on after it."""
    return not lines[k].strip() and k + 1 < len(lines) and lines[k + 1].startswith(indent + "    ")


def _entry(text: str) -> str:
    """An entry with its names in code: "dt, substeps" and "weight_ih_l[k], with `_reverse` for ..."."""
    parts = ENTRY.match(text)
    names, meaning = (parts[1], parts[2]) if parts else (text, "")
    first, comma, rest = names.partition(", with ")
    listed = ", ".join(f"**{name}**" for name in re.split(r", (?:or )?", first))
    return f"{listed}{comma}{rest}: {meaning}"


def before_napoleon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The sections, in napoleon's form."""
    lines[:] = sections(lines)


def after_napoleon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Links of papers, and the word before a source in bold."""
    text = SOURCE.sub(r"\1**Source:** ", "\n".join(lines))
    text = ARXIV.sub(r"`arXiv \1 <https://arxiv.org/abs/\1>`__", text)
    text = DOI.sub(r"`doi \1 <https://doi.org/\1>`__", text)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the changes before and after napoleon's, which has the priority 500."""
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
