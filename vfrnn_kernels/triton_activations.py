"""The activations in Triton, on float32: the table of activations.py by number.

Comparisons are written so that a NaN takes the branch that keeps it. A number comes from `activations.number`, which
refuses an unknown name.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.activations import ACTIVATIONS

MODRELU = tl.constexpr(0)
TANH = tl.constexpr(1)
RELU = tl.constexpr(2)
IDENTITY = tl.constexpr(3)
LEAKY_RELU = tl.constexpr(4)
if ACTIVATIONS != ("modrelu", "tanh", "relu", "identity", "leaky_relu"):
    raise NotImplementedError(f"the Triton kernels lack one of the activations {ACTIVATIONS}")


@triton.jit
def _tanh(z):
    # Near 0, where 1 - 2 / (exp(2 |z|) + 1) cancels, the odd minimax polynomial of Cephes' tanhf (2 units in the last
    # place on |z| < 0.625). Each formula only gets arguments that do not overflow in it; beyond 10 tanh rounds to 1.
    size = tl.abs(z)
    near = tl.where(size < 0.625, z, 0.0)
    square = near * near
    p = -5.70498872745e-3 * square + 2.06390887954e-2
    p = p * square - 5.37397155531e-2
    p = p * square + 1.33314422036e-1
    p = p * square - 3.33332819422e-1
    far = 1 - 2 / (tl.exp(2 * tl.where(size > 10, 10.0, size)) + 1)
    return tl.where(size < 0.625, near + near * square * p, tl.where(z < 0, -far, far))


# The branches stand in this order, and the last one is IDENTITY's, because otherwise ptxas spills in the forward
# kernels of 16 bits on sm_90.
@triton.jit
def activate(z, beta, activation):
    """act(z); `activation` may be a number at run time: all threads take the same branch, and one kernel to compile
    replaces as many as there are activations."""
    if activation == LEAKY_RELU:
        h = tl.where(z < 0, 0.01 * z, z)
    elif activation == TANH:
        h = _tanh(z)
    elif activation == MODRELU:
        modulus = tl.abs(z) + beta
        h = tl.where((modulus <= 0) | (z == 0), 0.0, tl.where(z < 0, -modulus, modulus))
    elif activation == RELU:
        h = tl.where(z <= 0, 0.0, z)
    else:
        h = z
    return h


@triton.jit
def grad_z_of(grad_h, h, activation):
    """act'(z) grad_h, from h = act(z) alone."""
    if activation == TANH:
        grad_z = grad_h * (1 - h * h)
    elif activation == RELU:
        grad_z = tl.where(h > 0, grad_h, 0.0)
    elif activation == MODRELU:
        grad_z = tl.where(h != 0, grad_h, 0.0)
    elif activation == IDENTITY:
        grad_z = grad_h
    elif activation == LEAKY_RELU:
        grad_z = tl.where(h > 0, grad_h, 0.01 * grad_h)
    else:
        grad_z = grad_h * float("nan")
    return grad_z
