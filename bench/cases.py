"""What is measured: each workload with its providers, its float64 results and the project's targets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from vfrnn_bench.field_providers import (
    input_field_exact,
    input_field_providers,
    irregular_exact,
    irregular_providers,
    mesh_exact,
    mesh_providers,
)
from vfrnn_bench.providers import (
    FORWARD,
    Providers,
    Results,
    activation_providers,
    exponential_exact,
    exponential_providers,
    gpu_peers,
    recurrence_exact,
    recurrence_providers,
    training_step_providers,
)
from vfrnn_bench.workloads import EXPONENTIALS, INPUT_FIELDS, IRREGULAR, MESHES, SEQUENCES, Exponential

RECURRENCE, INFERENCE, ACTIVATION, TRAINING = "recurrence", "inference", "activation", "training step"
EXPONENTIAL, FIELD = "exponential", "field"


@dataclass(frozen=True)
class Case:
    """One workload: who runs it, its flops and minimal bytes, and the largest ratio that (ours, peer) may have.

    Attributes:
        exact: the float64 results; None where every provider has its own.
        targets: (ours, peer) -> ratio on a CPU.
    """

    name: str
    group: str
    flops: float
    minimal_bytes: float
    providers: Callable[[], Providers]
    exact: Callable[[], Results] | None = None
    targets: dict[tuple[str, str], float] = field(default_factory=dict)


def cases(device: torch.device | str = "cpu") -> Iterator[Case]:
    """Everything that is measured on `device`."""
    device = torch.device(device)
    recurrence = {"R1": 0.5, "R2": 0.45, "R3": 0.75, "R4": 0.1, "R5": 0.35}
    step = {"R1": 0.6, "R2": 0.6, "R3": 0.33, "R5": 0.33}
    ours, field_model, peer, orthogonal = "vfrnn.RNN", "vfrnn.VFRNN", "torch.nn.RNN", "orthogonal(torch.nn.RNN)"
    for w in SEQUENCES:
        yield Case(
            w.name, RECURRENCE, w.flops, w.minimal_bytes,
            lambda w=w: recurrence_providers(w, device) | gpu_peers(w, device),
            functools.partial(recurrence_exact, w, device), {(ours, peer): recurrence[w.name]},
        )  # fmt: skip
    for w in SEQUENCES[:2]:
        yield Case(
            f"{w.name} inference", INFERENCE, w.forward_flops, w.forward_bytes,
            functools.partial(recurrence_providers, w, device, FORWARD),
            functools.partial(recurrence_exact, w, device, FORWARD), {(ours, peer): 0.6},
        )  # fmt: skip
    for w in SEQUENCES:
        yield Case(
            f"{w.name} activation", ACTIVATION, w.flops, w.minimal_bytes,
            functools.partial(activation_providers, w, device), targets={("vfrnn modrelu", "vfrnn tanh"): 1.05},
        )  # fmt: skip
    for w in SEQUENCES:
        targets = {(field_model, "vfrnn.OrthogonalRNN"): 1.1}
        if w.name in step:
            targets |= {(model, orthogonal): step[w.name] for model in ("vfrnn.OrthogonalRNN", field_model)}
        name = w.name.replace("R", "S")
        providers = functools.partial(training_step_providers, w, device)
        yield Case(name, TRAINING, w.flops, w.minimal_bytes, providers, targets=targets)
    for e in EXPONENTIALS:
        yield Case(
            e.name, EXPONENTIAL, e.flops, e.minimal_bytes, functools.partial(exponential_providers, e, device),
            functools.partial(exponential_exact, e, device),
            {("vfrnn.skew_expm", "torch.matrix_exp"): exponential_target(e)},
        )  # fmt: skip
    for m in MESHES:
        name = "vfrnn.field_generator" if m.B == 0 else "vfrnn.field_flow"
        yield Case(
            m.name, FIELD, m.flops, m.minimal_bytes, functools.partial(mesh_providers, m, device),
            functools.partial(mesh_exact, m, device), {(name, "eager"): 0.5, (name, "compiled"): 1.0},
        )  # fmt: skip
    for f in INPUT_FIELDS:
        yield Case(
            f.name, FIELD, f.flops, f.minimal_bytes, functools.partial(input_field_providers, f, device),
            functools.partial(input_field_exact, f, device), {("vfrnn.flow_recurrence", "eager loop"): 0.3},
        )  # fmt: skip
    for t in IRREGULAR:
        yield Case(
            t.name, FIELD, t.flops, t.minimal_bytes, functools.partial(irregular_providers, t, device),
            functools.partial(irregular_exact, t, device), {("vfrnn.spectral_recurrence", "eager loop"): 0.1},
        )  # fmt: skip


def exponential_target(e: Exponential) -> float:
    """The largest ratio to torch.matrix_exp."""
    if e.batch > 1:
        return 0.25
    if e.n < 128:
        return 0.4
    return 0.2 if e.norm <= 10 else 0.3


#: What the quick suite measures, and peers it leaves out: compiling them takes longer than all the rest.
QUICK = (
    "R1", "R4", "R5", "R1 inference", "R5 activation", "S1", "S5", "F1", "F2", "I1",
    *(Exponential(n, math.pi).name for n in (32, 64, 128, 256)), Exponential(64, 1.0, batch=64).name,
)  # fmt: skip
LEFT_OUT_OF_QUICK = ("loop, compiled step", "compiled")
