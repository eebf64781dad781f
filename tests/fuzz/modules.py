"""Calls of every network and cell: constructed, perhaps copied, and called, against its backend "reference" in
float64."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import vfrnn
from tests.fuzz import values
from tests.fuzz.ops import compared, constant_values, tensor_changes
from tests.fuzz.oracle import Fault, refused, template, told
from tests.fuzz.values import changed
from vfrnn.layers import Recurrent
from vfrnn.network import Network
from vfrnn_kernels.activations import ACTIVATIONS

MODULES: dict[str, Any] = {
    name: value
    for name in vfrnn.__all__
    if inspect.isclass(value := getattr(vfrnn, name)) and issubclass(value, Recurrent)
}
#: What torch.nn.RNN's words, which are ours, call the arguments.
WORDS = ("hidden", "hidden0", "sequence", "layer", "reverse", "parameters", "state_dict")
#: Python source of right values of constructors' arguments, by name; by annotation where the name is not there.
RIGHT: dict[str, Sequence[str]] = {
    "num_layers": ("1", "2"),
    "nonlinearity": tuple(map(repr, ACTIVATIONS)),
    "dropout": ("0.0", "0.5", "1.0"),
    "recurrent_dropout": ("0.0", "0.5"),
    "zoneout": ("0.0", "0.1", "1.0"),
    "dt": ("1.0", "0.5", "-1", "0.0"),
    "substeps": ("1", "2", "3"),
    "init": ("'henaff'", "'cayley'", "'zero'"),
    "exp_dtype": ("None", "torch.float64"),
    "device": ("None", "'cpu'", "'meta'"),
    "dtype": ("None", "torch.float32", "torch.float64", "torch.float64", "torch.float16", "torch.bfloat16"),
    "backend": ("None",),
    "proj_size": ("None",),
}
DEVICES = ("3", "'nowhere'", "'cuda'", "'meta'", "torch.float32", "''")


def mesh(kind: str, n: int, **options: Any) -> vfrnn.LatentMesh:
    """A mesh of that kind with n nodes."""
    torch.manual_seed(n)
    if kind == "random":
        return vfrnn.LatentMesh.random(n, max(1, n - 1), 2, **options)
    if kind == "edges":
        return vfrnn.LatentMesh.from_edges(n, [(k, k + 1) for k in range(n - 1)], **options)
    if kind == "dense":
        return vfrnn.LatentMesh.complete(n, **options).dense()
    return vfrnn.LatentMesh.grid(n, **options) if kind == "grid" and n > 1 else vfrnn.LatentMesh.complete(n, **options)


def marks(*shape: int, seed: int = 0) -> Tensor:
    """Some True."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3


def packed(x: Tensor, lengths: Sequence[int], batch_first: bool = False) -> PackedSequence:
    """Sequences of these lengths, packed."""
    return pack_padded_sequence(x, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False)


@functools.cache
def parameters(name: str, method: str) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(MODULES[name] if method == "" else getattr(MODULES[name], method)).parameters)
    return {key: value for key, value in found.items() if key != "self"}


def odd(parameter: inspect.Parameter) -> Sequence[str]:
    """Python source of odd values of a constructor's argument."""
    annotation = str(parameter.annotation)
    if "device" in annotation:
        return DEVICES
    if "torch.dtype" in annotation:
        return (*values.DTYPES, "'float32'", "3", "float")
    if "Mesh" in annotation:
        return (
            "None",
            "mesh('complete', 4)",
            "mesh('random', 3)",
            "mesh('random', 6, dtype=torch.float64)",
            "'complete'",
            "1",
        )
    return constant_values(annotation)


