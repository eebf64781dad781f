"""Holds the loops of the CPU library's tiles to what they must be: `python -m tools.hot_loops [LIBRARY]`.

A tile of a product is as fast as its multiply-adds if its loop holds nothing else that waits: loads, broadcasts from
memory, multiply-adds, and the counting of the loop. Needs objdump, and a library that is not stripped.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Functions with tiles; what is small is inlined into the next of them.
TILES = ("product_tile", "product_rows", "outer_tile", "outer_rows", "multiply_tile", "multiply_rows", "outer_products")
#: Instruction sets that have multiply-adds: the loops of the others are not as long as their multiply-adds.
ISAS = ("avx2", "avx512")
#: A loop with so many multiply-adds of vectors is one of a tile.
FEWEST = 2

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
_MULTIPLY_ADD = re.compile(r"^vf(n?m)(add|sub)(132|213|231)p[sd]$")
_LOAD = re.compile(r"^(vmovup[sd]|vmovap[sd]|vmovdqu\d*)$")
_BROADCAST = re.compile(r"^vbroadcasts[sd]$")
_COUNTING = re.compile(r"^(add|sub|cmp|test|inc|dec|shl|xchg|mov|movslq|cmov\w+|j\w+)$")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def of_memory(self) -> bool:
        return "(" in self.operands

    def fault(self) -> str | None:
        """Why a tile's loop must not hold it."""
        if re.search(r"\(%r[sb]p", self.operands):
            return "reads or writes the stack"
        if _MULTIPLY_ADD.match(self.name) or self.name == "lea" or re.match(r"nop|cs$|data16$", self.name):
            return None
        if _COUNTING.match(self.name):
            return "counts in memory" if self.of_memory else None
        if _BROADCAST.match(self.name):
            return None if self.of_memory else "broadcasts from a register"
        if _LOAD.match(self.name):
            return None if self.of_memory and not self.operands.endswith(")") else "is no load"
        return "is no load, broadcast or multiply-add of vectors"


@dataclass(frozen=True)
class Loop:
    function: str
    body: tuple[Instruction, ...]

    @property
    def multiply_adds(self) -> int:
        return sum(bool(_MULTIPLY_ADD.match(instruction.name)) for instruction in self.body)

    def faults(self) -> list[str]:
        found = [(i, i.fault()) for i in self.body]
        name = re.sub(r"\(anonymous namespace\)::|void ", "", self.function).split("(")[0]
        return [f"{name}: {i.name} {i.operands} at {i.address:x} {why}" for i, why in found if why]


def functions(disassembly: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Every function of what objdump -d -C prints, with its instructions."""
    name, body = "", []
    for line in disassembly.splitlines():
        if found := _FUNCTION.match(line):
            if body:
                yield name, body
            name, body = found[1], []
        elif found := _INSTRUCTION.match(line):
            body.append(Instruction(int(found[1], 16), found[2], re.split(r"[#<]", found[3])[0].strip()))
    if body:
        yield name, body


def inner_loops(name: str, body: list[Instruction]) -> Iterator[Loop]:
    """Loops that have no loop inside: a jump back, and what it repeats."""
    place = {instruction.address: k for k, instruction in enumerate(body)}
    found = set()
    for k, instruction in enumerate(body):
        target = re.match(r"[0-9a-f]+", instruction.operands) if instruction.name.startswith("j") else None
        first = place.get(int(target[0], 16)) if target else None
        if first is not None and first <= k:
            found.add((first, k))
    for first, last in sorted(found):
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in found):
            yield Loop(name, tuple(body[first : last + 1]))


def tile_loops(disassembly: str, isa: str) -> list[Loop]:
    """Of the tiles of one instruction set."""
    loops = []
    for name, body in functions(disassembly):
        if f"vfrnn::{isa}::" in name and any(tile in name for tile in TILES):
            loops += [loop for loop in inner_loops(name, body) if loop.multiply_adds >= FEWEST]
    return loops


def disassembled(library: Path) -> str:
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    from vfrnn_kernels.loader import CPU_LIBRARY

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", nargs="?", type=Path, default=CPU_LIBRARY)
    library = parser.parse_args().library
    if shutil.which("objdump") is None:
        print("hot_loops: skipped, there is no objdump")
        return 0
    disassembly, wrong = disassembled(library), []
    for isa in ISAS:
        loops = tile_loops(disassembly, isa)
        faults = [fault for loop in loops for fault in loop.faults()]
        kinds = Counter(min(tile for tile in TILES if tile in loop.function) for loop in loops)
        print(f"{isa}: {len(loops)} loops of tiles, {len(faults)} faults", dict(kinds))
        wrong += faults if loops else [f"{isa}: no loop of a tile found in {library}"]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
