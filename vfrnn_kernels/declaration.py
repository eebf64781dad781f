"""The declaration of an op: the one place where its tensors, constants, dtypes and sizes are written down.

`vfrnn_kernels/<op>/op.py` makes one `Op`. From it come the schemas of the library ops, the checks of arguments, the
fake kernels, what each backend serves, the small inputs that `vfrnn doctor`, `vfrnn warmup` and the tests on a GPU run,
and the README's table of what runs where. `OPS` has every one of them, in the order in which the package imports them.

A shape is written in letters, "T B i": every letter is a size, the same wherever it stands. What a user gives may have
other shapes than what the kernels get: `given` lists them, "m d | B m d"; "... n n" has any leading dimensions.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from vfrnn_kernels.checks import check_rank, check_shape, check_tensor

Tensors = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]
Sizes = dict[str, int]

#: What is compiled for the CPU computes in these.
REAL = (torch.float32, torch.float64)


@dataclass(frozen=True)
class T:
    """A tensor of an op.

    Attributes:
        name: of the argument or result.
        shape: in letters and numbers, as the kernels get it; "" has no dimension.
        optional: it may be None.
        given: the shapes that a user may give, where they differ from `shape`.
        like: the tensor whose dtype it has, or a torch.dtype; None is the op's first.
        at_least_one: what its first letter counts, as in "M must have at least one row".
    """

    name: str
    shape: str
    optional: bool = False
    given: str | None = None
    like: str | torch.dtype | None = None
    at_least_one: str | None = None
    shapes: tuple[tuple[str, ...], ...] = field(init=False)
    batched: bool = field(init=False)
    numbers: Sizes = field(init=False)

    def __post_init__(self) -> None:
        shapes = [tuple(shape.split()) for shape in (self.given or self.shape).split(" | ")]
        object.__setattr__(self, "batched", shapes[0][:1] == ("...",))
        object.__setattr__(self, "numbers", {n: int(n) for shape in shapes for n in shape if n.isdigit()})
        object.__setattr__(self, "shapes", tuple(shape[1:] if self.batched else shape for shape in shapes))

    @property
    def schema(self) -> str:
        return f"Tensor{'?' if self.optional else ''} {self.name}"

    def check(self, tensor: Tensor, sizes: Sizes) -> None:
        """`tensor` has one of the shapes that a user may give; letters that are new get their sizes.

        Raises:
            ValueError: it has not.
        """
        letters, actual = self.shapes[0], tensor.shape
        if self.batched:
            actual = actual[len(actual) - len(letters) :]
        elif len(self.shapes) > 1:
            letters = next((shape for shape in self.shapes if len(shape) == len(actual)), self.shapes[-1])
        if self.numbers:
            sizes.update(self.numbers)
        known = len(sizes)
        if len(actual) == len(letters):
            for letter, size in zip(letters, actual, strict=True):
                if sizes.setdefault(letter, size) != size:
                    break
            else:
                if self.at_least_one is None or actual[0] > 0:
                    return
        self._refuse(tensor, letters, dict(list(sizes.items())[:known]))

    def _refuse(self, tensor: Tensor, letters: tuple[str, ...], known: Sizes) -> None:
        given = [("...", *shape) if self.batched else shape for shape in self.shapes]
        spelled = " or ".join(f"({s[0]},)" if len(s) == 1 else f"({', '.join(s)})" for s in given)
        every = [letter for shape in reversed(self.shapes) for letter in shape]
        free, leading = {}, tensor.shape[: max(tensor.dim() - len(letters), 0)]
        actual = tensor.shape[len(leading) :]
        if not all(letter in known for letter in letters) or self.batched:
            check_rank(self.name, tensor, spelled, len(letters), batched=self.batched)
            # what the tensor itself says of a letter that stands twice, as n in (n, n), and of those that are free
            free = dict(reversed(list(zip(letters, actual, strict=True)))) | known
            known |= {letter: free[letter] for letter in letters if letters.count(letter) > 1}
        if self.at_least_one is not None and actual[:1] == (0,):
            raise ValueError(f"{self.name} must have at least one {self.at_least_one}, got shape {tuple(tensor.shape)}")
        expected = [*(leading if self.batched else ()), *((free | known)[letter] for letter in letters)]
        told = {letter: known[letter] for letter in every if letter in known and letter not in self.numbers}
        check_shape(self.name, tensor, spelled, expected, **told)


@dataclass(frozen=True)
class Constant:
    """An argument of an op that is no tensor."""

    name: str
    kind: Literal["str", "bool", "int"]

    @property
    def schema(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Sample:
    """Small arguments of an op's Python function, by name, and which of them are learned (None: all tensors)."""

    arguments: dict[str, Any]
    learned: tuple[str, ...] | None = None

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The tensors that are learned."""
        tensors = {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}
        return tensors if self.learned is None else {name: tensors[name] for name in self.learned}


@dataclass(frozen=True)
class Saved:
    """What a forward returns beside its results, for its backward.

    `sizes` gives the letters that no input has, from the sizes of the inputs and all arguments.
    """

    tensors: tuple[T, ...] = ()
    sizes: Callable[[Sizes, Sequence[Any]], Sizes] = lambda sizes, arguments: {}


@dataclass(frozen=True)
class Flops:
    """Additions and multiplications of an op's products of matrices.

    Attributes:
        forward: from the sizes of the letters, and what the library op gets and returns, by name.
        backward: the same, and the names of the inputs whose gradients are asked for: at least one.
    """

    forward: Callable[[Sizes, Mapping[str, Any]], int]
    backward: Callable[[Sizes, Mapping[str, Any], frozenset[str]], int]


@dataclass(frozen=True, eq=False)
class Op:
    """A differentiable op.

    Attributes:
        name: of the op; its backward is `<name>_backward` (the convention of csrc/ops.cpp).
        inputs, constants, outputs: its arguments and results, in the order of the schema.
        reference: the op in plain differentiable PyTorch, `(*inputs, *constants) -> outputs`.
        reference_backward: `(*grad_outputs, *inputs, *outputs, *constants) -> one gradient per input`.
        saved: what the library op keeps for its backward; `saved_by_triton`, where the Triton kernels save others.
        flops: what torch.utils.flop_counter counts (flops.py).
        serves: what each compiled backend computes in.
        largest_n: of each backend that has one.
        sample: `(n, **variation) -> Sample`: small arguments of the op's Python function.
        variations: `(n, dtypes) -> variations of sample`, one for every kernel of the Triton backend that an n needs.
        route_sizes: one n for every route that the CUDA kernels of the op take.
        composed: what has the functions `<name>` and `<name>_backward`, by keyword, where the library op is put
            together in Python; None: csrc/ops.cpp has it.
        composed_on_cuda: the same, for the CUDA kernels of an op whose CPU kernels are in C++.
        triton: the same, of the Triton kernels; None: the module `<name>/triton_kernels.py`.
        samples: the letters that count samples which the op computes each by itself, in the shapes of
            inputs, results and saved tensors: what torch.vmap maps joins them (batching.py). None, where every sample
            is called by itself.
        per_sample: `(run, count, wanted, *arguments of the backward but needs) -> gradients by name`: of the tensors
            without such a letter for each of `count` groups of samples, by calls of the backward, `run(*arguments,
            needs)`, for others; they come with the group in front, those of tensors with samples as they are.
        timed: of a recurrent op, the inputs that begin with the time, x first; `state` is its first state, `into` the
            library op that computes the states into its first argument, and `reverse` finds a chunk of steps from its
            last state (final_state.py).
        capturable: whether its CUDA launches can be recorded in a CUDA graph.
    """

    name: str
    inputs: tuple[T, ...]
    constants: tuple[Constant, ...]
    outputs: tuple[T, ...]
    reference: Callable[..., Tensors]
    reference_backward: Callable[..., Gradients]
    flops: Flops
    serves: Mapping[str, tuple[torch.dtype, ...]]
    sample: Callable[..., Sample]
    variations: Callable[[int, Sequence[torch.dtype]], Iterator[dict[str, Any]]] = lambda n, dtypes: iter([{}])
    saved: Saved = Saved()
    saved_by_triton: Saved | None = None
    largest_n: Mapping[str, int] = field(default_factory=dict)
    route_sizes: tuple[int, ...] = (17,)
    composed: Any = None
    composed_on_cuda: Any = None
    triton: Any = None
    samples: tuple[str, ...] = ()
    per_sample: Callable[..., dict[str, Tensor]] | None = None
    timed: tuple[str, ...] = ()
    state: str | None = None
    into: str | None = None
    reverse: Callable[..., Tensor] | None = None
    capturable: bool = True
    input_names: tuple[str, ...] = field(init=False)
    by_name: dict[str, T] = field(init=False)

    def __post_init__(self) -> None:
        if set(self.serves) != {"cpu", "cuda", "triton"}:
            raise ValueError(f"{self.name} must say what cpu, cuda and triton serve, got {sorted(self.serves)}")
        object.__setattr__(self, "input_names", tuple(t.name for t in self.inputs))
        object.__setattr__(self, "by_name", {t.name: t for t in self.inputs})

    def saved_on(self, backend: str) -> Saved:
        """What the forward of a backend keeps for its backward; the reference keeps nothing."""
        if backend == "reference":
            return Saved()
        return self.saved_by_triton or self.saved if backend == "triton" else self.saved

    def index(self, name: str) -> int:
        """The place of an input."""
        return self.input_names.index(name)

    def schemas(self, library_name: str, saved: Saved) -> tuple[str, str]:
        """The schemas of the library op and of its backward."""
        inputs, constants = [t.schema for t in self.inputs], [c.schema for c in self.constants]
        results = [t.schema for t in (*self.outputs, *saved.tensors)]
        one = results[0].split()[0] if len(results) == 1 else f"({', '.join(results)})"
        grads = [f"Tensor grad_{t.name}" for t in self.outputs]
        backward = [*grads, *inputs, *results, *constants, "int needs"]
        found = ", ".join(f"Tensor grad_{t.name}" for t in self.inputs)
        return (
            f"{library_name}({', '.join([*inputs, *constants])}) -> {one}",
            f"{library_name}_backward({', '.join(backward)}) -> ({found})",
        )

    def check(self, known: Sizes | None = None, *, like: str | None = None, **values: Any) -> Sizes:
        """The sizes of the letters, from tensors in the order given, which is that in which letters get their sizes.

        Args:
            known: sizes of letters that are known already.
            like: name of the tensor whose dtype and device the others have; None is the first one given.
            values: what the caller gave for the inputs, by name; the first state may be None, for zero.

        Raises:
            TypeError, ValueError: a tensor has the wrong type, dtype, device or shape.
        """
        sizes: Sizes = {} if known is None else dict(known)
        like = like or next(iter(values))
        first = values[like]
        check_tensor(like, first)
        for name, value in values.items():
            declared = self.by_name[name]
            if value is None and (declared.optional or name == self.state):
                continue
            if value is not first:
                check_tensor(name, value, first, like)
            declared.check(value, sizes)
        return sizes

    def sizes(self, arguments: Sequence[Any]) -> Sizes:
        """The sizes of the letters, from tensors as the kernels get them."""
        found: Sizes = {}
        for declared, tensor in zip(self.inputs, arguments, strict=False):
            if tensor is not None:
                found.update(zip(declared.shape.split(), tensor.shape, strict=True))
        return found

    def empty_results(self, saved: Saved, *arguments: Any) -> Tensors:
        """Results of the right shapes and dtypes, unwritten: what a fake kernel returns."""
        tensors = dict(zip(self.input_names, arguments, strict=False))
        sizes = self.sizes(arguments)
        sizes |= saved.sizes(sizes, arguments)

        def empty(t: T) -> Tensor:
            shape = [int(letter) if letter.isdigit() else sizes[letter] for letter in t.shape.split()]
            if isinstance(t.like, torch.dtype):
                return arguments[0].new_empty(shape, dtype=t.like)
            return (arguments[0] if t.like is None else tensors[t.like]).new_empty(shape)

        return tuple(empty(t) for t in (*self.outputs, *saved.tensors))

    def places(self, needs: int) -> list[int]:
        """The places of the inputs whose gradients are asked for: bit k of `needs` is the k-th."""
        return _places(len(self.inputs), needs)

    def wanted(self, needs: int) -> frozenset[str]:
        """The names of the inputs whose gradients are asked for."""
        return frozenset(self.input_names[k] for k in self.places(needs))

    def needs(self, wanted: Sequence[bool]) -> int:
        """The number whose bit k says whether the k-th gradient is asked for."""
        return sum(1 << k for k, asked in enumerate(wanted) if asked)

    def refuses(self, backend: str, dtype: torch.dtype, n: int | None) -> str | None:
        """Why the kernels of a backend cannot compute the op in this dtype for n nodes, or None."""
        served = self.serves[backend]
        if dtype not in served:
            names = [str(d).removeprefix("torch.") for d in served]
            words = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
            return f"it computes {self.name} in {words}, got {dtype}"
        largest = self.largest_n.get(backend)
        if n is not None and largest is not None and n > largest:
            return f"it computes {self.name} up to n = {largest}, got n = {n}"
        return None

    @property
    def function(self) -> Callable[..., Any]:
        """What users call."""
        return getattr(importlib.import_module(f"vfrnn_kernels.{self.name}"), self.name)


@functools.cache
def _places(count: int, needs: int) -> list[int]:
    return [k for k in range(count) if needs >> k & 1]


#: Every op, by name.
OPS: dict[str, Op] = {}


def declare(op: Op) -> Op:
    """Adds the op to OPS."""
    OPS[op.name] = op
    return op
