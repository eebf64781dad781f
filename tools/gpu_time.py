"""Holds the loops over time of the CUDA library to their counts: `python -m tools.gpu_time FILE...`.

Needs no GPU: the machine code of sm_90a says, with every instruction, for how many cycles its warp may not issue the
next one. Summed along the costliest path of a step these are a lower bound of a step's time, and so are the issue
slots that the warps of a scheduler share. What memory, barriers and other warps add is not in them.

gpu_time.csv keeps the counts, by version of nvcc, and no count may be above it; `--write` records it, and writes those
by which the plan chooses into csrc/recurrence/counts.h. FILE is the library, or the cubins of its sources.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import triton

TABLE = Path(__file__).with_suffix(".csv")
SHAPES = Path(__file__).parents[1] / "csrc/recurrence/shapes.h"
HEADER = SHAPES.with_name("counts.h")
#: Of a step, along its costliest path.
COUNTS = ("stalls", "instructions", "waits", "hmma", "wavefronts", "membar", "cctl")
COLUMNS = ("nvcc", "kernel", "warps", *COUNTS, "issue", "microseconds")
#: What the plan reads.
PLANNED = ("stalls", "instructions", "hmma", "wavefronts")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"  # cuobjdump comes with Triton
ARCH = "sm_90a"
KERNEL = "recurrence_persistent_kernel"
CYCLES_PER_MICROSECOND = 1750
SCHEDULERS = 4  # of an SM; a warp belongs to one of them

_FUNCTION = re.compile(r"^\s*Function : (\S+)$")
_FIRST = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(?:@!?(U?P\d)\s+)?(\S+)\s*(.*?)\s*;.*/\* 0x[0-9a-f]{16} \*/$"
)
_SECOND = re.compile(r"^\s*/\* 0x([0-9a-f]{16}) \*/$")


@dataclass(frozen=True)
class Instruction:
    """Of the listing: `predicated` may be skipped, `stall` cycles until the next one, `waits` for a scoreboard."""

    address: int
    predicated: bool
    name: str
    operands: str
    stall: int
    waits: bool

    @property
    def target(self) -> int | None:
        """Where a branch goes to."""
        found = re.search(r"\b0x([0-9a-f]+)$", self.operands) if self.name.split(".")[0] == "BRA" else None
        return int(found[1], 16) if found else None


def functions(listing: Iterable[str]) -> dict[str, list[Instruction]]:
    """The instructions of every function of a listing by `cuobjdump -sass`."""
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    first = None
    for line in listing:
        if name := _FUNCTION.match(line):
            body = found.setdefault(name[1], [])
        elif match := _FIRST.match(line):
            first = match
        elif (second := _SECOND.match(line)) and first:
            address, predicate, opcode, operands = first.groups()
            control = (
                int(second[1], 16) >> 41
            )  # 4 bits of stall, 1 of yield, 3 + 3 of scoreboards to set, 6 to wait for
            waits = bool(control >> 11 & 63)
            body.append(Instruction(int(address, 16), bool(predicate), opcode, operands, control & 15, waits))
            first = None
    return found


def time_loop(body: list[Instruction]) -> list[Instruction]:
    """The widest loop with products of tensor cores."""
    products = [i.address for i in body if i.name.startswith("HMMA")]
    branches = [(i.target, i.address) for i in body if i.target is not None]
    loops = [
        (first, last)
        for first, last in branches
        if any(first <= product <= last for product in products) and not _reached_without(body, last, first)
    ]
    if not loops:
        raise ValueError("no loop holds a product of tensor cores")
    first, last = max(loops, key=lambda loop: loop[1] - loop[0])
    return [i for i in body if first <= i.address <= last]


def _reached_without(body: list[Instruction], address: int, avoided: int) -> bool:
    """Whether a way from the function's begin leads to an address but not through another: then that begins no loop."""
    place = {instruction.address: k for k, instruction in enumerate(body)}
    seen, left = {place[avoided]}, [0]
    while left:
        k = left.pop()
        if k in seen or k == len(body):
            continue
        seen.add(k)
        if body[k].address == address:
            return True
        if not (_leaves(body[k]) and not body[k].predicated):
            left.append(k + 1)
        if (target := body[k].target) is not None and target in place:
            left.append(place[target])
    return False


def inner_loop(loop: list[Instruction]) -> list[Instruction]:
    """The loop within a step, if there is one: that over the terms of a long sum. A wait for a barrier is none."""
    found: list[Instruction] = []
    for branch in loop[:-1]:
        inside = [i for i in loop if branch.target is not None and branch.target <= i.address <= branch.address]
        if not inside or any(i.name.startswith("SYNCS.PHASECHK") for i in inside):
            continue
        if found or not any(i.name.startswith("HMMA") for i in inside):
            raise ValueError(f"a loop within a step, at {branch.target:#x}: its rounds are not known")
        found = inside
    return found


