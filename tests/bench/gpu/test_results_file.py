"""results.json of a run on a GPU: survives the end of the process, and knows what is left."""

import json

from vfrnn_bench.gpu.results_file import WHOLE_CASE, ResultsFile


def test_what_was_measured_is_read_again(tmp_path):
    file = ResultsFile(tmp_path)
    file.skip("part a fp32")
    file.finish("part a fp32", [{"case": "a"}])
    again = ResultsFile(tmp_path)
    assert again.is_done("part a fp32")
    assert not again.is_done("part b fp32")
    assert again.data["rows"] == [{"case": "a"}]
    assert again.data["skipped"] == []
    assert not list(tmp_path.glob("*.new"))


def test_a_process_that_ended_in_a_provider_is_its_failure(tmp_path):
    ResultsFile(tmp_path).begin("part a fp32", "vfrnn.op cuda")
    again = ResultsFile(tmp_path)
    assert again.has_failed("part a fp32", "vfrnn.op cuda")
    assert not again.has_failed("part b fp32", "vfrnn.op cuda")
    assert not again.is_done("part a fp32")
    assert again.data["failures"][0]["fatal"]
    again.begin("part b fp32", "vfrnn.op cuda")
    third = ResultsFile(tmp_path)
    assert third.has_failed("part c fp32", "vfrnn.op cuda")  # twice fatally in its part
    assert not third.has_failed("other c fp32", "vfrnn.op cuda")


def test_a_process_that_ended_in_a_case_does_not_begin_it_again(tmp_path):
    ResultsFile(tmp_path).begin("part a fp32", WHOLE_CASE)
    assert ResultsFile(tmp_path).is_done("part a fp32")


def test_what_returned_is_no_failure(tmp_path):
    file = ResultsFile(tmp_path)
    file.begin("part a fp32", "vfrnn.op cuda")
    file.end()
    file.save()
    assert ResultsFile(tmp_path).data["failures"] == []
    assert "running" not in json.loads((tmp_path / "results.json").read_text())


def test_what_there_was_no_time_for(tmp_path):
    file = ResultsFile(tmp_path)
    file.skip("part a fp32")
    file.skip("part a fp32")
    assert ResultsFile(tmp_path).data["skipped"] == ["part a fp32"]
