"""`python -m tests.fuzz.native --seconds 60`: builds the harnesses beside this file with libFuzzer, AddressSanitizer
and UndefinedBehaviorSanitizer into build/fuzz, and runs each for its share of the time. Skipped with a reason where
there is no clang with libFuzzer."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vfrnn_kernels.loader import CPU_LIBRARY_MISSING

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
FLAGS = ("-std=gnu++17", "-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-Icsrc", "-w")
SANITIZERS = "-fsanitize=fuzzer,address,undefined", "-fno-sanitize=alignment"
PLANS = ("csrc/recurrence/plan.cpp", "csrc/field_flow/layout.cpp")
KERNELS = ("csrc/common/matmul_kernels.cpp", "csrc/field_flow/kernels.cpp")
ISAS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"),
    "neon": (),
}


def isas() -> list[str]:
    """Those of this CPU, the least and the best of what is installed."""
    if CPU_LIBRARY_MISSING is not None:
        return []
    import torch

    best = torch.ops.vfrnn_kernels.cpu_isa()
    return ["neon"] if best == "neon" else list(dict.fromkeys(("baseline", best)))


def harnesses() -> dict[str, tuple[str, ...]]:
    """Arguments of the compiler by the harness' name."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    found: dict[str, tuple[str, ...]] = {
        "plans": (str(HERE / "plans.cpp"), *PLANS),
        "series": (str(HERE / "series.cpp"), "-isystem", str(torch / "include")),
    }
    for isa in isas():
        chosen = (f"-DVFRNN_ISA={isa}", f"-DVFRNN_ISAS={isa}", *ISAS[isa])
        found[f"panels-{isa}"] = (str(HERE / "panels.cpp"), *KERNELS, *chosen)
    return found


def build(name: str, arguments: tuple[str, ...], folder: Path) -> Path:
    """The harness, built again only where a source is newer."""
    target = folder / name
    sources = [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cpp"), *HERE.iterdir()]
    if not target.exists() or target.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        subprocess.run(["clang++", *FLAGS, *SANITIZERS, *arguments, "-o", str(target)], cwd=ROOT, check=True)
    return target


def why_not() -> str | None:
    """Why nothing can be built here, or None."""
    if shutil.which("clang++") is None:
        return "there is no clang++ (Debian's package clang)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "empty.cpp")
        source.write_text("#include <fuzzer/FuzzedDataProvider.h>\n"
                          'extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }\n')  # fmt: skip
        tried = subprocess.run(
            ["clang++", *SANITIZERS, str(source), "-o", str(Path(folder, "empty"))], capture_output=True, text=True
        )
    return f"clang++ has no libFuzzer: {tried.stderr.splitlines()[0]}" if tried.returncode else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.native", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of all harnesses together, the build not counted")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    if reason := why_not():
        print(f"native fuzzing: skipped, {reason}")
        return 0
    folder = ROOT / "build/fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    failed = False
    wanted = harnesses()
    for name, sources in wanted.items():
        harness, corpus = build(name, sources, folder), folder / f"{name}-corpus"
        corpus.mkdir(exist_ok=True)
        share = max(1, round(arguments.seconds / len(wanted)))
        ended = subprocess.run(
            [str(harness), f"-max_total_time={share}", f"-seed={arguments.seed}", "-print_final_stats=1",
             "-max_len=256", f"-artifact_prefix={folder}/{name}-", "-timeout=20", "-rss_limit_mb=3000", str(corpus)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )  # fmt: skip
        runs = [line.split()[-1] for line in ended.stdout.splitlines() if "number_of_executed_units" in line]
        print(f"{name}: {runs[0] if runs else '?'} inputs, " + ("right" if ended.returncode == 0 else "FAILED"))
        if ended.returncode != 0:
            failed = True
            print("\n".join(ended.stdout.splitlines()[-60:]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
