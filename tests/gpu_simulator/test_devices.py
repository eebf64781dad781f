"""Devices other than ours, simulated: every plan fits, and a small case of each op runs (`make test-gpu-simulated`)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases import quick
from tests.gpu_simulator.run import ROOT, environment
from vfrnn_kernels.loader import CUDA_SIMULATED

pytestmark = pytest.mark.skipif(
    "simulated" not in (CUDA_SIMULATED or ""),
    reason="needs the simulator (python -m tests.gpu_simulator.run -- tests/gpu_simulator/test_devices.py)",
)

#: A100; A40; L40; H100, and such that run clusters of 8 at most, or none; B200; RTX 50.
DEVICES = {
    "8.0": {},
    "8.6": {},
    "8.9": {},
    "9.0": {},
    "9.0, clusters of 8": {"cluster": 8},
    "9.0, no clusters": {"cluster": 1},
    "10.0": {},
    "12.0": {},
}
CODE = {"8": "80", "9": "90a", "1": "100"}


def on_device(name: str, *command: str) -> subprocess.CompletedProcess:
    settings = environment(Path(CUDA_SIMULATED).parent, device=name.split(",")[0], **DEVICES[name])
    arguments = [sys.executable, "-m", *command]
    return subprocess.run(arguments, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=3000)


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", quick(DEVICES, "8.6", "9.0"))
def test_every_launch_fits(name):
    result = on_device(name, "tests.gpu_simulator.devices")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", quick(DEVICES, "9.0, no clusters"))
def test_a_small_case_of_each_op(name):
    if not list((Path(CUDA_SIMULATED).parent / "code" / CODE[name[0]]).glob("*.ptx")):
        pytest.skip(f"the PTX for {name} is not built (make test-gpu-simulated-every)")
    tests = ("tests/backends/test_gpu_ops.py", "-k", "test_values_and_gradients and -17")
    result = on_device(name, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests)
    assert result.returncode == 0, result.stdout + result.stderr
