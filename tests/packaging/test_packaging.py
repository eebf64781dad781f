"""What is shipped: the stable ABI of the binary, one-way imports, versions, clear words when something is missing."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vfrnn
import vfrnn_kernels
from tools.wheel_contents import CUDA_LICENCE, LICENCES, content_faults
from tools.wheel_install import NATIVE
from vfrnn_kernels import loader
from vfrnn_kernels.checks import values_wanted
from vfrnn_kernels.dispatch import select_backend

ROOT = Path(__file__).parents[2]
OPS = (
    "field_flow",
    "field_generator",
    "flow_recurrence",
    "recurrence",
    "skew_expm",
    "spectral_recurrence",
    "strang_step",
)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


def test_the_cpu_library_is_loaded():
    assert loader.CPU_LIBRARY_MISSING is None


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


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_the_same_files_on_each_side(op):
    python_side = {path.name for path in (ROOT / "vfrnn_kernels" / op).iterdir()}
    assert {"__init__.py", "op.py", "reference.py", "README.md"} <= python_side
    assert (ROOT / "csrc" / op / "cpu.cpp").exists()
    assert (ROOT / "tests/ops" / f"test_{op}.py").exists()
    assert callable(getattr(vfrnn_kernels, op))


def test_kernels_never_import_the_api():
    for path in (ROOT / "vfrnn_kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "vfrnn" for name in names), path


def test_no_op_calls_the_exponential_of_the_framework():
    for path in [*(ROOT / "vfrnn_kernels").rglob("*.py"), *(ROOT / "csrc").rglob("*.cpp")]:
        assert "matrix_exp(" not in path.read_text(), path


def test_import_loads_no_heavy_package():
    code = "import sys, vfrnn; print([m for m in ('sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend must be one of 'cpu', 'cuda', 'triton', 'reference', got 'cuda9'"):
        select_backend("skew_expm", "cuda9", [torch.zeros(1)])


def test_a_backend_that_cannot_serve_says_why():
    with pytest.raises(RuntimeError, match=r"backend 'cpu' .* float32 and float64, got torch.bfloat16"):
        select_backend("recurrence", "cpu", [torch.zeros(1, dtype=torch.bfloat16)])


def test_a_backend_from_the_environment_is_obeyed_and_named(monkeypatch):
    monkeypatch.setenv("VFRNN_BACKEND", "reference")
    assert select_backend("recurrence", None, [torch.zeros(1)]) == "reference"
    assert select_backend("recurrence", "cpu", [torch.zeros(1)]) == "cpu"
    monkeypatch.setenv("VFRNN_BACKEND", "fast")
    with pytest.raises(ValueError, match="VFRNN_BACKEND must be one of"):
        select_backend("recurrence", None, [torch.zeros(1)])


def test_values_on_a_device_are_checked_on_request_only(monkeypatch):
    assert values_wanted(torch.device("cpu"))
    assert not values_wanted(torch.device("cuda"))
    monkeypatch.setenv("VFRNN_CHECK_VALUES", "1")
    assert values_wanted(torch.device("cuda"))
    assert not values_wanted(torch.device("meta"))


def test_automatic_choice_is_compiled_where_it_can_be():
    assert select_backend("recurrence", None, [torch.zeros(1)]) == "cpu"
    assert select_backend("recurrence", None, [torch.zeros(1, dtype=torch.bfloat16)]) == "reference"


def test_an_unknown_instruction_set_is_an_error_not_a_crash():
    result = run_python("import torch, vfrnn_kernels; torch.ops.vfrnn_kernels.cpu_isa()", VFRNN_ISA="sse9")
    assert result.returncode == 1
    assert "VFRNN_ISA must be baseline, avx2 or avx512, got sse9" in result.stderr


def test_a_wheel_is_held_to_its_contents():
    name = "vfrnn_kernels-0.1.0+cpu-cp311-cp311-manylinux_2_34_x86_64.whl"
    info = "vfrnn_kernels-0.1.0+cpu.dist-info"
    files = [
        *("vfrnn/__init__.py", "vfrnn/py.typed", "vfrnn_kernels/py.typed", "vfrnn_kernels/libvfrnn_cpu.so"),
        *("vfrnn_kernels/_host.cpython-311-x86_64-linux-gnu.so", f"{info}/RECORD", f"{info}/METADATA"),
        *(f"{info}/licenses/{path.relative_to(ROOT)}" for path in [ROOT / "LICENSE", *ROOT.glob("licenses/*.txt")]),
    ]
    assert content_faults(name, 10**6, files) == []
    assert content_faults(name, 10**7, files) == ["10.0 MB, at most 10 are wanted"]
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


def test_a_library_that_does_not_load_says_which_and_what_to_do(tmp_path):
    broken = tmp_path / "libvfrnn_cpu.so"
    broken.write_text("not a library")
    reason = loader._load(broken)
    assert str(broken) in reason
    assert "does not load" in reason
    assert "reinstall vfrnn-kernels" in reason


@pytest.mark.parametrize("chosen", ["cuda", "triton"])
def test_a_backend_from_the_environment_that_is_not_there_is_an_error(monkeypatch, chosen):
    monkeypatch.setenv("VFRNN_BACKEND", chosen)
    with pytest.raises(RuntimeError, match=rf"backend '{chosen}' \(from VFRNN_BACKEND\) cannot serve this call: "):
        vfrnn_kernels.skew_expm(torch.zeros(3, 3))


@pytest.mark.parametrize("file", ["Makefile", "pyproject.toml"])
def test_every_wheel_is_tried_with_the_same_tests(file):
    text = (ROOT / file).read_text()
    assert NATIVE in text
    assert "tests/ops" in text


def test_every_part_compiled_in_has_its_licence():
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("licenses/*")} == {*LICENCES, CUDA_LICENCE} - {"LICENSE"}


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