@st.composite
def constructors(draw: Callable[..., Any], name: str) -> tuple[dict[str, Any], str]:
    """Sizes of a module, and the arguments of its constructor as Python source."""
    i, n = draw(st.sampled_from((1, 2, 3, 5))), draw(st.sampled_from((1, 2, 3, 4, 6, 17)))
    sizes: dict[str, Any] = {"input_size": i, "hidden_size": n, "num_layers": 1}
    given = {"input_size": str(i), "hidden_size": str(n)}
    for key, parameter in parameters(name, "").items():
        if key in given or (parameter.default is not inspect.Parameter.empty and draw(st.integers(0, 3))):
            continue
        if key == "mesh":
            kind = draw(st.sampled_from(("random", "complete", "edges", "grid", "dense")))
            given[key] = f"mesh('{kind}', {n})"
        else:
            right = RIGHT.get(key, ("True", "False") if "bool" in str(parameter.annotation) else ("None",))
            given[key] = draw(st.sampled_from(right))
    sizes |= {key: eval(given[key]) for key in ("num_layers", "batch_first", "bidirectional") if key in given}
    if draw(st.integers(0, 3)) == 0:
        key = draw(st.sampled_from(list(parameters(name, ""))))
        given[key] = draw(st.sampled_from(odd(parameters(name, "")[key])))
    return sizes, f"dict({', '.join(f'{key}={value}' for key, value in given.items())})"


@st.composite
def inputs(draw: Callable[..., Any], name: str, method: str, sizes: dict[str, Any]) -> dict[str, str]:
    """The arguments of a method, as Python source."""
    i, n = sizes["input_size"], sizes["hidden_size"]
    T, B = draw(st.sampled_from((1, 2, 3, 5, 0))), draw(st.sampled_from((1, 2, 3, 0)))
    states = sizes["num_layers"] * (1 + bool(sizes.get("bidirectional")))
    network, first = issubclass(MODULES[name], Network), bool(sizes.get("batch_first"))
    sequence = network and method == "forward"
    form = (
        draw(st.sampled_from(("batched", "batched", "unbatched", "packed")))
        if sequence
        else draw(st.sampled_from(("batched", "unbatched")))
    )
    batch = () if form == "unbatched" else (B,)
    time = (T,) if sequence else ()
    shape = (*batch, *time) if first and sequence else (*time, *batch)
    x = f"tensor{(*shape, i)}"
    lengths = [draw(st.integers(1, max(T, 1))) for _ in range(B)]
    pack = form == "packed" and T > 0 and B > 0
    if pack:
        x = f"packed({x}, {lengths}, batch_first={first})"
    hx = f"tensor{(*((states,) if network else ()), *batch, n)}"
    times = [
        str(draw(st.sampled_from((1.0, 0.5, -0.5, 0)))),
        f"tensor{shape or (1,)}",
        f"tensor{time or (1,)}",
        "tensor()",
    ]
    mask = f"marks{shape or (1,)}"
    if pack:
        times.append(f"packed(tensor{shape}, {lengths}, batch_first={first})")
        mask = f"packed({mask}, {lengths}, batch_first={first})"
    right = {
        "hx": hx,
        "state": hx,
        "dt": draw(st.sampled_from(times)),
        "reset": mask,
        "lengths": draw(st.sampled_from((str(lengths), f"torch.tensor({lengths}, dtype=torch.long)"))),
        "return_sequence": draw(st.sampled_from(("True", "False"))),
        "return_all_layers": draw(st.sampled_from(("True", "False"))),
        "mask": f"tensor{(*batch, n)}",
        "M": f"tensor{(n, n)}",
        "layer": draw(st.sampled_from(("0", "1", "-1"))),
        "reverse": draw(st.sampled_from(("True", "False"))),
        "batch_size": draw(st.sampled_from(("0", "1", "3"))),
    }
    given = {"input": x} if "input" in parameters(name, method) else {}
    for key in parameters(name, method):
        if key in right and draw(st.integers(0, 2)) == 0:
            given[key] = right[key]
    return given


METHODS = ("forward", "forward", "forward", "step", "step_matrix", "dropout_mask")
COPIES = ("", "", "", "", "copy.deepcopy", "pickled", "saved")


