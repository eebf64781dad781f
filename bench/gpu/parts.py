"""The parts of a run on a GPU, each measured in a process of its own; and the cases of the moving fields."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from vfrnn_bench import field_providers
from vfrnn_bench.gpu.cases import LIMITS, Case, Provider, exponentials, loops, recurrences, steps
from vfrnn_bench.providers import Provider as CpuProvider
from vfrnn_bench.workloads import INPUT_FIELDS, IRREGULAR, InputField, Irregular


def moving_fields(device: torch.device, quick: bool) -> Iterator[Case]:
    """Fields that read the input (I1) and irregular times (I2), beside loops of eager PyTorch."""
    smaller = {"T": 4, "B": 2, "n": 9} if quick else {}
    for given in (*INPUT_FIELDS, *IRREGULAR):
        w = type(given)(**{**given.__dict__, **smaller})
        sizes = {"T": w.T, "B": w.B, "n": w.n, "i": w.i}
        made, exact = (
            (field_providers.input_field_providers, field_providers.input_field_exact)
            if isinstance(w, InputField)
            else (field_providers.irregular_providers, field_providers.irregular_exact)
        )
        yield Case(
            "fields", w.name, "fp32", sizes, functools.partial(exact, w, device),
            functools.partial(_providers, made, w, device), w.T,
        )  # fmt: skip


def _providers(
    made: Callable[..., dict[str, Callable[[], CpuProvider]]], w: InputField | Irregular, device: torch.device
) -> dict[str, Callable[[], Provider]]:
    def of_step(make: Callable[[], CpuProvider]) -> Provider:
        provider = make()
        return Provider({"step": provider.run}, provider.results, LIMITS["fp32"])

    # ours are called "vfrnn ..." in this report
    return {
        name.replace("vfrnn.", "vfrnn "): functools.partial(of_step, make) for name, make in made(w, device).items()
    }


#: By name, in the order in which they are measured.
PARTS: dict[str, Callable[[torch.device, bool], Iterator[Case]]] = {
    "exponential": exponentials,
    "recurrence": recurrences,
    "steps": steps,
    "fields": moving_fields,
    "loops": loops,
}
