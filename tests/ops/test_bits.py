"""The same bits for every number of threads, after a fork, with and without autograd, at every address: bits.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vfrnn_kernels as vk
from tests.cases import DTYPES
from tests.ops import bits

ROOT = Path(__file__).parents[2]
#: Threads are there when it forks; it is a process of its own, since one that did other things may not fork any more.
FORKS = """
import json, os, sys, torch
from tests.ops import bits
torch.set_num_threads(2)
bits.hashes()
child = os.fork()
if child == 0:
    print(json.dumps(bits.hashes()))
else:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
CASES = pytest.mark.parametrize("case", bits.CASES, ids=lambda case: f"{case.op}, {case.name}")
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected():
    """On the chosen set, by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = bits.hashes()
    torch.set_num_threads(before)
    return found


def assert_same(found, expected):
    assert set(found) <= set(expected)
    assert list(bits.differences(found, expected)) == []


@pytest.mark.skipif((reason := bits.why_no_table()) is not None, reason=str(reason))
def test_the_table_has_these_bits(expected):
    isa = torch.ops.vfrnn_kernels.cpu_isa()
    assert bits.table()[isa] == expected


@pytest.mark.skipif((reason := bits.why_no_table()) is not None, reason=str(reason))
@pytest.mark.slow
def test_the_table_has_the_bits_of_the_other_sets():
    others = [isa for isa in bits.supported_sets() if isa != torch.ops.vfrnn_kernels.cpu_isa()]
    for isa in others:
        assert_same(bits.hashes_with(isa), bits.table()[isa])


@pytest.mark.parametrize(
    "threads", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_every_number_of_threads(expected, threads):
    torch.set_num_threads(threads)
    assert_same(bits.hashes(), expected)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork(expected):
    found = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    assert_same(json.loads(found.stdout), expected)


@pytest.mark.parametrize("mode", ["no_grad", "inference"])
def test_without_autograd(expected, mode):
    assert_same(bits.hashes(mode=mode), expected)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1, 3, 7])
def test_every_address(expected, offset):
    """A tensor that begins `offset` numbers behind an aligned address, as a view of a larger one does."""

    def place(t):
        storage = t.new_empty(t.numel() + offset)
        view = storage[offset:].view(t.shape)
        view.copy_(t)
        return view

    assert_same(bits.hashes(place), expected)


@CASES
@dtypes
def test_a_sample_does_not_see_the_others(case, dtype):
    """Its result, and its gradients, whatever the batch it is in. `field_flow` and `flow_recurrence` plan their
    substeps for the whole batch: for them with `substeps` given."""
    others = dict(case.others)
    if case.op in ("field_flow", "flow_recurrence"):
        others["substeps"] = 8
    given = {name: t.to(dtype) for name, t in case.tensors().items()}
    size = next(given[name].shape[d] for name, d in case.sample.items() if name in given)

    def run(first, last):
        def part(name, t):
            return t.narrow(case.sample[name], first, last - first) if name in case.sample else t

        mine = {name: part(name, t).clone().requires_grad_() for name, t in given.items()}
        results = getattr(vk, case.op)(**mine, **others, backend="cpu")
        results = dict(zip(("result", "second"), results if isinstance(results, tuple) else (results,), strict=False))
        if not grads:
            grads.update({k: bits.numbers(*r.shape, seed=90).to(dtype) for k, r in results.items()})
        found = torch.autograd.grad(list(results.values()), list(mine.values()), [part(k, grads[k]) for k in results])
        return results | {name: g for name, g in zip(mine, found, strict=True) if name in case.sample}

    grads = {}
    everything = run(0, size)
    for first, last in {(0, 1), (size - 1, size), (size // 3, size // 3 + max(1, size // 2))}:
        for name, t in run(first, last).items():
            assert torch.equal(t, everything[name].narrow(case.sample[name], first, last - first)), (name, first, last)


@CASES
@dtypes
def test_a_gradient_does_not_see_which_others_are_asked_for(case, dtype):
    """But for that of the state of `field_flow`, which alone is found a shorter way."""
    everything = case.run(dtype, torch.clone)
    for name in case.tensors():
        if (case.op, name) == ("field_flow", "h"):
            continue
        given = {k: t.to(dtype).requires_grad_(k == name) for k, t in case.tensors().items()}
        results = getattr(vk, case.op)(**given, **case.others, backend="cpu")
        results = results if isinstance(results, tuple) else (results,)
        grads = [bits.numbers(*r.shape, seed=90 + k).to(dtype) for k, r in enumerate(results)]
        on_the_way = [(r, g) for r, g in zip(results, grads, strict=True) if r.requires_grad]
        found = torch.autograd.grad([r for r, _ in on_the_way], given[name], [g for _, g in on_the_way])[0]
        assert torch.equal(found, everything[f"grad_{name}"]), name


def test_a_difference_is_seen():
    found = {"a/b/c/d": "1", "a/b/c/e": "2"}
    assert list(bits.differences(found, found)) == []
    assert list(bits.differences(found, {"a/b/c/d": "1"})) == ["a/b/c/e"]
    x = torch.ones(3)
    assert bits.digest(x) == bits.digest(x.clone())
    assert bits.digest(x) != bits.digest(torch.nextafter(x, 2 * x))


def test_other_builds_have_no_table(monkeypatch):
    for compiler, build_type, held in (
        ("g++ 12.2.0", "Release", True),
        ("g++ 13.1.0", "Release", False),
        ("g++ 12.2.0", "Debug", False),
        ("g++ 12.2.0 -fsanitize=address", "Release", False),
        ("Debian Clang 14.0.6", "Release", False),
    ):
        info = {"compiler": compiler, "build_type": build_type}
        monkeypatch.setattr(bits, "build_info", lambda info=info: info)
        assert (bits.why_no_table() is None) == held


def test_the_command(monkeypatch, tmp_path, capsys):
    """What it writes it finds again, and it says what differs."""
    monkeypatch.setattr(bits, "TABLE", tmp_path / "bits.csv")
    monkeypatch.setattr(bits, "supported_sets", lambda: ["baseline"])
    monkeypatch.setattr(bits, "why_no_table", lambda: None)
    found = {"op/case/float32/result": "12", "op/case, with a comma/float32/result": "34"}
    monkeypatch.setattr(bits, "hashes_with", lambda isa: found)
    monkeypatch.setattr(sys, "argv", ["bits", "--write"])
    assert bits.main() == 0
    assert bits.table()["baseline"] == found
    monkeypatch.setattr(sys, "argv", ["bits"])
    assert bits.main() == 0
    found = found | {"op/case/float32/result": "56"}
    assert bits.main() == 1
    assert "op/case/float32/result" in capsys.readouterr().out
