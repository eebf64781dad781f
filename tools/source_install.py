"""Installs the sdist offline and in isolation: `python -m tools.source_install SDIST --torch torch==2.13.0`.

In a new environment outside of this tree: offline beside what is there (`--no-build-isolation --no-deps`), in a
namespace without a network where the machine allows one, and with build isolation. After each, `vfrnn doctor` from an
empty folder. (An editable one is what `make build` makes.)
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tools.wheel_install import environment, run

TOOLS = ("setuptools>=77", "cmake>=3.24", "ninja", "pybind11>=2.13", "numpy")
NO_NETWORK = ("unshare", "--map-root-user", "--net")
WAYS = {
    "offline": ("--no-build-isolation", "--no-deps", "--no-index", "."),
    "isolated": (".",),
}


def can_be_without_network() -> bool:
    """Whether this machine lets a process have a network of its own, which is none."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0


def try_way(folder: Path, source: Path, python: Path, way: str) -> None:
    """Install that way, run the doctor, uninstall.

    Raises:
        subprocess.CalledProcessError: one of them failed.
    """
    # pip's name of it before and since 25.3: without it, isolation would fetch the largest torch there is
    constraint = folder / "constraint.txt"
    variables = (
        {"PIP_CONSTRAINT": str(constraint), "PIP_BUILD_CONSTRAINT": str(constraint)} if way == "isolated" else {}
    )
    without_network = NO_NETWORK if way == "offline" and can_be_without_network() else ()
    started = time.monotonic()
    # as after `. venv/bin/activate`: without isolation, cmake and ninja come from the environment
    run(source, *without_network, python, "-m", "pip", "install", "-q", *WAYS[way], bin=python.parent, **variables)
    where = ", in a namespace without a network" if without_network else ""
    print(f"{way}{where}: pip install {' '.join(WAYS[way])} in {time.monotonic() - started:.0f} s", flush=True)
    run(folder / "empty", python.parent / "vfrnn", "doctor")
    run(folder, python, "-m", "pip", "uninstall", "-q", "-y", "vfrnn-kernels")


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--torch", required=True, help="requirement, as torch==2.13.0")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vfrnn-source-") as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        (folder / "constraint.txt").write_text(f"{arguments.torch}\n")
        with tarfile.open(arguments.sdist) as file:
            file.extractall(folder, filter="data")
        try:
            python = environment(folder, arguments.torch, *TOOLS)
            for way in WAYS:
                try_way(folder, folder / arguments.sdist.name.removesuffix(".tar.gz"), python, way)
        except subprocess.CalledProcessError as error:
            print(f"source_install: {' '.join(error.cmd)} failed", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
