"""Full names, and numbers that a sentence may say."""

import pytest
from vfrnn_bench import names
from vfrnn_bench.cases import cases


def test_every_provider_and_workload_of_the_suite_is_called_by_a_full_name():
    for case in cases():
        assert names.workload(case.name) != case.name or case.name.startswith("frame"), case.name
        for provider in case.providers():
            full = names.provider(provider, case.name)
            assert "." in full or "formulas" in full, full
    assert names.provider("eager loop", "I2") == "torch.matrix_exp in a Python loop"


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("R2", "R2 pixel-by-pixel digits"),
        ("R2 inference", "R2 pixel-by-pixel digits, inference"),
        ("S8", "S8 symbols"),
        ("E(64) norm 3.14", "n 64 and norm 3.14"),
        ("E(3) x 100000 norm 3.14 forward", "100,000 matrices of n 3 and norm 3.14 (forward)"),
        ("F1 mesh learned", "F1 generator of a field, mesh learned"),
        ("another", "another"),
    ],
)
def test_a_workload_and_what_it_is(name, full):
    assert names.workload(name) == full


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.519, "1.9"),
        (0.0868, "11"),
        (0.25, "4.0"),
        (0.00428, "230"),
        (1.0, "1.0"),
        (3.96, "0.25"),
        (0.1, "10"),
        (1.01, "0.99"),
    ],
)
def test_a_speed_is_never_rounded_up(ratio, text):
    assert names.speed(ratio) == text


def test_small_numbers():
    assert [names.power(value) for value in (0.0, 1.23e-6, 9.96e-5, 0.19)] == ["0", "1.2·10⁻⁶", "1.0·10⁻⁴", "0.19"]


def test_lists_and_counts():
    assert [names.listed(parts) for parts in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [names.counted(count, "run") for count in (1, 2, 1000)] == ["1 run", "2 runs", "1,000 runs"]
