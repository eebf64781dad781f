"""The page in its two schemes: what is written is readable."""

import re

import pytest
from vfrnn_bench.page_style import PAGE_STYLE

from tests.bench.test_drawing import contrast


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_is_readable(scheme):
    block = re.findall(r":root \{(.*?)\}", PAGE_STYLE, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w+)", block))
    assert set(colours) == {"ink", "soft", "line", "paper", "stripe", "met", "missed"}
    for name in ("ink", "soft", "met", "missed"):
        assert min(contrast(colours[name], colours[page]) for page in ("paper", "stripe")) >= 4.5, name
