"""The report is one page, with every picture and table, that fetches nothing."""

import re

import pytest

pytest.importorskip("matplotlib")
from vfrnn_bench import figures, report

from tests.bench.small import EMPTY, result, task_summary


def test_every_picture_of_the_report_has_data():
    page = report.page(result(), [task_summary("permuted-mnist", 2)])
    assert page.count("<svg") == len(figures.FIGURES) + 1
    assert all(section.count('id="data-') >= 1 for section in page.split("<svg")[1:])
    assert 'class="missed">0.500' in page
    assert "Published: expRNN (170 units, 16k parameters): 94.9 %. Lezcano-Casado" in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|@import""", page)  # nothing is fetched


def test_pictures_without_data_are_left_out():
    assert "<svg" not in report.page(result() | EMPTY, [])


def test_a_page_is_written_with_its_folder(tmp_path):
    report.write(result() | EMPTY, [], tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text().startswith("<!doctype html>")


def test_ratios_are_coloured_by_their_target():
    assert report.verdict(0.5, None) == "0.500"
    assert 'class="met"' in report.verdict(0.4, 0.4)
    assert 'class="missed"' in report.verdict(0.41, 0.4)


def test_who_was_not_timed_is_told():
    assert "<td>x</td><td>y</td>" in report.case_tables(result())
