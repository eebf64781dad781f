"""The README's numbers are those of the results."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from vfrnn_bench import readme

from tests.bench.small import EMPTY, result, task_summary


def test_the_readme_shows_what_was_measured():
    results = readme.Results(readme.ROOT / "bench" / "results" / readme.MACHINE)
    text = Path(readme.ROOT / "README.md").read_text()
    in_readme = {match[1] for match in readme.BLOCK.findall(text)}
    on_site = set(
        re.findall(r"^```\{results\} (\w+)", (readme.ROOT / "docs/results/index.md").read_text(), re.MULTILINE)
    )
    assert in_readme == {"headline", "status"}
    assert set(readme.BLOCKS) <= in_readme | on_site
    assert readme.refreshed(text, results) == text, "make results"


def test_of_several_runs_the_worse_ratio_is_told(tmp_path):
    for k, value in enumerate((0.5, 0.6)):
        run = result()
        run["cases"][0]["ratios"][0]["ratio"] = value
        (tmp_path / f"full-{k}.json").write_text(json.dumps(run))
    results = readme.Results(tmp_path)
    assert results.ratio("R1", "vfrnn.RNN", "torch.nn.RNN") == 0.6
    assert results.cell("R1", "vfrnn.RNN", "torch.nn.RNN") == "0.60"
    assert results.cell("R1", "vfrnn.RNN", "nobody") == ""
    assert results.tasks == []
    assert "n 64: peak" in readme.growth(results)


def test_frames_are_told_once_they_are_measured(tmp_path):
    run = result()
    (tmp_path / "full-1.json").write_text(json.dumps(run))
    assert readme.frames(readme.Results(tmp_path)) == ""
    ratio = {"ours": "vfrnn.parametrizations.orthogonal", "peer": "torch.linalg.qr", "ratio": 0.9, "target": 1.5}
    run["cases"][0] |= {"workload": "frame 6000 x 50", "ratios": [ratio]}
    (tmp_path / "full-1.json").write_text(json.dumps(run))
    assert "| torch.linalg.qr |  | 0.90 |  |" in readme.frames(readme.Results(tmp_path))


def test_an_unknown_block_is_an_error(tmp_path):
    with pytest.raises(KeyError):
        readme.refreshed("<!-- results nothing -->\n<!-- /results -->", readme.Results(tmp_path))


def test_pictures_and_the_report_are_drawn_where_there_is_data(tmp_path):
    (tmp_path / "full-1.json").write_text(json.dumps(result() | EMPTY | {"long_memory": result()["long_memory"]}))
    readme.draw(readme.Results(tmp_path))
    assert (tmp_path / "report.html").exists()
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["long-memory.svg"]


def test_how_a_task_was_trained_is_told_in_sentences():
    text = readme.trained(task_summary("digits", 2))
    assert "Each model has hidden size 8 and is trained for 10 epochs in batches of 4, from 2 seeds, on" in text
    assert "The equal time is 1 s. A model without memory would reach 10.0 %." in text
