"""Calls of every op: sample arguments of its declaration, some of them changed, against the reference in float64."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tests.fuzz import values
from tests.fuzz.oracle import NO_MEMORY, Fault, compare, leaves, refused, template, told
from tests.fuzz.values import changed
from vfrnn_kernels.activations import ACTIVATIONS
from vfrnn_kernels.checks import DTYPES
from vfrnn_kernels.declaration import OPS

#: Sizes of the samples: n, which is at least one, and the others.
N = (1, 2, 3, 5, 8, 16, 17, 31, 33, 65)
COUNTS = (0, 1, 1, 2, 3, 5, 17)


@functools.cache
def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Of the op's Python function."""
    return dict(inspect.signature(OPS[name].function).parameters)


@functools.cache
def _options(name: str) -> dict[str, Any]:
    """Strategies for what the op's `sample` varies, but n and dtypes, which changes have."""
    found: dict[str, Any] = {}
    for key, parameter in list(inspect.signature(OPS[name].sample).parameters.items())[1:]:
        kind = str(parameter.annotation)
        if key == "m":
            found[key] = st.sampled_from((1, 2, 9, 17))
        elif key in ("d", "substeps"):
            found[key] = st.sampled_from((1, 2, 3))
        elif key == "k":
            found[key] = st.sampled_from((None, 1, 2))
        elif kind.startswith("int"):
            found[key] = st.sampled_from(COUNTS)
        elif kind == "float":
            found[key] = st.sampled_from((0.0, 1e-3, 1.0, 30.0))
        elif kind == "bool":
            found[key] = st.booleans()
        elif kind == "Activation":
            found[key] = st.sampled_from(ACTIVATIONS)
    return found


def constant_values(annotation: str) -> Sequence[str]:
    """Python source of odd values of an argument that is no tensor."""
    if "bool" in annotation:
        return values.BOOLS
    if "int" in annotation:
        return values.INTS
    if "float" in annotation:
        return values.FLOATS
    return values.STRINGS if "str" in annotation or "Activation" in annotation else values.NO_TENSORS


def tensor_changes() -> st.SearchStrategy[str]:
    """Changes of a tensor, as Python source."""
    dims, number = st.integers(-3, 2), st.sampled_from(values.NUMBERS)
    sizes = st.one_of(st.sampled_from(values.SIZES), st.sampled_from(values.SIZES), st.sampled_from(values.HUGE))
    plain = [n for n in values.SAME if n != "expanded"]
    return st.one_of(
        st.sampled_from([f"('{name}',)" for name in plain]),
        dims.map(lambda dim: f"('expanded', {dim})"),
        number.map(lambda value: f"('filled', {value})"),
        st.tuples(number, st.integers(0, 50)).map(lambda given: f"('put', {given[0]}, {given[1]})"),
        st.sampled_from((1e-30, 1e-6, 100.0, 1e6, 1e30)).map(lambda value: f"('scaled', {value})"),
        st.tuples(dims, sizes).map(lambda given: f"('resized', {given[0]}, {given[1]})"),
        dims.map(lambda dim: f"('unsqueezed', {dim})"),
        st.just("('squeezed',)"),
        st.sampled_from(values.DTYPES).map(lambda dtype: f"('dtype', {dtype})"),
        st.sampled_from(("('meta',)", "('numpy',)", "('list',)")),
        st.sampled_from(("nested", "sparse", "csr", "mkldnn", "quantized")).map(lambda name: f"('layout', '{name}')"),
        st.sampled_from(values.NO_TENSORS).map(lambda source: f"('is', {source})"),
    )


@st.composite
def calls(draw: Callable[..., Any], name: str) -> str:
    """Calls `op(...)`, as Python source."""
    sizes = {"n": draw(st.sampled_from(N))} | {key: draw(s) for key, s in _options(name).items()}
    of_op = parameters(name)
    changes = []
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 2, 3)))):
        argument = draw(st.sampled_from([key for key in of_op if key != "backend"]))
        annotation = str(of_op[argument].annotation)
        if "Tensor" in annotation and ("float" not in annotation or draw(st.booleans())):
            change = draw(tensor_changes())
        else:
            source = draw(st.sampled_from(constant_values(annotation)))
            change = f"('is', {source})"
        changes.append(f"('{argument}', {change})")
    whole = draw(
        st.sampled_from(("", "", "", "torch.float64", "torch.float64", "torch.float16", "torch.bfloat16", "meta"))
    )
    backend = draw(st.sampled_from(("None", "None", "None", "'cpu'", "'reference'", "'cuda'", "'triton'", "''", "1")))
    if draw(st.integers(0, 3)):
        backend = "None"
    return (
        f"op('{name}', {sizes}, changes=[{', '.join(changes)}], whole='{whole}', backend={backend}, "
        f"gradient={draw(st.booleans())}, seed={draw(st.integers(0, 3))})"
    )


def op(
    name: str,
    sizes: dict[str, Any],
    *,
    changes: Sequence[tuple[str, tuple[Any, ...]]] = (),
    whole: str = "",
    backend: Any = None,
    gradient: bool = False,
    seed: int = 0,
) -> str:
    """The outcome of a call of an op.

    Args:
        name: of the op.
        sizes: arguments of its `sample`.
        changes: `(argument, change)`, see `values.changed`.
        whole: a dtype of all tensors, or "meta"; "" leaves float32.
        backend: of the call.
        gradient: whether the gradients of all tensors are compared too.
        seed: of the sample.

    Raises:
        Fault: it went wrong.
    """
    torch.manual_seed(seed)
    arguments = OPS[name].sample(**sizes).arguments
    if whole:
        to = {"device": "meta"} if whole == "meta" else {"dtype": values.named(whole)}
        arguments = {key: t.to(**to) if isinstance(t, Tensor) else t for key, t in arguments.items()}
    for argument, change in changes:
        arguments[argument] = changed(arguments.get(argument), change)
    dtype = next((t.dtype for t in arguments.values() if isinstance(t, Tensor)), torch.float32)

    def call(_: Any, reference: bool, /, **given: Any) -> tuple[Any, list[Tensor]]:
        return OPS[name].function(**given, backend="reference" if reference else backend), []

    return compared(name, call, arguments, (*parameters(name), name), gradient, dtype)


