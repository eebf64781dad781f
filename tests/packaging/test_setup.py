"""What a build says when something is missing: one sentence that names it, no traceback. Nothing is compiled here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest
import torch

from tests.cases import quick

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RUN = "import runpy, sys; sys.argv = ['setup.py', 'build_ext']; {before}; runpy.run_path('setup.py')"


@pytest.fixture
def tree(tmp_path):
    """Of the sources what a build reads first, so that none of these builds touches those in use."""
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "licenses", tmp_path / "licenses")
    return tmp_path


def build(tree: Path, before: str = "pass", **environment: str) -> str:
    """The last line of a build that must fail."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VFRNN_") and k not in ("CXX", "CUDACXX")}
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    result = subprocess.run(
        [sys.executable, "-c", RUN.format(before=before)],
        cwd=tree,
        env={**clean, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_cuda_on_without_nvcc(tree):
    assert build(tree, VFRNN_CUDA="ON", CUDACXX="/nowhere/nvcc") == (
        "vfrnn-kernels: VFRNN_CUDA=ON needs nvcc, which was not found "
        "(set CUDACXX, or VFRNN_CUDA=OFF for the CPU alone)"
    )


def test_no_compiler(tree):
    assert build(tree, CXX="/nowhere/c++") == (
        "vfrnn-kernels: a C++17 compiler is needed to build (package g++ or clang), /nowhere/c++ was not found"
    )


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("torch", "torch >= 2.10 must be installed to build (pip install torch), none was found"),
        ("pybind11", "pybind11 >= 2.13 is needed to build (pip install pybind11), none was found"),
    ],
)
def test_a_package_is_missing(tree, module, sentence):
    assert build(tree, f"sys.modules['{module}'] = None") == f"vfrnn-kernels: {sentence}"


def test_torch_is_too_old(tree):
    old = tree / "old"
    (old / "torch").mkdir(parents=True)
    (old / "torch/__init__.py").touch()
    (old / "torch-2.9.1.dist-info").mkdir()
    (old / "torch-2.9.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1\n")
    assert build(tree, PYTHONPATH=str(old)) == (
        "vfrnn-kernels: torch >= 2.10 must be installed to build (pip install -U torch), found 2.9.1"
    )


def test_cmake_is_too_old(tree):
    cmake = tree / "old/cmake"
    cmake.parent.mkdir()
    cmake.write_text("#!/bin/sh\necho cmake version 3.22.1\n")
    cmake.chmod(0o755)
    assert build(tree, PATH=f"{cmake.parent}{os.pathsep}{os.environ['PATH']}") == (
        f"vfrnn-kernels: cmake >= 3.24 is needed to build (pip install -U cmake), found 3.22.1 ({cmake})"
    )


def test_no_cmake(tree):
    assert build(tree, PATH=str(tree)) == (
        "vfrnn-kernels: cmake >= 3.24 is needed to build (pip install cmake), none was found"
    )


def test_no_ninja(tree):
    (tree / "bin").mkdir()
    (tree / "bin/cmake").symlink_to(shutil.which("cmake", path=f"{BIN}{os.pathsep}{os.environ['PATH']}"))
    assert build(tree, PATH=str(tree / "bin")) == (
        "vfrnn-kernels: ninja is needed to build (pip install ninja), none was found"
    )


def test_an_unknown_choice_is_named(tree):
    # CMake's own error, and where to look for it
    assert build(tree, VFRNN_CUDA="MAYBE") == (
        "vfrnn-kernels: the build failed; what CMake or the compiler says is above"
    )


def configure(folder: Path, **options: str | Path) -> subprocess.CompletedProcess:
    """CMake's configuration of this project, where nvcc is absent."""
    found = {"TORCH_ROOT": Path(torch.__file__).parent, "Python_EXECUTABLE": sys.executable}
    found["pybind11_DIR"] = pybind11.get_cmake_dir()
    return subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{k}={v}" for k, v in (found | options).items())],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "CUDACXX": "/nowhere/nvcc"},
    )


def test_cmake_by_itself_names_what_is_wrong(tmp_path):
    found = configure(tmp_path, VFRNN_CUDA="ON")
    assert found.returncode != 0
    assert "VFRNN_CUDA=ON needs nvcc, which was not found" in " ".join(found.stderr.split())
    found = configure(tmp_path / "maybe", VFRNN_CUDA="MAYBE")
    assert "VFRNN_CUDA must be AUTO, ON, OFF, EMULATED or SIMULATED, got MAYBE" in " ".join(found.stderr.split())


@pytest.mark.parametrize("cuda_torch", quick([False, True], False))
def test_without_nvcc_the_cpu_build_happens_and_says_so(tmp_path, cuda_torch):
    """Beside a CPU build of torch nobody expects CUDA kernels; beside a CUDA build nvcc is what is missing."""
    stand_in = tmp_path / "torch"
    (stand_in / "lib").mkdir(parents=True)
    (stand_in / "include").symlink_to(Path(torch.__file__).parent / "include")
    if cuda_torch:
        (stand_in / "lib/libtorch_cuda.so").touch()
    found = configure(tmp_path / "build", TORCH_ROOT=stand_in)
    assert found.returncode == 0, found.stderr
    reason = "nvcc was not found" if cuda_torch else "this torch is a CPU build"
    assert f"built without CUDA kernels: {reason}" in found.stdout
