"""How the CUDA kernels are launched, judged by a runtime that runs nothing: sizes that no test could compute, races."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCES = (
    *("common/gpu.cu", "field_flow/backward.cu", "field_flow/layout.cpp"),
    *("field_generator/forward.cu", "field_generator/backward.cu"),
    *("field_generator/complete_forward.cu", "field_generator/complete_backward.cu"),
    *(f"skew_expm/{name}.cu" for name in ("forward", "backward", "tiled_forward", "tiled_backward", "tiled_product")),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc"),
]


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """The program of launches.cu, the kernels as PTX: nothing runs them."""
    program = tmp_path_factory.mktemp("launches") / "launches"
    command = [
        *("nvcc", "-std=c++17", "--expt-relaxed-constexpr", "-cudart", "none", "--threads", "2"),
        *("-gencode", "arch=compute_90,code=compute_90", "-I", ROOT / "csrc", "-o", program),
        *(HERE / "launches.cu", HERE / "stub_runtime.cpp"),
        *(ROOT / "csrc" / source for source in SOURCES),
    ]
    subprocess.run(command, check=True, timeout=800)
    return program


@pytest.mark.parametrize("what", ["sizes", "grids", "waiting", "asks"])
def test_every_launch_is_one_that_the_runtime_takes(launches, what):
    found = subprocess.run([launches, what], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")
