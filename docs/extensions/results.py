"""The directive `{results} NAME`: a table or picture of bench/results, made at build time by what `make results` uses.

NAME is one of `vfrnn_bench.readme.BLOCKS`, or one with the number of a table in it, as `growth 3`; `task NAME` for the
table of one learning benchmark; or `sizes` for that of the sequences that are measured.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from vfrnn_bench import readme
from vfrnn_bench.workloads import LONG_SEQUENCES, SEQUENCES, SMALL_STATE

DRAWN = Path("generated") / "results"


def results_of(docs: Path) -> readme.Results:
    """What was measured, with its pictures in the documentation's folder."""
    found = readme.Results(readme.ROOT / "bench" / "results" / readme.MACHINE)
    found.folder = docs / DRAWN
    return found


def sources() -> list[Path]:
    """The measurements, and who shows them."""
    bench = readme.ROOT / "bench"
    return [*bench.rglob("*.py"), *(bench / "results").rglob("*.json")]


def draw(app: Sphinx) -> None:
    """The pictures of all results, from their JSON, and the report: again where the JSON or who draws has changed."""
    found = results_of(Path(app.srcdir))
    report = found.folder / "report.html"
    if not report.exists() or max(path.stat().st_mtime for path in sources()) > report.stat().st_mtime:
        (found.folder / "tasks").mkdir(parents=True, exist_ok=True)
        readme.draw(found)
        report.touch()  # the last, so that an interrupted drawing is not taken for a whole one
    app.config.html_extra_path.append(str(report))


def sizes() -> str:
    """What the names of the sequences stand for."""
    rows = [[w.name, w.what, *map(str, (w.T, w.B, w.n, w.i))] for w in (*SEQUENCES, LONG_SEQUENCES[0], SMALL_STATE)]
    return readme.markdown(["", "", "steps", "batch", "hidden size", "input size"], rows)


class ResultsDirective(SphinxDirective):
    """Markdown of one block, in the place of the directive."""

    required_arguments, optional_arguments, final_argument_whitespace = 1, 1, True

    def run(self) -> list[nodes.Node]:
        name, results = self.arguments[0], results_of(Path(self.env.srcdir))
        for path in sources():
            self.env.note_dependency(str(path))
        number = int(self.arguments[1]) if len(self.arguments) > 1 and name != "task" else None
        if name == "task":
            wanted = self.arguments[1]
            results.tasks = [task for task in results.tasks if task["name"] == wanted]
            if not results.tasks:
                raise self.error(f"there is no learning benchmark {wanted!r} in bench/results")
            name = "tasks"
        if name == "sizes":
            return self.parse_text_to_nodes(sizes())
        if name not in readme.BLOCKS:
            raise self.error(f"results has no block {name!r}; there are {', '.join(readme.BLOCKS)}")
        text = readme.BLOCKS[name](results)
        if number is not None:
            text = text.split("\n\n")[number - 1] + "\n"
        # Pictures are named from the repository's root there, and from the pages' here.
        text = re.sub(r"\]\(docs/", "](/", text)
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive and the drawing."""
    app.connect("builder-inited", draw)
    app.add_directive("results", ResultsDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
