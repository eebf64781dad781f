"""The op tests on aarch64, cross-compiled and emulated: `python -m tools.aarch64`, on Debian with qemu-user.

The processor is a Neoverse N1: no SVE, and PyTorch's wheels run on none that is older. What runs under `qemu-aarch64`
is Debian's Python for arm64, unpacked beside its C library into a folder, and such a wheel; the tests are a share of
those of `make test-isa`, or with --every all of them, which takes an hour. An emulated thread sees the stores of the
others in the order of this machine, so that nothing here tries the order of memory of a real Arm; nor does anything
tell its speed.

Skipped, with the reason, where a command is not there or a package cannot be had.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pybind11

from tools import hot_loops
from tools.wheel_install import NATIVE, ROOT, TOOLS, copy_op_tests

FOLDER = ROOT / "build/aarch64"
#: The oldest one served: the wheels of newer ones for aarch64 are CUDA builds, which need gigabytes of libraries.
TORCH = "torch==2.10.0"
TORCH_NEEDS = ("filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "numpy")
OBJDUMP = "aarch64-linux-gnu-objdump"  # of binutils, which g++ needs
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
#: Debian's packages by the command that each brings.
NEEDED = {
    "qemu-aarch64": "qemu-user",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "apt-get": "apt",
    "dpkg": "dpkg",
}
CPU = "neoverse-n1"
DEBIAN_PACKAGES = ("python3", "libpython3-dev", "libgomp1", "libstdc++6")
#: Compilers: Debian's package, and how CMake is told to compile for aarch64. clang++ takes g++'s libraries.
COMPILERS = {
    "aarch64-linux-gnu-g++": ("g++-aarch64-linux-gnu", ("-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",)),
    "clang++": ("clang", ("-DCMAKE_CXX_COMPILER=clang++", "-DCMAKE_CXX_COMPILER_TARGET=aarch64-linux-gnu")),
}
#: Left out, unless everything is asked for: tests of what Python does around the kernels.
OF_PYTHON = (
    "autocast",
    "autograd",
    "batching",
    "calculus",
    "checks",
    "cpus",
    "declaration",
    "fork",
    "library",
    "oracles",
)
#: A test takes some ten times as long emulated: each compiler has every so many-th, one those between the other's.
SHARE = 30
#: Run there: one process, for PyTorch takes minutes to be imported.
RUN_TESTS = """
import sys
import pytest, torch, vfrnn_kernels

class Share:
    def pytest_collection_modifyitems(self, config, items):
        first, share = {first}, {share}
        config.hook.pytest_deselected(items=[item for k, item in enumerate(items) if k % share != first])
        items[:] = items[first::share]

