"""The report is one page, with every picture and table, that fetches nothing and is readable wherever it is read."""

import html
import json
import re
import shutil

import pytest

pytest.importorskip("matplotlib")
from vfrnn_bench import figures, readme, report
from vfrnn_bench.tasks.results import load_tasks

from tests.bench.small import EMPTY, result, task_summary
from tools import report_in_browser

MEASURED = readme.ROOT / "bench" / "results" / readme.MACHINE


def measured() -> tuple[list[dict], list[dict]]:
    """The runs and tasks that the README tells of."""
    return [json.loads(path.read_text()) for path in sorted(MEASURED.glob("full-*.json"))], load_tasks(
        MEASURED / "tasks"
    )


@pytest.fixture(scope="module")
def page() -> str:
    return report.page([result()], [task_summary("permuted-mnist", 2)])


def test_every_picture_of_the_report_has_data(page):
    assert page.count("<svg") == len(figures.FIGURES) + 2  # the ratios and the tasks
    assert all('-data"' in section for section in page.split("<svg")[1:])
    assert 'class="missed">0.500 missed' in page
    assert "The published result of expRNN (170 units, 16k parameters) is 94.9 %: Lezcano-Casado" in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|@import""", page)  # nothing is fetched
    names = re.findall(r"""\bid=["']([^"']+)["']""", page)
    assert len(names) == len(set(names))


def test_what_is_asked_first_is_answered_before_what_is_folded(page):
    first = html.unescape(page.split("<details")[0])
    for text in ("How much faster?", "How exact?", "How much memory?", "What missed its target?", "id='summary'"):
        assert text in first
    assert "vfrnn.RNN is 2.00 times as fast for R1 copying memory (target 2.50)." in first


@pytest.mark.slow
def test_the_committed_report_is_that_of_the_committed_runs():
    committed, drawn = (MEASURED / "report.html").read_text(), report.page(*measured())
    words = [re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL) for text in (committed, drawn)]  # of any Matplotlib
    assert words[0] == words[1], "make results"


def test_pictures_without_data_are_left_out():
    page = report.page([result() | EMPTY], [])
    assert "<svg" not in page
    assert "How much" not in page


def test_a_page_is_written_with_its_folder(tmp_path):
    report.write([result() | EMPTY], [], tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text().startswith("<!doctype html>")


def test_ratios_are_coloured_by_their_target():
    assert report.verdict(0.5, None) == "0.500"
    assert 'class="met"' in report.verdict(0.4, 0.4)
    assert 'class="missed"' in report.verdict(0.41, 0.4)


def test_who_was_not_timed_is_told():
    assert "<td class='word'>x</td><td class='word'>y</td>" in report.case_tables(result())


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, report_in_browser.NAMES)), reason="there is no Chromium")
def test_a_browser_shows_it_in_light_in_dark_on_a_telephone_and_on_paper(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page)
    assert report_in_browser.problems(path, tasks=True) == []
    spoilt = page.replace("--soft: #a8adb2", "--soft: #444444").replace("overflow-wrap: anywhere", "min-width: 500px")
    path.write_text(
        spoilt.replace("content-visibility: visible;", "").replace("#4aa8e8 !important", "#0a1520 !important")
    )
    found = "\n".join(report_in_browser.problems(path, tasks=True))
    for text in ("in dark, text in rgb(68, 68, 68)", "in dark, marks in rgb(10, 21, 32)", "pixels wide", "is missing"):
        assert text in found, found
