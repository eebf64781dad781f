"""Installs wheels alone, outside of this tree, and runs the op tests from each: `python -m tools.wheel_install WHEELS`.

A new environment in a new, empty folder; torch of the release asked for; then, wheel by wheel: `vfrnn doctor`, which
runs every op, the hashes of tests/ops/bits.csv on every instruction set of this CPU, and the tests of the ops (copied
beside the environment: the sources are out of reach). Of wheels that hold the same CPU library, to the byte, the first
one runs the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Those that run the native kernels and not only PyTorch's machinery around them.
NATIVE = "not reference and not compile and not opcheck and not gradcheck and not instruction_set"
#: A GPU is not needed for that, nor a driver.
CUDA_LOADED = """
import torch
from vfrnn_kernels.loader import CUDA_LIBRARY, CUDA_LIBRARY_MISSING
if torch.version.cuda is not None:
    assert CUDA_LIBRARY_MISSING is None, CUDA_LIBRARY_MISSING
    print(f"{CUDA_LIBRARY.name} is loaded beside torch {torch.__version__}")
"""
TOOLS = ("pytest>=8", "pytest-timeout", "pytest-xdist")


def run(folder: Path, *command: str | Path, bin: Path | None = None, **variables: str) -> None:
    """Run the command in that folder, with `bin` first on the path and without any setting of ours or of Python.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VFRNN_", "PYTHON"))}
    if bin is not None:
        kept["PATH"] = f"{bin}{os.pathsep}{kept['PATH']}"
    subprocess.run([str(part) for part in command], check=True, cwd=folder, env={**kept, **variables})


def environment(folder: Path, torch: str, *packages: str) -> Path:
    """A new environment in `folder` with that torch and those packages; its Python."""
    run(folder, sys.executable, "-m", "venv", "venv")
    python = folder / "venv/bin/python"
    started = time.monotonic()
    run(folder, python, "-m", "pip", "install", "-q", torch, *packages)
    print(f"{torch}: installed in {time.monotonic() - started:.0f} s", flush=True)
    return python


def copy_op_tests(folder: Path) -> None:
    """Into `folder`, which is where to run them: from this tree they would import the package that is in it."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "tests/ops", folder / "tests/ops")
    for name in ("__init__.py", "conftest.py", "cases.py", "oracles.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")


def cpu_library(wheel: Path) -> bytes:
    """The CPU library in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("vfrnn_kernels/libvfrnn_cpu.so")


def try_wheel(folder: Path, python: Path, wheel: Path, *, tests: bool) -> None:
    """Install the wheel for that Python, run its doctor and, where asked for, the op tests.

    Raises:
        subprocess.CalledProcessError: one of them failed.
    """
    empty = folder / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir()
    pip = (python, "-m", "pip", "install", "-q")
    started = time.monotonic()
    run(empty, *pip, wheel.resolve())
    run(empty, *pip, "--force-reinstall", "--no-deps", wheel.resolve())  # also over the other variant
    print(f"{wheel.name}: installed in {time.monotonic() - started:.0f} s", flush=True)
    run(empty, python.parent / "vfrnn", "doctor")
    if "+cpu" not in wheel.name:
        run(empty, python, "-c", CUDA_LOADED)
    if not tests:
        print(f"{wheel.name}: its CPU library has been tested", flush=True)
        return
    copy_op_tests(empty)
    run(empty, python, "-m", "tests.ops.bits")
    options = ("-q", "-n", str(min(8, os.cpu_count() or 1)), "-p", "no:cacheprovider", "-m", "not slow", "-k", NATIVE)
    run(empty, python, "-m", "pytest", *options, "tests", OMP_NUM_THREADS="1")


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--torch", required=True, help="requirement, as torch==2.11.0")
    parser.add_argument("--python", type=Path, help="of an environment with torch and what `TOOLS` lists")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vfrnn-wheel-") as name:
        folder = Path(name)
        python = arguments.python.absolute() if arguments.python else environment(folder, arguments.torch, *TOOLS)
        try:
            tested: set[bytes] = set()
            for wheel in arguments.wheels:
                library = cpu_library(wheel)
                try_wheel(folder, python, wheel, tests=library not in tested)
                tested.add(library)
        except subprocess.CalledProcessError as error:
            print(f"wheel_install: {' '.join(error.cmd)} failed", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