def costliest_path(loop: list[Instruction], cost_of: Callable[[Instruction], int]) -> list[Instruction]:
    """One round of a loop along the branches that cost the most; branches out of it are not taken, nor back."""
    place = {instruction.address: k for k, instruction in enumerate(loop)}
    cost: list[int | None] = [None] * len(loop)
    came_from: list[int | None] = [None] * len(loop)
    cost[0] = 0
    for k, instruction in enumerate(loop):
        here = cost[k]
        if here is None:
            continue
        if instruction.name.split(".")[0] in ("BRX", "JMX", "CALL", "RET", "JMP"):
            raise ValueError(f"{instruction.name} at {instruction.address:#x}: where it goes to is not known")
        after = []
        if k + 1 < len(loop) and not (_leaves(instruction) and not instruction.predicated):
            after.append(k + 1)
        if instruction.target is not None and (to := place.get(instruction.target, 0)) > k:
            after.append(to)
        for to in after:
            total = here + cost_of(instruction)
            if (known := cost[to]) is None or total > known:
                cost[to], came_from[to] = total, k
    path, k = [], len(loop) - 1
    if cost[k] is None:
        raise ValueError("no path leads through the loop")
    while True:
        path.append(loop[k])
        if (before := came_from[k]) is None:
            return path[::-1]
        k = before


def _leaves(instruction: Instruction) -> bool:
    return instruction.name.split(".")[0] in ("BRA", "EXIT")


def counts(body: list[Instruction], products: int) -> dict[str, int]:
    """Of one step, which has so many products of tensor cores.

    Stalls are those of the path with the most of them, the others those of the path with the most instructions. A round
    of the loop over time holds one or more steps, each with a barrier of the block or of the cluster. An inner loop
    goes as many rounds as the products need.
    """
    loop = time_loop(body)
    slowest, path = costliest_path(loop, lambda i: i.stall), costliest_path(loop, lambda _: 1)
    steps = sum(i.name.startswith("BAR.SYNC") for i in path) or sum(i.name.startswith("SYNCS.ARRIVE") for i in path)
    if not steps:
        raise ValueError("no barrier ends a step")
    inside = set(inner_loop(loop))
    first, further = (
        sum(i.name.startswith("HMMA") for i in path if (i in inside) is within) for within in (False, True)
    )
    rounds = (products * steps - first) // further if further else 1
    if first + rounds * further != products * steps:
        raise ValueError(f"{first} products and {rounds} times {further} are not {steps} times {products}")

    def total(of: list[Instruction], count: Callable[[Instruction], int]) -> int:
        return math.ceil(sum(count(i) * (rounds if i in inside else 1) for i in of) / steps)

    return {
        "stalls": total(slowest, lambda i: i.stall),
        "instructions": total(path, lambda _: 1),
        "waits": total(path, lambda i: i.waits),
        "hmma": total(path, lambda i: i.name.startswith("HMMA")),
        "wavefronts": total(path, lambda i: _wavefronts(i.name)),
        "membar": total(path, lambda i: i.name.startswith("MEMBAR")),
        "cctl": total(path, lambda i: i.name.startswith("CCTL")),
    }


def _wavefronts(name: str) -> int:
    """Passes of shared memory, 128 bytes each, for an access without bank conflicts."""
    if name.split(".")[0] not in ("LDS", "STS", "STAS"):
        return 0
    return 4 if ".128" in name else 2 if ".64" in name else 1


def rows_of(files: list[Path]) -> list[dict[str, str]]:
    """A row for every kernel with a loop over time."""
    rows = sorted((row for file in files for row in _rows_of(file)), key=_order)
    if not rows:
        raise ValueError(f"no {KERNEL} for {ARCH}")
    return rows


