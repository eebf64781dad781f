"""Why the compiled CUDA kernels cannot run on a device: the driver, then the device, asked when a call needs to know.

What a device answered is kept; that one did not answer, or refused, is asked again by the next call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vfrnn_kernels.loader import build_info

#: The compute capability from which on the kernels' products exist.
LEAST_CAPABILITY = 80
#: The oldest driver that runs what a CUDA toolkit linked in, by its major version: the minor ones are compatible.
LEAST_DRIVER = {12: 525, 13: 580}


@dataclass(frozen=True)
class CudaDevice:
    """A device as the kernels' plans see it, and the architecture of the code that it runs; 0 if there is none."""

    architecture: int
    code: int
    multiprocessors: int
    shared_limit: int
    largest_cluster: int

    @property
    def refuses(self) -> str | None:
        """Why the kernels do not run here, None if they do."""
        if self.architecture < LEAST_CAPABILITY:
            least, found = spelled(LEAST_CAPABILITY), spelled(self.architecture)
            return f"it needs compute capability {least} or newer, this GPU has {found}"
        if self.code == 0:
            return f"it was compiled for {architectures()}, none of which this GPU of sm_{self.architecture} runs"
        return None


def spelled(capability: int) -> str:
    """A compute capability as the documentation writes it: 90 is "9.0"."""
    return f"{capability // 10}.{capability % 10}"


def version(cuda: int) -> str:
    """A version of CUDA as the documentation writes it: 12080 is "12.8"."""
    return f"{cuda // 1000}.{cuda % 1000 // 10}"


def architectures() -> str:
    """What libvfrnn_cuda.so was built for, as "sm_80, sm_90a, sm_100+PTX"."""
    built = build_info().get("cuda")
    return (
        f"sm_{built.replace(', ', ', sm_')}" if built else "unknown architectures (vfrnn_kernels._host does not load)"
    )


def least_driver(toolkit: int) -> str:
    """The drivers that run what this major version of the toolkit linked in."""
    return f"driver {LEAST_DRIVER[toolkit]}" if toolkit in LEAST_DRIVER else f"a driver of CUDA {toolkit}"


def driver_refusal() -> str | None:
    """Why the driver does not run the kernels, None if it does.

    Raises:
        RuntimeError: the driver does not answer.
    """
    driver, runtime = torch.ops.vfrnn_kernels.cuda_versions()
    if driver == 0:
        return "there is no NVIDIA driver"
    if driver // 1000 >= runtime // 1000:
        return None
    return (
        f"it was built with CUDA {version(runtime)} and needs {least_driver(runtime // 1000)} or newer, "
        f"this driver serves CUDA up to {version(driver)}"
    )


def cuda_device(index: int) -> CudaDevice:
    """The device of that index.

    Raises:
        RuntimeError: the runtime does not answer; its message says why.
    """
    return CudaDevice(*torch.ops.vfrnn_kernels.cuda_device(index))


#: The devices on which the kernels run.
_served: set[int] = set()


def refusal(device: torch.device) -> str | None:
    """Why the kernels cannot run on that device (without an index: the current one), None if they can."""
    index = torch.cuda.current_device() if device.index is None else device.index
    if index in _served:
        return None
    try:
        reason = driver_refusal() or cuda_device(index).refuses
    except RuntimeError as error:
        return str(error).splitlines()[0]
    if reason is None:
        _served.add(index)
    return reason


# What torch.compiler.assume_constant_result does: a graph is made for the answer of that moment. The function itself
# would import the compiler, which takes a second of everybody's time. The argument is the device, since PyTorch 2.15
# takes no number here that it has not yet decided to keep.
refusal._dynamo_marked_constant = True  # type: ignore[attr-defined]
