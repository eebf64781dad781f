"""Whether the CUDA kernels can run: what the driver and a device answer, the reasons, and who serves instead."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vfrnn_kernels import cuda_device, dispatch
from vfrnn_kernels.cuda_device import CudaDevice
from vfrnn_kernels.dispatch import BACKENDS, select_backend
from vfrnn_kernels.loader import TRITON_MISSING

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
H200 = CudaDevice(90, 90, 132, 232448, 16)


class OnGpu:
    """What the choice of a backend asks of a CUDA tensor."""

    device, dtype = torch.device("cuda", 0), torch.float32


@pytest.fixture
def machine(monkeypatch):
    """A machine with a library, a driver and a device, each to be replaced: answers, and errors to be raised."""
    answers = {"driver": (13000, 13000), "device": H200}

    def answer(name):
        found = answers[name]
        if isinstance(found, Exception):
            raise found
        return found

    class Ops:
        @staticmethod
        def cuda_versions():
            return answer("driver")

    monkeypatch.setattr(cuda_device.torch.ops, "vfrnn_kernels", Ops)
    monkeypatch.setattr(cuda_device, "cuda_device", lambda index: answer("device"))
    monkeypatch.setattr(cuda_device, "_served", set())
    monkeypatch.setattr(cuda_device, "architectures", lambda: "sm_80, sm_90a")
    return answers


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, None),
        ({"driver": (13010, 12090)}, None),
        ({"driver": (12000, 12090)}, None),  # 525 serves every minor version of 12
        ({"driver": (0, 12090)}, "there is no NVIDIA driver"),
        (
            {"driver": (12080, 13000)},
            "it was built with CUDA 13.0 and needs driver 580 or newer, this driver serves CUDA up to 12.8",
        ),
        (
            {"driver": (11080, 12090)},
            "it was built with CUDA 12.9 and needs driver 525 or newer, this driver serves CUDA up to 11.8",
        ),
        (
            {"driver": (13000, 14000)},
            "it was built with CUDA 14.0 and needs a driver of CUDA 14 or newer, this driver serves CUDA up to 13.0",
        ),
        ({"driver": RuntimeError("the driver does not answer: busy\nat x.cpp:1")}, "the driver does not answer: busy"),
        (
            {"device": replace(H200, architecture=75, code=0)},
            "it needs compute capability 8.0 or newer, this GPU has 7.5",
        ),
        (
            {"device": replace(H200, architecture=100, code=0)},
            "it was compiled for sm_80, sm_90a, none of which this GPU of sm_100 runs",
        ),
        ({"device": replace(H200, architecture=86, code=80)}, None),
        ({"device": RuntimeError("no kernel can be loaded")}, "no kernel can be loaded"),
    ],
)
def test_the_reason_is_what_is_in_the_way(machine, answers, reason):
    machine.update(answers)
    assert cuda_device.refusal(torch.device("cuda", 0)) == reason


def test_a_failure_is_asked_again_and_an_answer_is_kept(machine):
    machine["device"] = RuntimeError("out of memory")
    assert cuda_device.refusal(torch.device("cuda", 1)) == "out of memory"
    machine["device"] = H200
    assert cuda_device.refusal(torch.device("cuda", 1)) is None
    machine["device"] = machine["driver"] = RuntimeError("gone")
    assert cuda_device.refusal(torch.device("cuda", 1)) is None
    assert cuda_device.refusal(torch.device("cuda", 2)) == "gone"


@pytest.mark.skipif(TRITON_MISSING is not None, reason="needs Triton")
def test_triton_serves_where_the_kernels_cannot_run(machine, monkeypatch):
    monkeypatch.delenv("VFRNN_BACKEND", raising=False)
    monkeypatch.setattr(dispatch, "CUDA_SIMULATED", None)
    loaded = tuple(replace(b, missing=None) if b.name == "cuda" else b for b in BACKENDS)
    monkeypatch.setattr(dispatch, "BACKENDS", loaded)
    machine["driver"] = (12080, 13000)
    assert select_backend("recurrence", None, [OnGpu()]) == "triton"
    with pytest.raises(RuntimeError, match=r"backend 'cuda' \(from backend\) .* needs driver 580 or newer"):
        select_backend("recurrence", "cuda", [OnGpu()])
    machine["driver"] = (13000, 13000)
    assert select_backend("recurrence", None, [OnGpu()]) == "cuda"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own compiler
def test_a_graph_is_not_broken_by_the_question(machine):
    def next_or_last(x, device):
        return x + 1 if cuda_device.refusal(device) is None else x - 1

    compiled = torch.compile(next_or_last, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(()), torch.device("cuda", 0)) == 1
    machine["device"] = replace(H200, architecture=75)
    assert compiled(torch.zeros(()), torch.device("cuda", 3)) == -1


ASK = """
import dataclasses, json, sys, torch, vfrnn_kernels
from vfrnn_kernels import cuda_device, dispatch
class OnGpu:
    device, dtype = torch.device("cuda", 0), torch.float32
torch.ops.load_library(sys.argv[1])
dispatch.BACKENDS = tuple(dataclasses.replace(b, missing=None) if b.name == "cuda" else b for b in dispatch.BACKENDS)
found = [*torch.ops.vfrnn_kernels.cuda_versions(), cuda_device.refusal(torch.device("cuda", 0))]
try:
    found.append(dispatch.select_backend("recurrence", None, [OnGpu()]))
except RuntimeError as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def asking_library(tmp_path_factory):
    """Of the CUDA library what asks, with nvcc's static runtime, and beside it a driver that reports any version."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    folder, torch_root = tmp_path_factory.mktemp("asks"), Path(torch.__file__).parent
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", HERE / "stub_driver.c"], check=True)
    subprocess.run(
        [
            *("nvcc", "-std=c++17", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden"),
            *("-gencode", "arch=compute_90,code=compute_90"),
            *("-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-o", folder / "libasks.so"),
            *("-I", ROOT / "csrc", "-isystem", torch_root / "include"),
            *(ROOT / "csrc/common" / name for name in ("gpu.cu", "cuda_device.cpp")),
            *("-L", torch_root / "lib", "-ltorch", "-ltorch_cpu"),
        ],
        check=True,
        timeout=250,
    )
    return folder / "libasks.so"


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a CPU build of torch: the stub is no driver for it")
@pytest.mark.parametrize("driver", [11080, 12080, 99000])
def test_a_driver_that_is_too_old_is_the_reason(asking_library, driver):
    found = subprocess.run(
        [sys.executable, "-c", ASK, asking_library],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=ROOT,
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(asking_library.parent),
            "STUB_DRIVER": str(driver),
            "VFRNN_BACKEND": "",
        },
    )
    reported, runtime, reason, chosen = json.loads(found.stdout)
    assert reported == driver
    too_old = (
        f"it was built with CUDA {cuda_device.version(runtime)} and needs {cuda_device.least_driver(runtime // 1000)} "
        f"or newer, this driver serves CUDA up to {cuda_device.version(driver)}"
    )
    # a driver that is new enough leaves the device in the way, which is not there
    assert (reason == too_old) == (driver // 1000 < runtime // 1000)
    assert reason
    assert chosen == "triton" or (TRITON_MISSING is not None and reason in chosen)
