"""The sentences say what the numbers are."""

import json

import pytest
from vfrnn_bench import sentences
from vfrnn_bench.readme import MACHINE, ROOT
from vfrnn_bench.runs import pairs, worst

from tests.bench.small import EMPTY, result


@pytest.fixture(scope="module")
def measured():
    return worst([json.loads(path.read_text()) for path in (ROOT / "bench/results" / MACHINE).glob("full-*.json")])


def made_up(**more) -> dict:
    r = worst([result()])
    r["machine"] |= {"device": "a CPU", "isa": "avx2", "threads": 1, "torch": "2.13", "date": "2026-01-02"}
    r["read"]["isas"] = ["avx2"]
    return r | more


def test_the_machine():
    assert sentences.machine(made_up()) == (
        "Measured on a CPU with 1 thread, on AVX2, with PyTorch 2.13, in float32, on 2026-01-02."
    )
    several = made_up(read={"runs": 2, "isas": ["avx2", "avx512"], "commits": [], "limited": True})
    assert "on AVX2 and AVX-512" in sentences.machine(several)
    assert sentences.machine(several).endswith(
        "Each speed is the worst of 2 runs; errors and memory are the worst of the runs that measured them. The peers "
        "were held to the same instruction set as vfrnn."
    )


def test_how_much_faster():
    r = made_up()
    expected = "On a CPU, a training step of vfrnn.RNN is 2.0 times as fast as one of torch.nn.RNN (1 workload)."
    assert sentences.speed(r) == expected
    for name, ratio in (("R2", 0.26), ("R3", 0.5)):
        r["cases"].append(r["cases"][0] | {"workload": name, "ratios": [r["cases"][0]["ratios"][0] | {"ratio": ratio}]})
    assert "is 2.0 to 3.8 times as fast as one of torch.nn.RNN (median 2.0, 3 workloads)" in sentences.speed(r)


def test_how_exact():
    r = made_up()
    peer = {"forward": 2e-5, "gradient": 1e-4}
    r["accuracy"].append({"provider": "torch.matrix_exp", "n": 16, "norm": 2.0, "errors": peer})
    assert sentences.exactness(r) == (
        "Compared with float64, the largest errors in float32 are 1.0·10⁻⁷ in vfrnn.skew_expm and 1.0·10⁻⁶ in its "
        "gradient (torch.matrix_exp: 2.0·10⁻⁵ and 1.0·10⁻⁴), over n 8 to 16 and spectral norms 1 to 2; for a training "
        "step, 1.0·10⁻⁷ in vfrnn.RNN (torch.nn.RNN: 1.0·10⁻⁷)."
    )


def test_how_much_memory():
    r = made_up()
    r["memory"].append(r["memory"][0] | {"provider": "torch.nn.RNN", "copies_of_states": 4.04})
    assert sentences.memory(r) == (
        "A training step takes 2.0 copies of the hidden states in vfrnn.RNN (torch.nn.RNN: 4.0); with "
        "return_sequence=False, vfrnn.VFRNN trains on 20 steps in 1 MiB beyond its input, where all states take 1 MiB."
    )
    assert sentences.memory(made_up(memory=[])).startswith("With return_sequence=False, vfrnn.VFRNN trains")


def test_what_missed_its_target_and_what_met_it():
    r = made_up()
    told = "Missed: 1 of 1 target for time and 1 of 1 target for the share of the machine's rate."
    assert sentences.targets(r) == told
    assert sentences.misses(r) == [
        "Beside torch.nn.RNN, vfrnn.RNN is 2.00 times as fast for R1 copying memory (target 2.50).",
        "Of the rate of a large matrix product, vfrnn.RNN reaches 50.0 % for R1 copying memory (target 60 %).",
    ]
    assert sentences.slower(r) == ""
    r["cases"][0]["ratios"][0]["ratio"] = 1.25
    assert sentences.slower(r) == (
        "vfrnn is slower than a peer here: vfrnn.RNN takes 1.25 times as long as torch.nn.RNN (1 of 1 workload)."
    )
    r["cases"][0]["ratios"][0]["ratio"] = 0.4
    r["cases"][0]["providers"][0]["share_of_ceiling"] = 0.6
    assert sentences.targets(r) == "All targets were met: 1 for time and 1 for the share of the machine's rate."
    assert sentences.misses(r) == []


def test_nothing_is_said_of_what_was_not_measured():
    empty = made_up(**EMPTY)
    assert sentences.first(empty) == []
    assert sentences.targets(empty) == sentences.slower(empty) == ""


def test_every_miss_of_the_committed_runs_is_told(measured):
    told = " ".join(sentences.misses(measured))
    missed = pairs(measured, lambda pair: pair.missed)
    assert missed
    assert all(f"{1 / pair.ratio:.2f}" in told for pair in missed)
    assert f"Missed in at least one run: {len(missed)} of " in sentences.targets(measured)
    assert [question for question, _ in sentences.first(measured)] == [
        "How much faster?",
        "How exact?",
        "How much memory?",
    ]
