"""Holds built wheels to what they must and must not contain: `python -m tools.wheel_contents dist/*.whl`.

Allowed are Python modules, our libraries and the marks of typed packages; nothing of the tests, no C++ source, nothing
that auditwheel copied in, less than 12 MB, a licence for every part that is compiled in, a list of those parts
(tools/sbom.py). torch-abi-audit must find LibTorch's stable ABI of 2.10 in every library, tools/hardening.py no fault,
and cuobjdump in the CUDA library the architectures of CMakeLists.txt, or those that VFRNN_CUDA_ARCHS named for the
build.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools import hardening, sbom

LARGEST = 12e6
PACKAGES = ("vfrnn", "vfrnn_bench", "vfrnn_kernels")
TYPED = {"vfrnn/py.typed", "vfrnn_kernels/py.typed"}
CPU_LIBRARY, CUDA_LIBRARY = "vfrnn_kernels/libvfrnn_cpu.so", "vfrnn_kernels/libvfrnn_cuda.so"
#: Ours, and those of the headers and libraries compiled in.
LICENCES = {"LICENSE", "licenses/pybind11.txt", "licenses/pytorch.txt"}
CUDA_LICENCE = "licenses/cuda-runtime.txt"
RELEASED_ARCHITECTURES = "80;90a;100+PTX;120"


def architectures(named: str) -> dict[str, set[str]]:
    """By the kind of code, what nvcc's names in VFRNN_CUDA_ARCHS mean: machine code for all, PTX where it says so."""
    entries = [f"sm_{entry}" for entry in named.split(";")]
    return {
        "ELF": {entry.removesuffix("+PTX") for entry in entries},
        "PTX": {entry.removesuffix("+PTX") for entry in entries if entry.endswith("+PTX")},
    }


def content_faults(name: str, size: int, files: list[str]) -> list[str]:
    """What is wrong with the files of a wheel of that name and size (bytes)."""
    cpu_only = "+cpu" in name
    wanted = {*TYPED, CPU_LIBRARY} | (set() if cpu_only else {CUDA_LIBRARY})
    licences = LICENCES | {CUDA_LICENCE}
    info = next((file.split("/")[0] for file in files if ".dist-info/" in file), "none")
    wrong = [f"{file} is missing" for file in sorted(wanted - set(files))]
    if not any(file.startswith("vfrnn_kernels/_host.") for file in files):
        wrong.append("vfrnn_kernels/_host.*.so is missing")
    if cpu_only and CUDA_LIBRARY in files:
        wrong.append(f"{CUDA_LIBRARY} is in a wheel for the CPU alone")
    missing = sorted(licence for licence in licences if f"{info}/licenses/{licence}" not in files)
    wrong += [f"the licence {licence} is missing" for licence in missing]
    for file in files:
        folder = file.split("/")[0]
        if folder != info and (folder not in PACKAGES or not file.endswith((".py", ".so", "/py.typed"))):
            wrong.append(f"{file} must not be shipped")
        elif "test" in Path(file).name and folder != info:
            wrong.append(f"{file} is a test")
    if not re.search(r"manylinux_\d+_\d+_", name):
        wrong.append("not repaired by auditwheel: its platform is not manylinux")
    if size >= LARGEST:
        wrong.append(f"{size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f} are wanted")
    return wrong


def abi_faults(library: Path) -> list[str]:
    """What torch-abi-audit says of a library that is not the stable ABI of torch 2.10."""
    audit = subprocess.run(
        [Path(sys.executable).parent / "torch-abi-audit", library], capture_output=True, text=True, check=True
    ).stdout
    return [f"{library.name}: not {word}" for word in ("min-torch=2.10.0", "unstable=0") if word not in audit]


def architecture_faults(library: Path) -> list[str]:
    """The architectures that the CUDA library lacks or has too much."""
    import triton  # its wheel brings cuobjdump

    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    wrong = []
    for kind, expected in architectures(os.environ.get("VFRNN_CUDA_ARCHS") or RELEASED_ARCHITECTURES).items():
        listed = subprocess.run(
            [cuobjdump, f"--list-{kind.lower()}", library], capture_output=True, text=True, check=True
        ).stdout
        found = set(re.findall(r"\.(sm_\w+)\.", listed))
        if found != expected:
            wrong.append(f"{library.name}: {kind} must be for {sorted(expected)}, is for {sorted(found)}")
    return wrong


def check(wheel: Path) -> list[str]:
    """What is wrong with the wheel."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        files = [name for name in archive.namelist() if not name.endswith("/")]
        wrong = content_faults(wheel.name, wheel.stat().st_size, files)
        for file in sorted({CPU_LIBRARY, CUDA_LIBRARY} & set(files)):
            library = Path(archive.extract(file, folder))
            wrong += abi_faults(library)
            if file == CUDA_LIBRARY:
                wrong += architecture_faults(library)
        wrong += sbom.faults(wheel)
        for file in files:
            if file.endswith(".so"):
                wrong += hardening.faults(Path(archive.extract(file, folder)))
    print(f"{wheel.name}: {len(files)} files, {wheel.stat().st_size / 1e6:.2f} MB")
    return [f"{wheel.name}: {what}" for what in wrong]


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    wrong = [what for wheel in parser.parse_args().wheels for what in check(wheel)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
