"""Who makes a frame, an orthogonal matrix n x k, of n k numbers: ours and what torch has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from vfrnn_bench.providers import STEP, Provider, Providers, Results, Setting, differentiated, ours
from vfrnn_bench.workloads import Frame

import vfrnn

#: Up to this n the ways of torch are measured that take some n^2 numbers or steps: at n = 6000 they take half a minute.
LARGEST_WHOLE = 1000

Function = Callable[[Tensor], Tensor]


def frame_providers(f: Frame, on: Setting) -> Providers:
    """Ours, which starts at the first columns of the identity; a QR decomposition, the least that orthogonal columns
    cost through the framework; and torch's parametrizations of matrices that are not square, which compute others."""

    def made(function: Function, another: bool) -> Provider:
        tensors, grads = f.inputs(on.device)
        found = differentiated(function, tensors, "X", grads, on.limit)
        if not another:
            return found
        double = ({name: t.double() for name, t in given.items()} for given in (tensors, grads))
        return replace(found, exact=differentiated(function, next(double), "X", next(double), 0.0).runs[STEP])

    def of_ours(backend: str) -> Provider:
        register = functools.partial(vfrnn.parametrizations.orthogonal, backend=backend)
        return made(_parametrization(f, on, register), another=False)

    found = ours("vfrnn.parametrizations.orthogonal", "thin_skew_expm", on, of_ours)
    found["torch.linalg.qr"] = lambda: made(_qr, another=True)

    def of_torch(kind: str) -> Provider:
        # Without its base, which is n x n: matrix_exp is then the same function as ours.
        register = functools.partial(parametrizations.orthogonal, orthogonal_map=kind, use_trivialization=False)
        return made(_parametrization(f, on, register), another=kind != "matrix_exp")

    if f.n <= LARGEST_WHOLE:
        for kind in ("matrix_exp", "householder"):
            found[f"torch orthogonal, {kind}"] = functools.partial(of_torch, kind)
    return found


def frame_exact(f: Frame, on: Setting) -> Results:
    """The frame and the gradient in float64: a differentiated QR decomposition and the exponential of 2 k rows."""
    tensors, grads = ({name: t.double() for name, t in given.items()} for given in f.inputs(on.device))
    return differentiated(_by_qr, tensors, "X", grads, 0.0).runs[STEP]()


def _parametrization(f: Frame, on: Setting, register: Callable[[nn.Module], nn.Module]) -> Function:
    layer = nn.Linear(f.k, f.n, bias=False, device=on.device)
    nn.init.eye_(layer.weight)
    lists: Any = register(layer).parametrizations
    return lists["weight"][0]


def _qr(X: Tensor) -> Tensor:
    return torch.linalg.qr(X).Q


def _by_qr(X: Tensor) -> Tensor:
    k = X.shape[-1]
    lower = X[:k].tril(-1)
    Q, R = torch.linalg.qr(X[k:])
    zeros = torch.zeros_like(R)
    E = torch.matrix_exp(torch.cat([torch.cat([lower - lower.mT, -R.mT], 1), torch.cat([R, zeros], 1)], 0))
    return torch.cat([E[:k, :k], Q @ E[k:, :k]], 0)
