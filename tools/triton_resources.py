"""Compiles every Triton kernel x configuration ahead of time and holds its resources to the architecture's limits.

    python -m tools.triton_resources ARCH... [--ops OP...] [--jobs N] [--write]

Needs no GPU; from an empty cache of Triton it takes minutes. A kernel must not spill (no STL or LDL) and its shared
memory must fit. triton_resources.csv keeps what was found, by version of Triton: where it has the installed version, it
must be found again; `--write` records it.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import triton

from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.library import triton_kernels
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


def compiled_row(place: tuple[int, str, int]) -> dict[str, str]:
    """The row of the table of one architecture, op and number of a configuration."""
    arch, op, k = place
    spec = list(triton_kernels(op).specs())[k]
    values = (triton.__version__, arch, op, spec.name, *resources(spec, arch))
    return dict(zip(COLUMNS, map(str, values), strict=True))


def faults(row: dict[str, str]) -> list[str]:
    """What is wrong with a kernel, whatever was recorded."""
    arch, op, name, found = int(row["arch"]), row["op"], row["configuration"], []
    if row["spills"] != "0":
        found.append(f"sm_{arch} {op}: {name} spills in {row['spills']} instructions at {row['registers']} registers")
    if int(row["shared"]) > (limit := shared_memory_limit(arch)):
        found.append(f"sm_{arch} {op}: {name} needs {row['shared']} bytes of shared memory, {limit} are there")
    return found


def check(archs: list[int], ops: list[str], jobs: int, write: bool) -> list[str]:
    """Compiles everything for these architectures; returns what is wrong."""
    places = [(arch, op, k) for arch in archs for op in ops for k in range(len(list(triton_kernels(op).specs())))]
    with ProcessPoolExecutor(jobs) as pool:
        rows = list(pool.map(compiled_row, places))
    wrong = [fault for row in rows for fault in faults(row)]
    recorded, version = read_table(), triton.__version__
    asked = {(version, str(arch), op) for arch in archs for op in ops}
    before = [row for row in recorded if _of(row) in asked]
    if write:
        write_table([*(row for row in recorded if _of(row) not in asked), *rows])
    elif any(row["triton"] == version for row in recorded):
        wrong += [f"not as recorded: {row}" for row in rows if row not in before]
        wrong += [f"recorded, and no longer there: {row}" for row in before if row not in rows]
    print(f"{len(rows)} kernels compiled with Triton {version} for sm_{', sm_'.join(map(str, archs))}")
    return wrong


def _of(row: dict[str, str]) -> tuple[str, str, str]:
    return row["triton"], row["arch"], row["op"]


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archs", type=int, nargs="+", choices=ARCHITECTURES, metavar="ARCH")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; default: one for each CPU")
    parser.add_argument("--write", action="store_true", help="record what is found")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set: the interpreter compiles nothing")
    wrong = check(arguments.archs, arguments.ops, arguments.jobs, arguments.write)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
