"""What the Triton kernels of every op share: sizes of blocks, names of configurations, the limits they are held to."""

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton")

from vfrnn_kernels import triton_runtime as runtime
from vfrnn_kernels.library import triton_kernels


@pytest.mark.parametrize(
    ("size", "power", "block"), [(0, 1, 16), (1, 1, 16), (16, 16, 16), (17, 32, 32), (257, 512, 512)]
)
def test_blocks_are_powers_of_two_that_cover(size, power, block):
    assert runtime.next_power_of_2(size) == power
    assert runtime.block_size(size) == block


def test_division_rounds_up():
    assert [runtime.cdiv(a, 4) for a in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_pointers_are_spelled_as_triton_does():
    assert [runtime.pointer(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)] == [
        "*fp32",
        "*fp16",
        "*bf16",
    ]


def test_shared_memory_of_an_unknown_device_is_the_least():
    known = [runtime.shared_memory_limit(arch) for arch in runtime.ARCHITECTURES]
    assert known == sorted(known)
    assert runtime.shared_memory_limit(89) < min(known)


def test_the_name_of_a_configuration_tells_all_of_it():
    class Kernel:
        __name__ = "moved_kernel"

    signature = {"x_ptr": "*fp32", "h_ptr": "*fp32", "M_ptr": "*bf16", "n": "i32"}
    spec = runtime.KernelSpec(Kernel(), signature, {"BLOCK": 32}, num_warps=8, divisible=("n",))
    assert spec.name == "moved_kernel 2xfp32 bf16 BLOCK=32 n%16=0 w8 s1"
    assert spec.options == {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}


def test_a_launch_passes_arguments_constants_and_options():
    calls = []

    class Kernel:
        __name__ = "kernel"

        def __getitem__(self, grid):
            return lambda *arguments, **constants: calls.append((grid, arguments, constants))

    runtime.KernelSpec(Kernel(), {"x_ptr": "*fp32"}, {"BLOCK": 16}).launch([2, 3], "x")
    assert calls == [((2, 3), ("x",), {"BLOCK": 16, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": True})]


def test_the_interpreter_counts_as_a_device():
    assert runtime.architecture(torch.device("cpu")) == 90
    assert runtime.processors(torch.device("cpu")) == 1
    with runtime.on_device_of(torch.zeros(1)):
        pass


def test_interpreted_kernels_cannot_be_compiled(monkeypatch):
    monkeypatch.setattr(runtime, "INTERPRETED", True)
    spec = next(iter(triton_kernels("recurrence").specs()))
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1 set cannot be compiled"):
        runtime.compile_spec(spec, 90)