def compared(
    name: str,
    call: Callable[..., tuple[Any, list[Tensor]]],
    arguments: dict[str, Any],
    names: Sequence[str],
    gradient: bool,
    dtype: torch.dtype,
    noisy: bool = False,
) -> str:
    """The outcome of `call(None, False, **arguments)`, compared with the reference in float64.

    Args:
        name: what is called.
        call: `(dtype, reference, **arguments) -> result, parameters`: by the reference or not, with parameters of
            this dtype or, None, their own.
        arguments: by name.
        names: one of which a clear exception names.
        gradient: whether gradients are compared too.
        dtype: of the call.
        noisy: whether the values are random, so that nothing is compared.

    Raises:
        Fault: it went wrong.
    """
    gradient = gradient and not any(t.is_inference() for t in leaves(list(arguments.values())))
    before = {key: _copy(value) for key, value in arguments.items()}
    try:
        ours, ours_grads = _run(call, None, False, arguments, gradient)
    except Exception as error:
        outcome = refused(error, names, name)
        _check_untouched(name, before, arguments)
        return outcome
    _check_untouched(name, before, arguments)
    results = leaves(ours)
    if any(t.device.type == "meta" for t in results):
        return "meta"
    if noisy:
        return "random values"
    lower = torch.float32 if dtype == torch.float64 else None
    try:
        try:
            same, same_grads = _run(call, lower, True, _plain(arguments, lower), gradient)
        except (RuntimeError, ValueError) as error:
            if lower is not None and re.search("finite|largest number|exponential overflows", str(error)):
                return "values, beyond float32"
            # In 16 bits ours is the reference too, which reads no subclass.
            if dtype in (torch.float16, torch.bfloat16) and "must be skew-symmetric" in str(error):
                return "values, of a subclass that nobody reads"
            raise
        try:
            exact, exact_grads = _run(call, torch.float64, True, _plain(arguments, torch.float64), gradient)
        except RuntimeError as error:
            if not re.search("substeps must be at least|more than 10000 substeps|must be skew-symmetric", str(error)):
                raise
            exact, exact_grads = same, same_grads  # enough of them, or skew, for the precision of the call alone
    except Exception as error:
        if NO_MEMORY.search(str(error)):
            return "values, without memory for the reference"
        if "must have a spectral norm below" in str(error):
            return "values, beyond the norms of the reference"
        raise Fault(f"{name} refused by its reference: {template(str(error))}", told(error)) from error
    given = [t for t in leaves(list(arguments.values())) if t.is_floating_point()]
    compare(f"{name} value", results, leaves(same), leaves(exact), given)
    if not all(bool(t.isfinite().all()) for t in [*leaves(same), *leaves(exact)]):
        return "not finite, as the reference"  # gradients there: 0 times infinity, or not
    compare(f"{name} gradient", ours_grads, same_grads, exact_grads, given)
    return "values and gradients" if ours_grads else "values"


def _run(
    call: Callable[..., Any], dtype: torch.dtype | None, reference: bool, arguments: dict[str, Any], gradient: bool
) -> tuple[Any, list[Tensor | None]]:
    """The results, and the gradients of a fixed combination of them by all tensors."""
    if gradient:
        arguments = {key: _leaf(value) for key, value in arguments.items()}
    found, learned = call(dtype, reference, **arguments)
    tensors = [t for t in arguments.values() if isinstance(t, Tensor)] + learned
    tensors = [t for t in tensors if t.requires_grad and t.is_leaf]
    results = [t for t in leaves(found) if t.requires_grad]
    if not (gradient and tensors and results):
        return found, []
    cotangents = [_cotangent(t) for t in results]
    return found, list(torch.autograd.grad(results, tensors, cotangents, allow_unused=True))


def _cotangent(t: Tensor) -> Tensor:
    if t.device.type == "meta":
        return torch.ones_like(t)
    numbers = torch.arange(t.numel(), dtype=torch.float64).mul(0.7).cos().reshape(t.shape)
    return numbers.to(t.dtype)


def _leaf(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_inference():
        return value
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        return value
    return value.detach().requires_grad_()


def _plain(arguments: dict[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """The same values in ordinary contiguous tensors, of this dtype."""
    return {key: _plain_value(value, dtype) for key, value in arguments.items()}


def _plain_value(value: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(value, PackedSequence):
        return value._replace(data=_plain_value(value.data, dtype))
    if isinstance(value, nn.Module):
        return copy.deepcopy(value) if dtype is None else copy.deepcopy(value).to(dtype)
    if not isinstance(value, Tensor):
        return value
    value = value.detach().as_subclass(Tensor)
    to = value.dtype if dtype is None or not value.is_floating_point() else dtype
    return torch.empty(value.shape, dtype=to).copy_(value)


def _copy(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.device.type == "meta" or value.layout != torch.strided:
        return None
    if value.is_nested or value.is_quantized or value.dtype not in DTYPES or max(value.shape, default=0) > 1_000_000:
        return None
    return value.detach().clone()


def _check_untouched(name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before.items():
        if value is not None and not torch.allclose(value, after[key].detach(), rtol=0, atol=0, equal_nan=True):
            raise Fault(f"{name} wrote {key}", f"{name} changed its argument {key}")
