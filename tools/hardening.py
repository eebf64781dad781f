"""What a library must have against faults in native code, and must not have: `python -m tools.hardening LIBRARY...`.

No path where it looks for others (rpath), no executable stack and no segment that is both written and executed,
relocations read-only from the start (RELRO, all symbols bound at load), stack canaries, no function of the C library
that writes without a bound, no library needed but the C and C++ runtime and torch, no absolute path of the machine that
built it. Read by readelf of binutils, which is where a compiler is. `_FORTIFY_SOURCE` leaves a trace only where a call
has a size that the compiler knows: that it is passed for every source is a test of CMakeLists.txt.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

#: What may be needed. The last four are parts of the C library that glibc had by themselves up to 2.33.
NEEDED = re.compile(
    r"libtorch(_cpu)?\.so|lib(stdc\+\+|gcc_s|c|m)\.so\.\d+|ld-linux[\w-]*\.so\.\d+|lib(pthread|dl|rt|util)\.so\.\d+"
)
UNBOUNDED = {"gets", "strcpy", "strcat", "sprintf", "vsprintf", "stpcpy", "mktemp", "tmpnam", "system", "popen"}
#: What is called by code that is linked in: NVIDIA's libcudart_static.
OTHERS = {"libvfrnn_cuda.so": {"strcpy"}}
#: A source file by its absolute path, as __FILE__ and debug information have it.
SOURCE_PATH = re.compile(rb"(?<![\w.+-])/(?:[\w.+-]+/)+[\w.+-]+\.(?:h|hpp|c|cc|cpp|cu|cuh|py)\b")


def _readelf(option: str, library: Path) -> str:
    return subprocess.run(["readelf", "-W", option, library], capture_output=True, text=True, check=True).stdout


def faults(library: Path) -> list[str]:
    """What is wrong with the library.

    Raises:
        FileNotFoundError: There is no readelf.
        subprocess.CalledProcessError: The file is not ELF.
    """
    dynamic, segments, symbols = (_readelf(option, library) for option in ("-d", "-l", "--dyn-syms"))
    wrong = [f"has a path for libraries, {path}" for path in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", dynamic)]
    wrong += [f"needs {name}" for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) if not NEEDED.fullmatch(name)]
    stack = re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}([RWE ]+?)\s+0x", segments)
    if stack is None or "E" in stack[1]:
        wrong.append("has an executable stack")
    if any("W" in flags and "E" in flags for flags in re.findall(r"LOAD\s+(?:0x\w+\s+){5}([RWE ]+?)\s+0x", segments)):
        wrong.append("has a segment that is both written and executed")
    if "GNU_RELRO" not in segments:
        wrong.append("keeps its relocations writable (no RELRO)")
    if not re.search(r"\(FLAGS(_1)?\).*\bNOW\b|BIND_NOW", dynamic):
        wrong.append("binds symbols when they are called (no BIND_NOW)")
    if "(TEXTREL)" in dynamic:
        wrong.append("has relocations in its code")
    undefined = set(re.findall(r"UND (\w+)", symbols))
    if not undefined & {"__stack_chk_fail", "__stack_chk_guard"}:
        wrong.append("has no stack canaries")
    wrong += [
        f"calls {name}, which writes without a bound"
        for name in sorted(UNBOUNDED & undefined - OTHERS.get(library.name, set()))
    ]
    wrong += [
        f"names a file of the machine that built it, {path.decode()}"
        for path in sorted(set(SOURCE_PATH.findall(library.read_bytes())))
    ]
    return [f"{library.name}: {what}" for what in wrong]


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="+", type=Path)
    wrong = [what for library in parser.parse_args().libraries for what in faults(library)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
