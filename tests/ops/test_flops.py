"""What torch.utils.flop_counter counts: what it counts for the same products in plain PyTorch."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vfrnn
import vfrnn_kernels
from tests.cases import quick
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.spectral_recurrence.gradients import gradients
from vfrnn_kernels.spectral_recurrence.planes import planes_of


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def both(function, arguments, wanted):
    """Flops of the forward and of the backward for the tensors that are wanted."""
    given = {k: v.detach().clone() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    leaves = [given[name].requires_grad_() for name in wanted]
    result = []
    forward = flops(lambda: result.append(function(**given)))
    results = result[0] if isinstance(result[0], tuple) else result
    backward = flops(lambda: torch.autograd.grad(results, leaves, [torch.ones_like(r) for r in results]))
    return forward, backward


def loop(x, U, c, M, h0):
    hs, h = [], h0
    for u in nn.functional.linear(x, U, c):
        h = torch.tanh(u + h @ M.T)
        hs.append(h)
    return torch.stack(hs)


@pytest.mark.parametrize(
    "wanted", ["x U c M h0", "x U M", "M", "h0", "x", "U c", "M h0"], ids=lambda wanted: wanted.replace(" ", "-")
)
@pytest.mark.parametrize(("T", "B", "i", "n"), [(7, 3, 5, 6), (1, 4, 2, 9), (3, 1, 1, 1)])
def test_a_recurrence_counts_as_its_loop(T, B, i, n, wanted):
    arguments = OPS["recurrence"].sample(n, T=T, B=B, i=i).arguments
    arguments = {name: arguments[name] for name in ("x", "U", "c", "M", "h0")}
    found = both(vfrnn_kernels.recurrence, arguments, wanted.split())
    assert found == both(loop, arguments, wanted.split())


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True}, {"bias": False}], ids=str)
def test_a_network_counts_as_torchs(options):
    x = torch.randn(9, 2, 5, requires_grad=True)
    counts = []
    for module in (nn.RNN(5, 7, **options), vfrnn.RNN(5, 7, **options)):
        counts.append(flops(lambda module=module: module(x)[0].sum().backward()))
        with torch.no_grad():
            counts.append(flops(lambda module=module: module(x.detach())))
    assert counts[:2] == counts[2:]
    assert counts[0] > 2 * counts[1] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", ["field_generator", "field_flow", "flow_recurrence"])
def test_fields_count_as_their_reference(op, dtype):
    sample = OPS[op].sample(11, m=5, d=3)
    arguments = {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in sample.arguments.items()}
    counts = [
        both(lambda backend=backend, **named: OPS[op].function(**named, backend=backend), arguments, sample.leaves)
        for backend in (None, "reference")
    ]
    assert counts[0] == counts[1]
    assert counts[0][0] > 0
    # what is not asked for is not counted
    assert both(OPS[op].function, arguments, ["v"])[1] < counts[0][1]


def test_planned_substeps_are_counted():
    arguments = OPS["field_flow"].sample(11).arguments
    counts = []
    for substeps in (1, 2, None):
        arguments |= {"substeps": substeps, "dt": torch.tensor(2.0) if substeps is None else arguments["dt"]}
        counts.append(both(vfrnn_kernels.field_flow, arguments, ["h"])[0])
    assert counts[2] > counts[1] > 1.9 * counts[0]


def test_a_complete_mesh_has_no_products():
    sample = OPS["field_generator"].sample(6, complete=True)
    assert both(vfrnn_kernels.field_generator, sample.arguments, ["v", "w"]) == (0, 0)


def exponential(A, r):
    """The polynomial of skew_expm's README with any coefficients, and one squaring."""
    powers = [A]
    for _ in range(r - 1):
        powers.append(powers[-1] @ A)
    total = sum(powers)
    Y = powers[-1] @ total
    Q = (Y + total) @ (Y - total) + total
    return Q @ Q


