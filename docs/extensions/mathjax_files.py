"""MathJax and its fonts beside the pages, so that formulas need no network: those of sphinx-mathjax-offline."""

from __future__ import annotations

import shutil
from importlib.metadata import files
from pathlib import Path

from sphinx.application import Sphinx

#: What the pages load; the package has ten times as much.
NEEDED = ("tex-chtml.js", "output/chtml/fonts/woff-v2/")


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """After a build of pages, the needed files lie in _static/mathjax."""
    if exception is not None or app.builder.format != "html":
        return
    for file in files("sphinx-mathjax-offline") or []:
        _, found, inside = file.as_posix().partition("static/mathjax/")
        if found and inside.startswith(NEEDED):
            target = Path(app.outdir) / "_static" / "mathjax" / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the copy."""
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