print(torch.ops.vfrnn_kernels.cpu_isa(), vfrnn_kernels.loader.build_info())
sys.exit(pytest.main(sys.argv[1:], plugins=[Share()]))
"""


class UnavailableError(Exception):
    """What is needed is not there and cannot be had."""


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Run the command in that folder with these variables in its environment.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env={**os.environ, **variables})


def download(*command: str | Path) -> None:
    """Run a command that downloads, silently.

    Raises:
        UnavailableError: it failed; with the first error of what it said.
    """
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        said = (result.stdout + result.stderr).splitlines()
        error = next((line for line in said if line.startswith(("E: ", "ERROR: "))), "it does not say why")
        raise UnavailableError(f"{' '.join(map(str, command[:3]))} fails: {error}")


def debian_root() -> Path:
    """The folder with Debian's Python and C library for arm64, made if it is not there.

    apt works on lists, a state and a cache of its own: neither rights nor an architecture are added to this machine.
    """
    root, apt = FOLDER / "root", FOLDER / "apt"
    if (FOLDER / "root.done").exists():
        return root
    for folder in (root, apt):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    options = [
        *("APT::Architecture=arm64", "APT::Architectures=arm64", "APT::Sandbox::User=", "Debug::NoLocking=true"),
        *(f"Dir::State::Lists={apt / 'lists'}", f"Dir::State::status={apt / 'status'}", f"Dir::Cache={apt / 'cache'}"),
    ]
    apt_get = ["apt-get", "-q", "-y", *(part for option in options for part in ("-o", option))]
    download(*apt_get, "update")
    download(*apt_get, "install", "--download-only", "--no-install-recommends", *DEBIAN_PACKAGES)
    for package in (apt / "cache/archives").glob("*.deb"):
        run("dpkg", "-x", package, root)
    (FOLDER / "root.done").touch()
    return root


def emulated_python(root: Path) -> Path:
    """A script that runs that Python, under its own name also for whom it starts."""
    python = root / "usr/bin/emulated-python"
    python.write_text(f'#!/bin/sh\nexec qemu-aarch64 -cpu {CPU} -L {root} -0 "$0" {root}/usr/bin/python3 "$@"\n')
    python.chmod(0o755)
    return python


def python_version(root: Path) -> str:
    """As "3.11"."""
    return next((root / "usr/include").glob("python3.*")).name.removeprefix("python")


def site(version: str) -> Path:
    """The folder with PyTorch and pytest for that Python on aarch64, made if it is not there.

    Raises:
        UnavailableError: pip cannot get them.
    """
    folder = FOLDER / "site"
    if not (FOLDER / "site.done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", folder, "--only-binary=:all:", *platforms]
        pip += ["--python-version", version]
        # pip would look at this machine's processor for the requirements of the wheel
        download(*pip, "--no-deps", TORCH)
        download(*pip, *TORCH_NEEDS, *TOOLS)
        (FOLDER / "site.done").touch()
    return folder


def build(compiler: str, root: Path, python: Path, packages: Path) -> Path:
    """The package with native libraries of that compiler, and the op tests; the folder that holds them.

    Raises:
        subprocess.CalledProcessError: the build failed.
    """
    folder, work = FOLDER / compiler / "package", FOLDER / compiler / "cmake"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "vfrnn_kernels", folder / "vfrnn_kernels", ignore=shutil.ignore_patterns("*.so"))
    copy_op_tests(folder)
    include = root / "usr/include"
    cmake = Path(sys.executable).parent / "cmake"
    run(
        cmake, "-S", ROOT, "-B", work, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_MAKE_PROGRAM={cmake.parent / 'ninja'}", "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64", *COMPILERS[compiler][1], f"-DCMAKE_CXX_FLAGS=-idirafter {include}",
        f"-DTORCH_ROOT={packages / 'torch'}", f"-DPython_EXECUTABLE={python}",
        f"-DPython_INCLUDE_DIR={include / f'python{python_version(root)}'}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        "-DVFRNN_CUDA=OFF", f"-DCMAKE_INSTALL_PREFIX={folder / 'vfrnn_kernels'}",
    )  # fmt: skip
    run(cmake, "--build", work, "--target", "install")
    return folder


def check_loops(compiler: str, folder: Path) -> None:
    """Of the tiles in the library that is there.

    Raises:
        subprocess.CalledProcessError: one of them holds what it must not.
    """
    wrong = hot_loops.check(folder / "vfrnn_kernels/libvfrnn_cpu.so", ["neon"], OBJDUMP)
    if wrong:
        raise subprocess.CalledProcessError(1, [compiler, "hot_loops", *wrong])


def start_tests(folder: Path, python: Path, packages: Path, first: int, share: int) -> subprocess.Popen[str]:
    """The op tests of that package, from the `first` every `share`-th; with `share` 1 the slow ones too."""
    fewer = () if share == 1 else ("-m", "not slow", *(f"--ignore=tests/ops/test_{name}.py" for name in OF_PYTHON))
    script = RUN_TESTS.replace("{first}", str(first % share)).replace("{share}", str(share))
    options = ("-q", "-p", "no:cacheprovider", "--timeout", "1800", "-k", NATIVE)
    command = (python, "-c", script, *options, *fewer, "tests/ops")
    variables = {"PYTHONPATH": f"{folder}:{ROOT / 'python'}:{packages}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in command], cwd=folder, env={**os.environ, **variables}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def require(commands: dict[str, str]) -> None:
    """Raises UnavailableError with the first of these commands that this machine lacks, and its package."""
    for command, package in commands.items():
        if shutil.which(command) is None:
            raise UnavailableError(f"there is no {command} (Debian's package {package})")


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", action="store_true", help="every op test with both compilers")
    share = 1 if parser.parse_args().every else SHARE
    started, running, failed = time.monotonic(), {}, False
    for number, (compiler, (package, _)) in enumerate(COMPILERS.items()):
        try:
            require({**NEEDED, compiler: package})
            root = debian_root()
            packages = site(python_version(root))
            python = emulated_python(root)
            folder = build(compiler, root, python, packages)
            check_loops(compiler, folder)
            running[compiler] = start_tests(folder, python, packages, number * share // 2, share)
        except UnavailableError as reason:
            print(f"test-aarch64: {compiler} skipped, {reason}", flush=True)
        except subprocess.CalledProcessError as error:
            print(f"test-aarch64: {' '.join(error.cmd)} failed", file=sys.stderr)
            failed = True
    for compiler, tests in running.items():
        print(tests.communicate()[0])
        failed |= tests.returncode != 0
        print(f"test-aarch64: {compiler}: exit code {tests.returncode}, {time.monotonic() - started:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
