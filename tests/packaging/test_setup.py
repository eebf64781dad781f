"""What a build says when something is missing: one sentence that names it, no traceback. Nothing is compiled here."""

import os
import re
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


def configure(folder: Path, nvcc: str | Path = "/nowhere/nvcc", **options: str | Path) -> subprocess.CompletedProcess:
    """CMake's configuration of this project with that nvcc, which need not be there."""
    found = {"TORCH_ROOT": Path(torch.__file__).parent, "Python_EXECUTABLE": sys.executable}
    found["pybind11_DIR"] = pybind11.get_cmake_dir()
    return subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{k}={v}" for k, v in (found | options).items())],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "CUDACXX": str(nvcc)},
    )


def test_cmake_by_itself_names_what_is_wrong(tmp_path):
    found = configure(tmp_path, VFRNN_CUDA="ON")
    assert found.returncode != 0
    assert "VFRNN_CUDA=ON: nvcc was not found, or cannot compile (set CUDACXX" in " ".join(found.stderr.split())
    found = configure(tmp_path / "maybe", VFRNN_CUDA="MAYBE")
    assert "VFRNN_CUDA must be AUTO, ON, OFF or SIMULATED, got MAYBE" in " ".join(found.stderr.split())


@pytest.fixture
def cuda_torch_root(tmp_path):
    """What CMake takes for a CUDA build of torch."""
    root = tmp_path / "torch"
    (root / "lib").mkdir(parents=True)
    (root / "include").symlink_to(Path(torch.__file__).parent / "include")
    (root / "lib/libtorch_cuda.so").touch()
    return root


@pytest.mark.parametrize("cuda_torch", quick([False, True], False))
def test_without_nvcc_the_cpu_build_happens_and_says_so(tmp_path, cuda_torch_root, cuda_torch):
    """Beside a CPU build of torch nobody expects CUDA kernels; beside a CUDA build nvcc is what is missing."""
    if not cuda_torch:
        (cuda_torch_root / "lib/libtorch_cuda.so").unlink()
    found = configure(tmp_path / "build", TORCH_ROOT=cuda_torch_root)
    assert found.returncode == 0, found.stderr
    reason = "nvcc was not found, or cannot compile" if cuda_torch else "this torch is a CPU build"
    assert f"built without CUDA kernels: {reason}" in found.stdout


#: The real nvcc, in the name of an older one: CMake asks for its version by compiling a file.
OLDER_NVCC = """#!/bin/sh
case " $* " in
  *" --list-gpu-code "*) printf 'sm_%s\\n' {known}; exit ;;
  *compute_100*|*compute_120*) echo "nvcc fatal: Unsupported gpu architecture 'compute_100'" >&2; exit 1 ;;
esac
for file in "$@"; do
  case "$file" in *CMakeCUDACompilerId.cu)
    sed -i 's/DEC(__CUDACC_VER_MAJOR__)/DEC({major})/;s/DEC(__CUDACC_VER_MINOR__)/DEC({minor})/' "$file" ;;
  esac
done
exec {nvcc} "$@"
"""


def older_nvcc(folder: Path, major: int, minor: int, known: str) -> Path:
    """A compiler that says it is of that version and knows those architectures."""
    real = shutil.which("nvcc")
    if real is None:
        pytest.skip("needs nvcc")
    program = folder / "nvcc"
    program.write_text(OLDER_NVCC.format(nvcc=real, major=major, minor=minor, known=known))
    program.chmod(0o755)
    return program


def architectures_of(build: Path) -> set[str]:
    """Those that the CUDA kernels would be compiled for."""
    return set(re.findall(r"code=(\w+)", (build / "build.ninja").read_text()))


@pytest.mark.slow
def test_an_architecture_that_nvcc_does_not_know_is_left_out(tmp_path, cuda_torch_root):
    nvcc, build = older_nvcc(tmp_path, 12, 6, "75 80 86 90"), tmp_path / "build"
    found = configure(build, nvcc, TORCH_ROOT=cuda_torch_root)
    assert found.returncode == 0, found.stderr
    assert re.search(r"nvcc 12\.6\.\d+\s+does\s+not\s+know\s+100\+PTX,\s+120:\s+left\s+out", found.stderr)
    assert re.search(r"CUDA kernels: nvcc 12\.6\.\d+, for 80, 90a\n", found.stdout)
    assert architectures_of(build) == {"sm_80", "sm_90a"}
    found = configure(build, nvcc, TORCH_ROOT=cuda_torch_root, VFRNN_CUDA_ARCHS="100+PTX")
    assert found.returncode == 0, found.stderr
    assert "knows none of the architectures 100+PTX" in found.stdout
    assert architectures_of(build) == set()
    found = configure(build, nvcc, TORCH_ROOT=cuda_torch_root, VFRNN_CUDA_ARCHS="100+PTX", VFRNN_CUDA="ON")
    assert "knows none of the architectures 100+PTX" in " ".join(found.stderr.split())
    assert found.returncode != 0


@pytest.mark.slow
def test_an_nvcc_that_is_too_old_or_broken_leaves_the_cpu_build(tmp_path, cuda_torch_root):
    found = configure(tmp_path / "old", older_nvcc(tmp_path, 11, 8, "80 90"), TORCH_ROOT=cuda_torch_root)
    assert found.returncode == 0, found.stderr
    assert "built without CUDA kernels: nvcc >= 12.0 is needed, found 11.8" in found.stdout
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\necho nvcc: cannot find cicc >&2\nexit 1\n")
    broken.chmod(0o755)
    found = configure(tmp_path / "broken", broken, TORCH_ROOT=cuda_torch_root)
    assert found.returncode == 0, found.stderr
    assert "built without CUDA kernels: nvcc was not found, or cannot compile" in found.stdout


#: A project with CUDA kernels that do not compile, unless they are not asked for.
FAILING = """
cmake_minimum_required(VERSION 3.24)
project(failing NONE)
set(VFRNN_CUDA AUTO CACHE STRING "")
set(CMAKE_CUDA_COMPILER /usr/bin/nvcc CACHE FILEPATH "")
if(NOT VFRNN_CUDA STREQUAL "OFF")
  add_custom_target(kernels ALL COMMAND false)
endif()
install(CODE "file(WRITE ${CMAKE_INSTALL_PREFIX}/built.txt ${VFRNN_CUDA})")
"""


@pytest.mark.parametrize("cuda", [None, "ON"])
def test_cuda_kernels_that_fail_to_compile_end_only_a_build_that_asks_for_them(tree, cuda):
    (tree / "CMakeLists.txt").write_text(FAILING)
    (tree / "vfrnn_kernels").mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VFRNN_") and k not in ("CXX", "CUDACXX")}
    asked = {} if cuda is None else {"VFRNN_CUDA": cuda, "CUDACXX": shutil.which("false")}
    found = subprocess.run(
        [sys.executable, "-c", RUN.format(before="pass").replace("build_ext", "build_ext', '--build-lib=built")],
        cwd=tree,
        env={**clean, "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]), **asked},
        capture_output=True,
        text=True,
        timeout=120,
    )
    without = "vfrnn-kernels: the build with CUDA kernels failed, see above; now without them"
    assert (without in found.stderr) == (cuda is None)
    assert (found.returncode == 0) == (cuda is None)
    assert [path.read_text() for path in tree.glob("built/**/built.txt")] == ([] if cuda else ["OFF"])
