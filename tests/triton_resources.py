"""Compiles every Triton kernel x configuration ahead of time and holds its resources to the architecture's limits.

    python -m tests.triton_resources ARCH [--write]

Needs no GPU. A kernel must not spill (no STL or LDL) and its shared memory must fit. triton_resources.csv keeps what
was found, by version of Triton: where it has the installed version, it must be found again; `--write` records it.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton

from vfrnn_kernels.library import OPS, triton_kernels
from vfrnn_kernels.triton_runtime import ARCHITECTURES, KernelSpec, compile_spec, shared_memory_limit

TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ("triton", "arch", "op", "configuration", "registers", "spills", "shared")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


def resources(spec: KernelSpec, arch: int) -> tuple[int, int, int]:
    """Registers of a thread, instructions on local memory (spills), bytes of shared memory of a program."""
    kernel = compile_spec(spec, arch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        usage = _run("cuobjdump", "--dump-resource-usage", cubin.name)
        found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
        if found is None:
            raise RuntimeError(f"cuobjdump says nothing about {spec.name}: {usage}")
        # Without a stack there is nowhere to spill to; a stack can be there for other reasons.
        spills = 0 if found[2] == "0" else len(re.findall(r"\b(?:STL|LDL)\b", _run("nvdisasm", "-c", cubin.name)))
    return int(found[1]), spills, kernel.metadata.shared


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def read_table() -> list[dict[str, str]]:
    """The recorded rows."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def write_table(rows: list[dict[str, str]]) -> None:
    """Replaces the table, sorted."""
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [row[column] for column in COLUMNS]))


def check(arch: int, ops: list[str], write: bool) -> list[str]:
    """Compiles for one architecture; returns what is wrong."""
    version = triton.__version__
    recorded = {(row["op"], row["configuration"]): row for row in read_table() if is_of(row, version, arch)}
    rows, wrong = [], []
    for op in ops:
        for spec in triton_kernels(op).specs():
            registers, spills, shared = resources(spec, arch)
            values = (version, arch, op, spec.name, registers, spills, shared)
            row = dict(zip(COLUMNS, map(str, values), strict=True))
            rows.append(row)
            place = f"sm_{arch} {op}: {spec.name}"
            if spills > 0:
                wrong.append(f"{place} spills in {spills} instructions at {registers} registers")
            if shared > shared_memory_limit(arch):
                wrong.append(f"{place} needs {shared} bytes of shared memory, {shared_memory_limit(arch)} are there")
            if recorded and not write and recorded.get((op, spec.name)) != row:
                wrong.append(f"{place} is not as recorded: {row}, was {recorded.get((op, spec.name))}")
    if write:
        others = [row for row in read_table() if not (is_of(row, version, arch) and row["op"] in ops)]
        write_table([*others, *rows])
    print(f"sm_{arch}: {len(rows)} kernels compiled with Triton {version}, {len(wrong)} of them wrong")
    return wrong


def is_of(row: dict[str, str], version: str, arch: int) -> bool:
    """Whether a row of the table is of this version and architecture."""
    return (row["triton"], row["arch"]) == (version, str(arch))


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arch", type=int, choices=ARCHITECTURES)
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS))
    parser.add_argument("--write", action="store_true", help="record what is found")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set: the interpreter compiles nothing")
    wrong = check(arguments.arch, arguments.ops, arguments.write)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