def _rows_of(file: Path) -> Iterator[dict[str, str]]:
    version = re.search(r"release ([\d.]+)", _run("nvcc", "--version"))
    assert version is not None
    warps = _warps(_run(TOOLS / "cuobjdump", "-arch", ARCH, "-elf", file).splitlines())
    for mangled, body in functions(_run(TOOLS / "cuobjdump", "-arch", ARCH, "-sass", file).splitlines()).items():
        if KERNEL not in mangled:
            continue
        name = re.sub(r"vfrnn::|gpu::|void |\(int\)|\(bool\)", "", _run("c++filt", mangled).strip()).split("(")[0]
        try:
            found = counts(body, products_of(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        issue = -(-warps[mangled] // SCHEDULERS) * found["instructions"]
        bound = max(issue, found["stalls"]) / CYCLES_PER_MICROSECOND
        values = (version[1], name, warps[mangled], *found.values(), issue, f"{bound:.3f}")
        yield dict(zip(COLUMNS, map(str, values), strict=True))


def products_of(kernel: str) -> int:
    """Of a warp and step, by the tables of shapes.h: in a group two in 16 bits, and two times three in float32."""
    kind, index, *_ = _arguments(kernel)
    bits = 32 if kind == "F32" else 16
    table = re.search(rf"shapes_{bits}_bits\[\] = \{{(.*?)\n\}};", SHAPES.read_text(), re.DOTALL)
    assert table is not None
    N, _, unit_tiles, batch_tiles = map(int, re.findall(r"\{(\d+), (\d+), (\d+), (\d+), ", table[1])[int(index)])
    return N * bits // 8 // 64 * unit_tiles * batch_tiles * (6 if bits == 32 else 2)


def _warps(dump: list[str]) -> dict[str, int]:
    """Of the functions of a `cuobjdump -elf`, from the limit of threads that they are compiled for."""
    found, name, named = {}, "", False
    for line in dump:
        if section := re.match(r"\.nv\.info\.(\S+)$", line):
            name = section[1]
        elif "EIATTR_MAX_THREADS" in line:
            named = True
        elif named and (value := re.match(r"\s*Value:\s+(0x[0-9a-f]+)", line)):
            found[name], named = int(value[1], 16) // 32, False
    return found


def _order(row: dict[str, str]) -> tuple[str, int, str]:
    kind, index, *rest = _arguments(row["kernel"])
    return kind, int(index), " ".join(rest)


def _arguments(kernel: str) -> list[str]:
    """Of the template: number type, index of the shape, whether backward, whether beside a float32 state."""
    return re.split(r"[<>]", kernel)[1].replace("true", "1").replace("false", "0").split(", ")


def faults(rows: list[dict[str, str]], recorded: list[dict[str, str]]) -> list[str]:
    """Counts above the recorded ones, and kernels that one of the two does not have."""
    before = {row["kernel"]: row for row in recorded}
    wrong = [f"{kernel}: recorded, and no longer there" for kernel in before.keys() - {row["kernel"] for row in rows}]
    for row in rows:
        if (limits := before.get(row["kernel"])) is None:
            wrong.append(f"{row['kernel']}: not recorded")
            continue
        wrong += [
            f"{row['kernel']}: {row[count]} {count} in a step, recorded are {limits[count]}"
            for count in COUNTS
            if int(row[count]) > int(limits[count])
        ]
    return wrong


def header_of(rows: list[dict[str, str]]) -> str:
    """csrc/recurrence/counts.h: of every shape, the kernels whose state is of the products' type; none where a
    direction is not compiled."""
    lines = [
        "// Counts of a step of the kernels of persistent.h, forward and backward, by shape. Written by",
        f"// `python -m tools.gpu_time --write`, not by hand: the machine code of {ARCH}, by nvcc {rows[0]['nvcc']}.",
        "#pragma once",
        "",
        "namespace vfrnn {",
        "",
        "// Of a warp: cycles until it may issue, instructions, products of tensor cores, passes of shared memory.",
        "struct StepCounts {",
        f"  int {', '.join(PLANNED)};",
        "};",
        "",
        "// clang-format off",
    ]
    for kind in ("Bf16", "F16", "F32"):
        of_kind = [row for row in rows if _arguments(row["kernel"])[0] == kind]
        lines += ["", f"constexpr StepCounts step_counts_{kind.lower()}[][2] = {{"]
        by_place = {tuple(_arguments(row["kernel"])[1:]): row for row in of_kind}
        for index in range(len({_arguments(row["kernel"])[1] for row in of_kind})):
            both = [by_place.get((str(index), backward, "0")) for backward in "01"]
            counts = ["{" + ", ".join(row[c] for c in PLANNED) + "}" if row else "{}" for row in both]
            lines.append("    {" + ", ".join(counts) + "},")
        lines.append("};")
    return "\n".join([*lines, "// clang-format on", "", "}  // namespace vfrnn", ""])


def check(files: list[Path], write: bool) -> list[str]:
    """What is wrong with the kernels."""
    rows = rows_of(files)
    if write:
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        HEADER.write_text(header_of(rows))
    with TABLE.open(newline="") as file:
        recorded = list(csv.DictReader(file))
    print(f"{len(rows)} loops over time for {ARCH}, compiled by nvcc {rows[0]['nvcc']}")
    if recorded[0]["nvcc"] != rows[0]["nvcc"]:
        print(f"not compared with {TABLE.name}, which is of nvcc {recorded[0]['nvcc']}")
        return []
    wrong = faults(rows, recorded)
    if HEADER.read_text() != header_of(recorded):
        wrong.append(f"{HEADER.name} does not hold the counts of {TABLE.name}: --write writes both")
    return wrong


def _run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help="record what is found")
    arguments = parser.parse_args()
    wrong = check(arguments.files, arguments.write)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