@st.composite
def calls(draw: Callable[..., Any], name: str) -> str:
    """Calls `module(...)`, as Python source."""
    sizes, constructor = draw(constructors(name))
    method = draw(st.sampled_from([m for m in METHODS if hasattr(MODULES[name], m)]))
    given = draw(inputs(name, method, sizes))
    changes = []
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        if not parameters(name, method):
            break
        key = draw(st.sampled_from(list(parameters(name, method))))
        annotation = str(parameters(name, method)[key].annotation)
        if "Tensor" in annotation and draw(st.integers(0, 3)):
            changes.append(f"('{key}', {draw(tensor_changes())})")
        else:
            changes.append(f"('{key}', ('is', {draw(st.sampled_from(constant_values(annotation)))}))")
    source = ", ".join(f"{key}={value}" for key, value in given.items())
    return (
        f"module('{name}', {constructor}, '{method}', dict({source}), changes=[{', '.join(changes)}], "
        f"copied='{draw(st.sampled_from(COPIES))}', train={draw(st.booleans())}, gradient={draw(st.booleans())})"
    )


def module(
    name: str,
    constructor: dict[str, Any],
    method: str,
    given: dict[str, Any],
    *,
    changes: Sequence[tuple[str, tuple[Any, ...]]] = (),
    copied: str = "",
    train: bool = True,
    gradient: bool = False,
) -> str:
    """The outcome of a call of a module.

    Args:
        name: of the class.
        constructor: its arguments.
        method: which is called.
        given: its arguments, of which floating-point tensors get the dtype of the parameters.
        changes: of them, `(argument, change)`, see `values.changed`.
        copied: how the module is copied before the call; the copy must give the same bits.
        train: whether it is in training.
        gradient: whether the gradients of parameters and inputs are compared too.

    Raises:
        Fault: it went wrong.
    """
    torch.manual_seed(0)
    names = (*parameters(name, ""), *parameters(name, method), *WORDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = MODULES[name](**constructor)
    except Exception as error:
        return "constructor " + refused(error, names, name)
    made.train(train)
    weight = next(made.parameters())
    with torch.no_grad():  # biases and scales that are not 0, so that they count
        for number, parameter in enumerate(made.parameters()):
            if parameter.device.type == "cpu":
                parameter.add_(0.1 * values.tensor(*parameter.shape, seed=number + 1, dtype=parameter.dtype))
    arguments = {key: _like(value, weight) for key, value in given.items()}
    for argument, change in changes:
        arguments[argument] = changed(arguments.get(argument), change)
    if copied and weight.device.type == "cpu":
        made = _copied(made, copied, method, arguments, constructor)
    noisy = train and any(getattr(made, key, 0) > 0 for key in ("dropout", "recurrent_dropout", "zoneout"))
    noisy |= method == "dropout_mask"

    def call(dtype: torch.dtype | None, reference: bool, /, **arguments: Any) -> Any:
        twin: Any = copy.deepcopy(made) if reference else made
        if reference:
            twin.backend = "reference"
            twin = twin if dtype is None else twin.to(dtype)
        torch.manual_seed(1)
        found = getattr(twin, method)(**arguments)
        return found, list(twin.parameters())

    return compared(f"{name}.{method}", call, arguments, names, gradient, weight.dtype, noisy)


def _like(value: Any, weight: Tensor) -> Any:
    if isinstance(value, PackedSequence):
        return value.to(weight.device)._replace(data=_like(value.data, weight))
    return value.to(weight) if isinstance(value, Tensor) and value.is_floating_point() else value


def _copied(made: Any, how: str, method: str, arguments: dict[str, Any], constructor: dict[str, Any]) -> Any:
    """The module copied in this way.

    Raises:
        Fault: it cannot be.
    """
    try:
        if how == "saved":
            torch.manual_seed(5)
            twin = type(made)(**constructor).train(made.training)
            twin.load_state_dict(made.state_dict())
        else:
            twin = pickle.loads(pickle.dumps(made)) if how == "pickled" else copy.deepcopy(made)
    except Exception as error:
        raise Fault(f"{type(made).__name__} {how}: {template(str(error))}", told(error)) from error
    for (key, before), after in zip(made.state_dict().items(), twin.state_dict().values(), strict=True):
        if not torch.equal(before, after):
            raise Fault(f"{type(made).__name__} {how} {key}", f"{key} differs in the copy")
    return twin
