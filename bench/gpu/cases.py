"""What is measured on a GPU, in parts: which workloads, in which dtypes, with which targets. The cases are those of
`vfrnn_bench.cases`; what they do is recorded as a CUDA graph too where a user would record it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from vfrnn_bench import cases
from vfrnn_bench.cases import OURS, Case
from vfrnn_bench.gpu.timing import in_graph
from vfrnn_bench.layer_providers import loop_providers, loss_provider
from vfrnn_bench.providers import FORWARD, STEP, Provider, Providers, Setting
from vfrnn_bench.workloads import (
    INPUT_FIELDS,
    IRREGULAR,
    LONG_SEQUENCES,
    SEQUENCES,
    Exponential,
    InputField,
    Irregular,
    Sequence,
)


def setting(device: torch.device, dtype: torch.dtype = torch.float32) -> Setting:
    return Setting(device, dtype, name_backends=True)


def ours_in_graphs(case: Case, device: torch.device) -> Case:
    """The case with ours as CUDA graphs too."""

    def providers() -> Providers:
        found: Providers = {}
        for name, make in case.providers().items():
            found[name] = make
            if name.startswith(OURS) and device.type == "cuda":
                found[f"{name}, CUDA graph"] = functools.partial(_recorded, make, *case.modes)
        return found

    return replace(case, providers=providers)


def _recorded(make: Callable[[], Provider], *modes: str) -> Provider:
    return in_graph(make(), *modes)


# ---- the parts -------------------------------------------------------------------------------------------------------

SMALL = Sequence("R6", "", T=20, B=3, n=33, i=5)
SMALL_STEP = Sequence("R1", "", T=12, B=3, n=20, i=5)


def exponentials(device: torch.device, quick: bool) -> Iterator[Case]:
    """E(n) over norms, batches and sizes."""
    if quick:
        every = [Exponential(n, math.pi, batch) for batch in (1, 3) for n in (8, 20)]
    else:
        pairs = ((1, math.pi), (64, math.pi), (1, 10.0), (1, 1.0), (1, 50.0), (64, 10.0), (64, 1.0), (64, 50.0))
        sizes = (64, 128, 190, 256, 512, 32, 1024)
        every = [Exponential(n, norm, batch) for batch, norm in pairs for n in sizes]
    for e in every:
        case = replace(
            cases.exponential_case(e, setting(device)), group="exponential", modes=(FORWARD, STEP),
            targets={(OURS, "torch.matrix_exp"): 0.05} if 64 <= e.n <= 512 else {},
        )  # fmt: skip
        yield ours_in_graphs(case, device)


def _recurrence(
    w: Sequence, on: Setting, group: str, *more: Callable[..., Providers], target: float | None = None
) -> Case:
    case = cases.recurrence_case(w, on, *more, update=False)
    name = f"{w.name} n={w.n}" if w in LONG_SEQUENCES or w is SMALL else w.name
    targets = {} if target is None else {(OURS, "torch.nn.RNN"): target}
    return replace(case, name=name, group=group, modes=(FORWARD, STEP), targets=targets)


def recurrences(device: torch.device, quick: bool) -> Iterator[Case]:
    """R1 to R6."""
    if quick:
        for dtype in (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,):
            yield _recurrence(SMALL, setting(device, dtype), "recurrence")
        return

    def case(w: Sequence, dtype: torch.dtype) -> Case:
        target = 0.4 if w in LONG_SEQUENCES and w.n > 384 else 0.8
        return _recurrence(w, setting(device, dtype), "recurrence", target=target)

    for w in (LONG_SEQUENCES[0], *SEQUENCES[:2], *LONG_SEQUENCES[1:], *SEQUENCES[2:]):
        for dtype in (torch.bfloat16, torch.float32):
            yield case(w, dtype)
    for w in LONG_SEQUENCES:
        yield case(w, torch.float16)


def graphed_loop(w: Sequence, on: Setting, update: bool) -> Providers:
    """The tuned loop's training step as a CUDA graph."""
    if on.device.type != "cuda":
        return {}
    return {"loop, CUDA graph": functools.partial(_recorded, loop_providers(w, on, update)["loop"], STEP)}


def loops(device: torch.device, quick: bool) -> Iterator[Case]:
    """R1 to R6 beside loops in Python."""
    sequences = (SMALL_STEP,) if quick else (*SEQUENCES[:2], LONG_SEQUENCES[0], *SEQUENCES[2:])
    for w in sequences:
        for dtype in (torch.float32,) if quick else (torch.float32, torch.bfloat16):
            yield _recurrence(w, setting(device, dtype), "loops", loop_providers, graphed_loop)


MODELS = ("vfrnn.OrthogonalRNN", "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)", "orthogonal loop")


def training_steps(device: torch.device, quick: bool) -> Iterator[Case]:
    """Whole training steps: S1, S2, S3, S5."""
    on = setting(device)
    sequences = (SMALL_STEP,) if quick else tuple(w for w in SEQUENCES if w.name != "R4")
    for dtype in ("fp32", "bf16 autocast"):
        provider = functools.partial(loss_provider, autocast=dtype != "fp32")
        for w in sequences:
            case = cases.training_step_case(w, on, MODELS, provider)
            targets = {(OURS, "orthogonal loop"): 0.03} if w.name in ("R1", "R2") else {}
            yield ours_in_graphs(replace(case, group="steps", dtype=dtype, targets=targets), device)


def moving_fields(device: torch.device, quick: bool) -> Iterator[Case]:
    """Fields that read the input (I1) and irregular times (I2), beside loops of eager PyTorch."""
    every: tuple[InputField | Irregular, ...] = (*INPUT_FIELDS, *IRREGULAR)
    for w in (replace(w, T=4, B=2, n=9) for w in every) if quick else every:
        yield replace(cases.field_case(w, setting(device)), group="fields")


def first_look(device: torch.device, quick: bool) -> Iterator[Case]:
    """What tells in half a minute whether the design holds: E(128), R1, and R6 in one block and in a cluster."""
    chosen = {"R1", "R6 n=256", "R6 n=512", f"{SMALL.name} n={SMALL.n}"}
    for case in itertools.chain(
        (case for case in exponentials(device, quick) if case.sizes["n"] in (128, 20)),
        (case for case in recurrences(device, quick) if case.name in chosen and case.dtype != "fp16"),
    ):
        yield replace(case, group="first")


#: By name, in the order in which they are measured.
PARTS: dict[str, Callable[[torch.device, bool], Iterator[Case]]] = {
    "first": first_look,
    "exponential": exponentials,
    "recurrence": recurrences,
    "steps": training_steps,
    "fields": moving_fields,
    "loops": loops,
}
