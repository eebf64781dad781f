"""Every example runs, is short, and reaches what it promises."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

#: The number that an example ends with, and what it must stay below.
PROMISES = {
    "swap": (r"largest difference of the outputs: (\S+)", 1e-5),
    "rotation": (r"distance to the rotation: (\S+)", 1e-4),
    "remember": (r"forgotten after 100 steps: (\S+) %", 1.0),
}


def test_there_are_three():
    assert {path.stem for path in EXAMPLES} == set(PROMISES)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, capsys):
    assert len(path.read_text().splitlines()) < 60
    runpy.run_path(str(path), run_name="__main__")
    pattern, bound = PROMISES[path.stem]
    assert float(re.search(pattern, capsys.readouterr().out)[1]) < bound


def test_what_the_type_checkers_read_runs(capsys):
    runpy.run_path(str(Path(__file__).with_name("user_script.py")), run_name="__main__")
    assert "OrthogonalRNN" in capsys.readouterr().out
