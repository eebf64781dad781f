"""What the Triton kernels of every op share: how a configuration is described, compiled ahead of time and launched.

Imported by `<op>/triton_kernels.py` only, so that Triton itself loads at the first use of the backend and not with the
package. An op lists every kernel x configuration that it can launch as `KernelSpec`s: the same object is launched,
warmed up and compiled ahead of time by the tests, which hold its registers and shared memory to the limits below.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

#: Whether kernels run in Triton's interpreter, on CPU tensors. It is decided when a kernel is decorated.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

#: The architectures that the kernels are compiled for in the tests: Ampere, Hopper, Blackwell.
ARCHITECTURES = (80, 90, 100)

_SPELLED = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class KernelSpec:
    """One configuration of one kernel.

    Attributes:
        kernel: the `triton.jit` function.
        signature: Triton type of every run-time argument, in order: "*fp32", "i32", "fp32", ...
        constexprs: value of every compile-time argument.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline of loops.
        divisible: names of the integers that are promised to be multiples of 16 (pointers are, where a kernel is
            specialised on their alignment).
    """

    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 1
    divisible: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The kernel and its configuration in words: the key of the table of resources."""
        types = [kind[1:] for kind in self.signature.values() if kind.startswith("*")]
        runs = [(kind, len(list(run))) for kind, run in itertools.groupby(types)]
        words = [self.kernel.__name__, *(kind if count == 1 else f"{count}x{kind}" for kind, count in runs)]
        words += [f"{key}={value}" for key, value in self.constexprs.items()]
        words += [f"{name}%16=0" for name in self.divisible]
        return " ".join([*words, f"w{self.num_warps}", f"s{self.num_stages}"])

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compiler. Multiply-adds may be fused: said here, because Triton's default will change."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    def launch(self, grid: Sequence[int], *arguments: Any) -> None:
        """Runs the kernel on the current stream; `arguments` in the order of the signature."""
        self.kernel[tuple(grid)](*arguments, **self.constexprs, **self.options)


def pointer(dtype: torch.dtype) -> str:
    """The type of a pointer to a tensor of this dtype, for `KernelSpec.signature`."""
    return f"*{_SPELLED[dtype]}"


def next_power_of_2(size: int) -> int:
    """The least power of two that is at least `size`."""
    return 1 << max(size - 1, 0).bit_length()


def block_size(size: int, smallest: int = 16) -> int:
    """The least power of two that covers `size` and that `tl.dot` takes as a dimension."""
    return max(smallest, next_power_of_2(size))


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def architecture(device: torch.device) -> int:
    """Compute capability as in sm_90: 90. The interpreter counts as 90."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def shared_memory_limit(arch: int) -> int:
    """Bytes of shared memory that one program may use (CUDA programming guide, technical specifications)."""
    return {80: 163, 87: 163, 90: 227, 100: 227, 103: 227}.get(arch, 99) * 1024


def processors(device: torch.device) -> int:
    """Number of streaming multiprocessors."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's device the one that kernels launch on."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else contextlib.nullcontext()


def compile_spec(spec: KernelSpec, arch: int) -> Any:
    """The kernel compiled for an architecture, with no device at hand.

    Raises:
        RuntimeError: kernels run in the interpreter, which compiles nothing.
    """
    if INTERPRETED:
        raise RuntimeError("kernels decorated with TRITON_INTERPRET=1 set cannot be compiled")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = spec.kernel.arg_names
    signature = {name: "constexpr" if name in spec.constexprs else spec.signature[name] for name in names}
    aligned = {p.name for p in spec.kernel.params if not p.do_not_specialize_on_alignment}
    attributes = {
        (k,): [["tt.divisibility", 16]]
        for k, name in enumerate(names)
        if (signature[name].startswith("*") and name in aligned) or name in spec.divisible
    }
    source = ASTSource(fn=spec.kernel, signature=signature, constexprs=dict(spec.constexprs), attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=spec.options)