@pytest.mark.parametrize(("dtype", "r"), [(torch.float32, 3), (torch.float64, 4)])
@pytest.mark.parametrize("n", [5, 40])
def test_exponentials_count_the_products_of_their_polynomial(n, dtype, r):
    S = torch.randn(3, n, n, dtype=dtype)
    S = S - S.mT
    plain = both(exponential, {"A": S, "r": r}, ["A"])
    forward, backward = both(vfrnn_kernels.skew_expm, {"S": S}, ["S"])
    assert forward == plain[0]
    product = 2 * 3 * n**3
    # README.md: powers that are symmetric or skew-symmetric save one product, and in float64 two
    assert backward == plain[1] - (r - 2) * product
    delta = torch.randn(3, n, dtype=dtype)
    for substeps, powers in ((1, 0), (2, 1), (7, 4), (8, 3)):
        step = both(vfrnn_kernels.strang_step, {"S": S, "delta": delta, "substeps": substeps}, ["S", "delta"])
        assert step == (forward + powers * product, backward + 3 * powers * product)


def test_a_thin_exponential_counts_little():
    S = torch.randn(1, 300, 4)
    S = torch.cat([S[:, :4] - S[:, :4].mT, S[:, 4:]], 1)
    forward, backward = both(vfrnn_kernels.thin_skew_expm, {"S": S}, ["S"])
    tall, small = 2 * 296 * 16, 2 * 8**3 * 5
    assert forward == 3 * tall + small
    assert backward == 3 * tall + 2 * 12**3 * (5 + 9) + 2 * 4**3
    whole = both(vfrnn_kernels.thin_skew_expm, {"S": torch.cat([torch.zeros(1, 3, 3), torch.randn(1, 3, 3)], 1)}, ["S"])
    assert whole == both(vfrnn_kernels.skew_expm, {"S": torch.zeros(1, 6, 6)}, ["S"])


@pytest.mark.parametrize("divergence", [True, False])
def test_a_spectral_recurrence_counts_its_planes(divergence):
    n, T, B, i = 9, 4, 3, 2
    arguments = OPS["spectral_recurrence"].sample(n, T=T, B=B, i=i, divergence=divergence, substeps=2).arguments
    substeps, planes = 2 if divergence else 1, 10
    forward, backward = both(vfrnn_kernels.spectral_recurrence, arguments, ["x", "U", "S", "dt"])
    into_and_out = 2 * T * B * substeps * 2 * planes * n
    assert forward == into_and_out + 2 * T * B * n * i
    basis, omega = planes_of(arguments["S"], torch.float32)
    given = {name: arguments[name] for name in ("x", "U", "c", "S", "delta", "dt", "h0", "beta")}
    hs = torch.randn(T, B, n)
    given |= {"hs": hs, "basis": basis, "omega": omega, "substeps": substeps}
    wanted = frozenset(("x", "U", "S", "dt"))
    sums = flops(lambda: gradients(hs, hs[0], **given, wanted=wanted))
    in_place = 2 * T * B * substeps * planes**2 * 5  # addmm_, which PyTorch does not count
    assert backward == into_and_out + sums + in_place


def test_the_last_state_alone_counts_a_forward_more(monkeypatch):
    monkeypatch.setattr("vfrnn_kernels.final_state.LEAST_NUMBERS", 1)
    arguments = OPS["recurrence"].sample(6, T=9).arguments
    whole = both(vfrnn_kernels.recurrence, arguments, ["x", "M"])
    last = both(lambda **named: vfrnn_kernels.recurrence(**named, return_sequence=False), arguments, ["x", "M"])
    assert last == (whole[0], whole[1] + whole[0])


@pytest.mark.parametrize("op", OPS)
def test_every_op_counts_and_none_twice(op):
    sample = OPS[op].sample(20)
    forward, backward = both(OPS[op].function, sample.arguments, sample.leaves)
    assert 0 < forward < backward


@pytest.mark.parametrize("first", quick(["vfrnn", "torch.utils.flop_counter"], "vfrnn"))
def test_the_counter_may_be_imported_before_or_after(first):
    code = (
        f"import sys, {first}, vfrnn, torch\n"
        "if 'torch.utils.flop_counter' != sys.argv[1]: assert 'torch.utils.flop_counter' not in sys.modules\n"
        "import torch.utils.flop_counter as counter\n"
        "names = ('recurrence', 'skew_expm_backward', 'flow_recurrence_final', 'strang_step_triton')\n"
        "print(all(getattr(torch.ops.vfrnn_kernels, name) in counter.flop_registry for name in names))"
    )
    run = subprocess.run([sys.executable, "-c", code, first], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr
