"""Holds the compiled CUDA library to the limits of its architectures: `python -m tools.cuda_resources LIBRARY`.

Needs no GPU. No kernel of a recurrence may spill; symbols that stay unresolved without a CUDA build
of torch must be exactly those of its shims. cuda_resources.csv keeps what was found, by version of nvcc; `--write`
records it. A library that was built for some of the architectures is compared with their rows.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import torch
import triton

TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ("nvcc", "arch", "kernel", "registers", "stack", "shared")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"  # cuobjdump comes with Triton
#: Kernels that run for every time step: they must not spill.
RECURRENCE = r"recurrence_|tensor_step|double_step|spectral_chain"
#: Bytes of a thread's stack that the others may have: their loops over tiles are far longer than what that costs.
MOST_STACK = 32
#: What only a CUDA build of torch defines.
SHIMS = {"aoti_torch_get_current_cuda_stream"}
TORCH_LIBRARIES = ("libtorch.so", "libtorch_cpu.so", "libc10.so")


def _run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def kernels(library: Path) -> list[dict[str, str]]:
    """One row for every kernel and architecture in the library."""
    version = re.search(r"release ([\d.]+)", _run("nvcc", "--version"))
    assert version is not None
    rows, arch = [], ""
    lines = _run(TOOLS / "cuobjdump", "--dump-resource-usage", library).splitlines()
    for name_line, usage in pairwise(lines):
        if found := re.search(r"arch = sm_(\w+)", name_line):
            arch = found[1]
        name = re.search(r"Function (\S+):", name_line)
        found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
        if name and found:
            rows.append(dict(zip(COLUMNS, (version[1], arch, _readable(name[1]), *found.groups()), strict=True)))
    if not rows:
        raise RuntimeError(f"cuobjdump finds no kernel in {library}")
    return rows


def _readable(mangled: str) -> str:
    name = _run("c++filt", mangled).strip()
    return re.sub(r"\(anonymous namespace\)::|vfrnn::|gpu::|void |\(int\)", "", name).split("(")[0]


def faults(rows: list[dict[str, str]]) -> list[str]:
    """Kernels that keep more of their variables in memory than they may."""
    return [
        f"sm_{row['arch']} {row['kernel']} spills: a stack of {row['stack']} bytes"
        for row in rows
        if int(row["stack"]) > (0 if re.match(RECURRENCE, row["kernel"]) else MOST_STACK)
    ]


def unresolved(library: Path) -> set[str]:
    """Symbols that neither the system nor a CPU build of torch defines."""
    wanted = {line.split()[-1] for line in _run("nm", "-D", "--undefined-only", library).splitlines() if " U " in line}
    root = Path(torch.__file__).parent / "lib"
    for name in TORCH_LIBRARIES:
        wanted -= {line.split()[-1] for line in _run("nm", "-D", "--defined-only", root / name).splitlines()}
    return {name for name in wanted if "@" not in name}  # those with a version are libc's and libstdc++'s


def check(library: Path, write: bool) -> list[str]:
    """What is wrong with the library."""
    rows = sorted(kernels(library), key=lambda row: [row[column] for column in COLUMNS])
    wrong, archs = faults(rows), sorted({row["arch"] for row in rows})
    if (found := unresolved(library)) != SHIMS:
        wrong.append(f"unresolved symbols must be {sorted(SHIMS)}, got {sorted(found)}")
    if write:
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    else:
        with TABLE.open(newline="") as file:
            recorded = list(csv.DictReader(file))
        if recorded and recorded[0]["nvcc"] == rows[0]["nvcc"]:
            wrong += [f"not as recorded: {row}" for row in rows if row not in recorded]
            wrong += [
                f"recorded, and no longer there: {row}" for row in recorded if row["arch"] in archs and row not in rows
            ]
    print(f"{len(rows)} kernels in {library.name} for sm_{', sm_'.join(archs)}, compiled by nvcc {rows[0]['nvcc']}")
    return wrong


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--write", action="store_true", help="record what is found")
    arguments = parser.parse_args()
    wrong = check(arguments.library, arguments.write)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
