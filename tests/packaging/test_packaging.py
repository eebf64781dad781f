"""What is shipped: the stable ABI of the binary, one-way imports, versions, clear words when something is missing."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vfrnn
import vfrnn_kernels
from tools import aarch64
from tools.wheel_contents import CUDA_LICENCE, LICENCES, RELEASED_ARCHITECTURES, architectures, content_faults
from tools.wheel_install import NATIVE
from vfrnn_kernels import cuda_device, loader
from vfrnn_kernels.declaration import OPS

ROOT = Path(__file__).parents[2]
#: An op is a folder with a contract.


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


def test_the_binary_uses_only_the_stable_abi_of_torch_2_10():
    result = subprocess.run(
        [Path(sys.executable).parent / "torch-abi-audit", loader.CPU_LIBRARY],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "min-torch=2.10.0" in result.stdout
    assert "unstable=0" in result.stdout


def test_version_is_one():
    version = importlib.metadata.version("vfrnn-kernels")
    assert vfrnn.__version__ == vfrnn_kernels.__version__ == version == loader.build_info()["version"]


def test_every_op_is_declared():
    assert set(OPS) == {path.parent.name for path in (ROOT / "vfrnn_kernels").glob("*/op.py")}


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_the_same_files_on_each_side(op):
    python_side = {path.name for path in (ROOT / "vfrnn_kernels" / op).iterdir()}
    assert {"__init__.py", "op.py", "reference.py", "README.md"} <= python_side
    assert (ROOT / "csrc" / op / "cpu.cpp").exists() or OPS[op].composed is not None
    assert (ROOT / "tests/ops" / f"test_{op}.py").exists()
    assert callable(getattr(vfrnn_kernels, op))


def test_no_op_calls_the_exponential_of_the_framework():
    for path in [*(ROOT / "vfrnn_kernels").rglob("*.py"), *(ROOT / "csrc").rglob("*.cpp")]:
        assert "matrix_exp(" not in path.read_text(), path


def test_every_parallel_loop_can_be_ended_by_a_signal():
    callers = [path.name for path in (ROOT / "csrc").rglob("*.[ch]*") if "ts::parallel_for(" in path.read_text()]
    assert callers == ["parallel.h"]


def test_import_loads_no_heavy_package():
    code = "import sys, vfrnn; print([m for m in ('sklearn', 'matplotlib', 'scipy', 'triton') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_a_wheel_is_held_to_its_contents():
    name = "vfrnn_kernels-0.1.0+cpu-cp311-cp311-manylinux_2_34_x86_64.whl"
    info = "vfrnn_kernels-0.1.0+cpu.dist-info"
    files = [
        *("vfrnn/__init__.py", "vfrnn/py.typed", "vfrnn_kernels/py.typed", "vfrnn_kernels/libvfrnn_cpu.so"),
        *("vfrnn_kernels/_host.cpython-311-x86_64-linux-gnu.so", f"{info}/RECORD", f"{info}/METADATA"),
        *(f"{info}/licenses/{path.relative_to(ROOT)}" for path in [ROOT / "LICENSE", *ROOT.glob("licenses/*.txt")]),
    ]
    assert content_faults(name, 10**6, files) == []
    assert content_faults(name, 12 * 10**6, files) == ["12.0 MB, at most 12 are wanted"]
    assert content_faults(name.replace("manylinux_2_34", "linux"), 0, files) == [
        "not repaired by auditwheel: its platform is not manylinux"
    ]
    assert content_faults(name.replace("+cpu", ""), 0, files) == ["vfrnn_kernels/libvfrnn_cuda.so is missing"]
    for missing in ("vfrnn/py.typed", "vfrnn_kernels/_host.cpython-311-x86_64-linux-gnu.so"):
        assert len(content_faults(name, 0, [file for file in files if file != missing])) == 1
    assert content_faults(name, 0, [file for file in files if "pybind11" not in file]) == [
        "the licence licenses/pybind11.txt is missing"
    ]
    for unwanted in ("tests/test_cells.py", "vfrnn_kernels.libs/libgomp.so.1", "vfrnn_kernels/ops.cpp"):
        assert content_faults(name, 0, [*files, unwanted]) == [f"{unwanted} must not be shipped"]
    assert content_faults(name, 0, [*files, "vfrnn_bench/test_it.py"]) == ["vfrnn_bench/test_it.py is a test"]
    assert content_faults(name, 0, [*files, "vfrnn_kernels/libvfrnn_cuda.so"]) == [
        "vfrnn_kernels/libvfrnn_cuda.so is in a wheel for the CPU alone"
    ]


def test_what_cannot_be_emulated_is_skipped_with_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["aarch64"])
    monkeypatch.setattr(aarch64.shutil, "which", lambda command: None if command == "qemu-aarch64" else command)
    assert aarch64.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        f"test-aarch64: {compiler} skipped, there is no qemu-aarch64 (Debian's package qemu-user)"
        for compiler in aarch64.COMPILERS
    ]


@pytest.mark.parametrize("file", ["Makefile", "pyproject.toml"])
def test_every_wheel_is_tried_with_the_same_tests(file):
    text = (ROOT / file).read_text()
    assert NATIVE in text
    assert "tests/ops" in text


def test_every_part_compiled_in_has_its_licence():
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("licenses/*")} == {*LICENCES, CUDA_LICENCE} - {"LICENSE"}


def test_the_cuda_of_a_release_serves_the_drivers_and_devices_that_are_promised():
    toolkits = set(re.findall(r"cuda-[a-z-]+-(\d+)-(\d+)", (ROOT / "tools/install_nvcc.sh").read_text()))
    assert len(toolkits) == 1  # compiler, runtime and headers
    ((major, minor),) = toolkits
    assert cuda_device.LEAST_DRIVER[int(major)] == 525
    assert int(minor) >= 8  # which knows sm_100 and sm_120
    default = re.search(r'VFRNN_CUDA_ARCHS "(.+?)"', (ROOT / "CMakeLists.txt").read_text())[1]
    assert default == RELEASED_ARCHITECTURES
    assert architectures(default) == {"ELF": {"sm_80", "sm_90a", "sm_100", "sm_120"}, "PTX": {"sm_100"}}
    assert f"| `{default}` (default) |" in (ROOT / "docs/how-to/environment.md").read_text()
    assert "525 or newer (CUDA 12)" in (ROOT / "docs/how-to/gpu.md").read_text()
    assert default in (ROOT / "setup.py").read_text()


def test_wheels_are_built_for_every_python_that_is_served():
    text = (ROOT / "pyproject.toml").read_text()
    workflow = (ROOT / ".github/workflows/wheels.yml").read_text()
    assert 'requires-python = ">=3.10"' in text
    for minor in range(10, 15):
        assert f"cp3{minor}-*" in text
        assert f"cp3{minor}" in workflow
    for variable in ("VFRNN_CUDA", "DIST_EXTRA_CONFIG"):
        assert variable in workflow
    assert (ROOT / "tools/cpu-variant.cfg").read_text().endswith("[egg_info]\ntag_build = +cpu\n")
