"""Runs every op once on the GPU, so that its kernels are compiled and cached before the first training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

import vfrnn_kernels as kernels
from vfrnn_kernels.dispatch import get_backend, refusal
from vfrnn_kernels.loader import TRITON_MISSING

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

#: Input sizes of the two ways in which the recurrence multiplies its input.
INPUT_SIZES = (1, 32)

#: Products m n, n rounded up, of meshes that field_flow keeps on the chip in both passes, in the forward and in none.
FLOW_ENTRIES = (4096, 8192, 16384)


def warm_up(hidden_size: int, dtypes: Sequence[str], ops: Sequence[str]) -> Iterator[tuple[str, float | str]]:
    """Runs forward and backward of the ops; yields each with the seconds it took, or why it does not serve this n.

    Args:
        hidden_size: n.
        dtypes: of the recurrence, of DTYPES; the other ops compute in float32.
        ops: of OPS.

    Raises:
        RuntimeError: there is no GPU or no Triton.
    """
    if TRITON_MISSING is not None:
        raise RuntimeError(f"nothing to warm up: Triton is {TRITON_MISSING}")
    if not torch.cuda.is_available():
        raise RuntimeError("nothing to warm up: torch sees no GPU on this machine")
    for op in ops:
        refused = refusal(get_backend("triton"), op, torch.device("cuda"), torch.float32, hidden_size)
        if refused is not None:
            yield op, refused
            continue
        started = time.perf_counter()
        for tensors, call in OPS[op](hidden_size, [DTYPES[name] for name in dtypes]):
            leaves = [t.to("cuda").requires_grad_() for t in tensors]
            outputs = call(*leaves)
            torch.autograd.grad(outputs, leaves, [torch.ones_like(output) for output in outputs])
        torch.cuda.synchronize()
        yield op, time.perf_counter() - started


Calls = Iterator[tuple[list[Tensor], Callable[..., tuple[Tensor, ...]]]]


def _recurrence(n: int, dtypes: Sequence[torch.dtype]) -> Calls:
    for dtype in dtypes:
        for state in dict.fromkeys((dtype, torch.float32)):
            for i in INPUT_SIZES:
                for activation in ("modrelu", "tanh", "relu", "identity"):
                    tensors = [torch.zeros(12, 1, i), torch.zeros(n, i), torch.zeros(n), torch.zeros(n, n)]
                    tensors += [torch.zeros(1, n), *([torch.zeros(n)] if activation == "modrelu" else [])]
                    products = [t.to(dtype if k in (0, 1, 3) else state) for k, t in enumerate(tensors)]

                    def call(x, U, c, M, h0, beta=None, activation=activation):  # type: ignore[no-untyped-def]
                        return (kernels.recurrence(x, U, c, M, h0, activation, beta, backend="triton"),)

                    yield products, call


def _spectral_recurrence(n: int, dtypes: Sequence[torch.dtype]) -> Calls:
    tensors = [torch.zeros(2, 1, 1), torch.zeros(n, 1), torch.zeros(n), torch.zeros(n, n), torch.zeros(2, 1)]
    yield tensors, lambda x, U, c, S, dt: (kernels.spectral_recurrence(x, U, c, S, None, dt, backend="triton"),)
    yield (
        [*tensors, torch.zeros(n)],
        lambda x, U, c, S, dt, delta: (kernels.spectral_recurrence(x, U, c, S, delta, dt, backend="triton"),),
    )


def _skew_expm(n: int, dtypes: Sequence[torch.dtype]) -> Calls:
    yield [torch.zeros(n, n)], lambda S: (kernels.skew_expm(S, backend="triton"),)


def _strang_step(n: int, dtypes: Sequence[torch.dtype]) -> Calls:
    for substeps in (1, 2):
        yield (
            [torch.zeros(n, n), torch.zeros(n)],
            lambda S, delta, k=substeps: (kernels.strang_step(S, delta, 1.0, k, backend="triton"),),
        )


def _field_generator(n: int, dtypes: Sequence[torch.dtype]) -> Calls:
    pairs = n * (n - 1) // 2
    yield (
        [torch.ones(n), torch.ones(pairs), torch.zeros(pairs, 1)],
        lambda b, w, v: kernels.field_generator(b, w, None, None, v, backend="triton"),
    )
    mesh = _mesh(n, n)
    yield [*mesh, torch.zeros(n, 2)], lambda *tensors: kernels.field_generator(*tensors, backend="triton")

    def call(v):  # type: ignore[no-untyped-def]
        b, w, N, G = _beside(v, mesh)
        return kernels.field_generator(b, w, N, G, v, backend="triton")

    yield [torch.zeros(n, 2)], call


def _field_flow(n: int, dtypes: Sequence[torch.dtype]) -> Calls:
    for entries in FLOW_ENTRIES:
        m = entries // max(64, 1 << (n - 1).bit_length())
        mesh, field = _mesh(n, m), torch.zeros(m, 2)
        yield [torch.zeros(2, n), field, *mesh], lambda *tensors: (kernels.field_flow(*tensors, backend="triton"),)
        for v in (field, torch.zeros(2, *field.shape)):  # of all samples, and of each

            def call(h, v, mesh=mesh):  # type: ignore[no-untyped-def]
                b, w, N, G = _beside(v, mesh)
                return (kernels.field_flow(h, v, b, w, N, G, backend="triton"),)

            yield [torch.zeros(2, n), v], call


def _mesh(n: int, m: int) -> list[Tensor]:
    return [torch.ones(n), torch.ones(m), torch.full((m, n), 1 / n), torch.zeros(m, 2, n)]


def _beside(v: Tensor, mesh: list[Tensor]) -> list[Tensor]:
    # a mesh that is not learned: fewer gradients, by kernels of their own
    return [t.to(v.device) for t in mesh]


OPS: dict[str, Callable[[int, Sequence[torch.dtype]], Calls]] = {
    "skew_expm": _skew_expm,
    "field_generator": _field_generator,
    "strang_step": _strang_step,
    "field_flow": _field_flow,
    "recurrence": _recurrence,
    "spectral_recurrence": _spectral_recurrence,
}
