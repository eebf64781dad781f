"""Who computes exponentials of skew-symmetric matrices: ours and torch.matrix_exp."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from vfrnn_bench.providers import STEP, Provider, Providers, Results, Setting, differentiated, ours
from vfrnn_bench.workloads import Exponential

import vfrnn

#: torch.matrix_exp's gradient loses digits at large norms (8e-3 was seen): reported, and no reason not to time it.
PEER_LIMIT = 3e-2


def exponential_providers(e: Exponential, on: Setting) -> Providers:
    """Ours and torch.matrix_exp."""
    given = functools.cache(lambda: e.inputs(on.device))

    def made(function: Callable[..., Tensor], limit: float) -> Provider:
        tensors, grads = given()
        return differentiated(function, tensors, "S", grads, limit)

    found = ours(
        "vfrnn.skew_expm", "skew_expm", on, lambda b: made(functools.partial(vfrnn.skew_expm, backend=b), on.limit)
    )
    found["torch.matrix_exp"] = lambda: made(_matrix_exp, PEER_LIMIT)
    return found


def mapped_exponential_providers(e: Exponential, on: Setting) -> Providers:
    """Ours mapped over the batch, and called with it."""
    tensors, grads = e.inputs(on.device)

    def mapped(S: Tensor) -> Tensor:
        return torch.func.vmap(vfrnn.skew_expm)(S)

    functions = {"vfrnn.skew_expm, vmap": mapped, "vfrnn.skew_expm": vfrnn.skew_expm}
    return {
        name: functools.partial(differentiated, function, tensors, "S", grads, on.limit)
        for name, function in functions.items()
    }


def exponential_exact(e: Exponential, on: Setting) -> Results:
    """Q and the skew-symmetric part of the gradient, in float64 by torch.matrix_exp."""
    tensors, grads = e.inputs(on.device)
    S, grad = ({name: t.double() for name, t in given.items()} for given in (tensors, grads))
    return skew(differentiated(_matrix_exp, S, "S", grad, 0.0).runs[STEP]())


def _matrix_exp(S: Tensor) -> Tensor:
    return torch.matrix_exp(S)


def skew(results: Results) -> Results:
    """The gradient of a skew-symmetric matrix is defined up to its symmetric part."""
    if "grad S" not in results:
        return results
    grad = results["grad S"]
    return results | {"grad S": (grad - grad.mT) / 2}


def scipy_expm(S: Tensor) -> Tensor:
    """scipy.linalg.expm in the dtype given: forward only."""
    linalg: Any = importlib.import_module("scipy.linalg")
    return torch.from_numpy(linalg.expm(S.numpy()))
