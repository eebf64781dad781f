"""Builds the sdist and wheels again, elsewhere, and compares: `python -m tools.reproducible SDIST [WHEEL...]`.

From the sources in the sdist, in another folder, with other rights and times of the files: the archive must be the same
to the byte, and so must each wheel (which takes minutes). The same tools are needed for that: compiler, CMake,
setuptools, auditwheel, zlib. A wheel with CUDA kernels is left out: it has not been tried.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tarfile
import tempfile
from pathlib import Path

from tools import wheels


def digest(path: Path) -> str:
    """SHA-256, as it is published."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unlike(archive: Path, folder: Path) -> Path:
    """The sources of the sdist in that folder, with rights and times that those of a checkout do not have."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
        os.utime(path, (10**9 + number, 10**9 + number))
    return source


def compared(first: Path, second: Path) -> str | None:
    """Says both; what is wrong, or None."""
    print(f"{first.name}: sha256 {digest(first)}", flush=True)
    if digest(first) == digest(second):
        return None
    return f"{first.name}: built again, it is another file, sha256 {digest(second)}"


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path)
    parser.add_argument("wheels", nargs="*", type=Path, help="wheels that were built from it")
    given = parser.parse_args(arguments)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="vfrnn-again-") as name:
        folder = Path(name)
        source = unlike(given.sdist, folder)
        wrong.append(compared(given.sdist, wheels.sdist(source, folder / "dist")))
        for wheel in given.wheels:
            if "+cpu" not in wheel.name:
                print(f"{wheel.name}: left out, it has CUDA kernels")
                continue
            wrong.append(compared(wheel, wheels.wheel(source, "cpu", folder / "dist")))
    faults = [what for what in wrong if what is not None]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
