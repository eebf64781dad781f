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
TILES = (
    "product_tile",
    "product_rows",
    "outer_tile",
    "outer_rows",
    "multiply_tile",
    "multiply_rows",
    "multiply",
    "outer_products",
)
#: A loop with so many multiply-adds of vectors is one of a tile.
FEWEST = 2

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
_X86 = r"add|sub|cmp|test|inc|dec|shl|xchg|mov|movslq|cmov\w+|j\w+|lea|nop\w*|cs|data16"


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str


@dataclass(frozen=True)
class Rules:
    """What a tile's loop may hold on one instruction set, as patterns of "name operands".

    Attributes:
        multiply_add: of vectors; the product alone where there is no multiply-add.
        load: of a vector, or of an entry for all lanes, from memory.
        others: what else its loop needs.
        counting: of the loop, in registers.
        stack: of operands: what was spilled.
    """

    multiply_add: str
    load: str
    counting: str
    stack: str
    others: str = r"(?!)"

    def fault(self, instruction: Instruction) -> str | None:
        """Why a tile's loop must not hold it."""
        text = f"{instruction.name} {instruction.operands}"
        if re.search(self.stack, instruction.operands) and not instruction.name.startswith(("nop", "cs", "data16")):
            return "reads or writes the stack"
        allowed = (self.multiply_add, self.load, self.counting, self.others)
        return None if any(re.match(pattern, text) for pattern in allowed) else "is none of what a tile needs"


_COUNTING = rf"(?:lea |nop|cs |data16 |(?:{_X86}) [^(]*$)"
_AVX = Rules(
    r"vf(n?m)(add|sub)(132|213|231)p[sd] ",
    r"(vmov[ua]p[sd]|vbroadcasts[sd]) .*\).*%[xyz]mm\d+$",
    _COUNTING,
    r"\(%r[sb]p",
)
RULES = {
    # Every operation overwrites an operand: registers are copied, and an entry is spread over the lanes.
    "baseline": Rules(
        r"mulp[sd] ", r"mov([ua]p|s)[sd] .*\).*%xmm\d+$", _COUNTING, r"\(%r[sb]p",
        r"(addp[sd] |mov[ua]p[sd] %xmm\d+,%xmm\d+$|shufps |unpcklpd |movddup )",
    ),
    "avx2": _AVX,
    "avx512": _AVX,
    "neon": Rules(
        r"fml[as] v", r"(ldp|ldr|ldur|ld1r) [^w]*[qsdv]\d+.*\[",
        r"(add|adds|sub|subs|cmp|csel|lsl|mov|b(\.\w+)?|cbn?z|nop)(?!\w)[^v\[]*$", r"\[sp", r"(dup|mov) v\d+",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Loop:
    function: str
    body: tuple[Instruction, ...]

    rules: Rules

    @property
    def multiply_adds(self) -> int:
        return sum(bool(re.match(self.rules.multiply_add, f"{i.name} {i.operands}")) for i in self.body)

    def faults(self) -> list[str]:
        found = [(i, self.rules.fault(i)) for i in self.body]
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
            body.append(Instruction(int(found[1], 16), found[2], re.split(r" ?<|\s+#|\s+//", found[3])[0].strip()))
    if body:
        yield name, body


def inner_loops(name: str, body: list[Instruction], rules: Rules) -> Iterator[Loop]:
    """Loops that have no loop inside: a jump back, and what it repeats."""
    place = {instruction.address: k for k, instruction in enumerate(body)}
    found = set()
    for k, instruction in enumerate(body):
        jumps = re.match(r"j|b$|b\.|cbn?z", instruction.name)
        target = re.search(r"(?:^|, ?)([0-9a-f]+)$", instruction.operands) if jumps else None
        first = place.get(int(target[1], 16)) if target else None
        if first is not None and first <= k:
            found.add((first, k))
    for first, last in sorted(found):
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in found):
            yield Loop(name, tuple(body[first : last + 1]), rules)


def tile_loops(disassembly: str, isa: str) -> list[Loop]:
    """Of the tiles of one instruction set."""
    loops = []
    for name, body in functions(disassembly):
        if f"vfrnn::{isa}::" in name and any(f"{tile}<" in name for tile in TILES):
            loops += [loop for loop in inner_loops(name, body, RULES[isa]) if loop.multiply_adds >= FEWEST]
    return loops


def disassembled(library: Path, objdump: str = "objdump") -> str:
    command = [objdump, "-d", "-C", "--no-show-raw-insn", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def check(library: Path, isas: list[str], objdump: str = "objdump") -> list[str]:
    """What is wrong with the tiles of these instruction sets; how many loops they have is printed."""
    disassembly, wrong = disassembled(library, objdump), []
    for isa in isas:
        loops = tile_loops(disassembly, isa)
        faults = [fault for loop in loops for fault in loop.faults()]
        kinds = Counter(next(tile for tile in TILES if f"{tile}<" in loop.function) for loop in loops)
        print(f"{isa}: {len(loops)} loops of tiles, {len(faults)} faults", dict(kinds))
        wrong += faults if loops else [f"{isa}: no loop of a tile found in {library}"]
    return wrong


def main() -> int:
    import torch

    from vfrnn_kernels.loader import CPU_LIBRARY

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", nargs="?", type=Path, default=CPU_LIBRARY)
    library = parser.parse_args().library
    if shutil.which("objdump") is None:
        print("hot_loops: skipped, there is no objdump")
        return 0
    wrong = check(library, torch.ops.vfrnn_kernels.cpu_isas())
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
