"""Of several runs the worst is told."""

from vfrnn_bench import runs

from tests.bench.small import EMPTY, result


def test_ratios_shares_and_errors_are_the_worst_and_times_the_first():
    first, second = result(), result()
    first["machine"] |= {"isa": "avx2", "commit": "a"}
    second["machine"] |= {"isa": "avx512", "commit": "b"}
    second["cases"][0]["ratios"][0]["ratio"] = 0.6
    second["cases"][0]["providers"][0] |= {"share_of_ceiling": 0.3, "error": 5e-7, "median_ms": 9.0}
    second["soak"][0]["grown_mib"] = 1.0
    second["memory"][0]["copies_of_states"] = 2.5
    second["long_memory"][0]["bytes"] = [1e4, 2e6]
    merged = runs.worst([first, second])
    assert [pair.ratio for pair in runs.pairs(merged)] == [0.6]
    ours = merged["cases"][0]["providers"][0]
    assert (ours["share_of_ceiling"], ours["error"], ours["median_ms"]) == (0.3, 5e-7, 1.0)
    assert merged["soak"][0]["grown_mib"] == 3.0
    assert merged["memory"][0]["copies_of_states"] == 2.5
    assert [row["bytes"][-1] for row in merged["long_memory"]] == [2e6, 1e6, 1e6]
    assert len(merged["accuracy"]) == 2
    assert merged["read"] | {"limited": False} == {
        "runs": 2, "isas": ["avx2", "avx512"], "commits": ["a", "b"], "limited": False,
    }  # fmt: skip
    assert runs.pairs(runs.worst([second, first])) == runs.pairs(merged)
    assert "read" not in first


def test_what_only_a_later_run_has_is_read_from_it():
    merged = runs.worst([result() | EMPTY | {"suite": "full"}, result()])
    assert merged["suite"] == "full"
    assert [case["workload"] for case in merged["cases"]] == ["R1"]
    partly = result()
    del partly["memory"]
    assert runs.worst([partly, result()])["memory"] == result()["memory"]


def test_a_pair_misses_above_its_target():
    pair = runs.Pair("group", "R1", "a", "b", 0.5, 0.4)
    assert pair.missed
    assert not runs.Pair("group", "R1", "a", "b", 0.4, 0.4).missed
    assert not runs.Pair("group", "R1", "a", "b", 9.0, None).missed


def test_on_a_gpu_the_first_backend_counts():
    r = result()
    r["cases"][0]["ratios"] = [
        {"ours": f"vfrnn.RNN {backend}", "peer": "torch.nn.RNN", "ratio": ratio, "target": None}
        for backend, ratio in (("cuda", 0.2), ("triton", 0.3))
    ]
    assert [pair.ratio for pair in runs.between(r, "recurrence", "vfrnn.RNN", "torch.nn.RNN")] == [0.2]
    assert runs.between(r, "recurrence", "vfrnn.R", "torch.nn.RNN") == []
