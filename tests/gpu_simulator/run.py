"""`python -m tests.gpu_simulator.run [options] [-- pytest arguments]`: the GPU tests on the simulated machine code.

Needs `make simulator`. Without pytest arguments: every GPU test. README.md in this folder says what the options and
further settings do.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/simulated"
TESTS = [f"tests/backends/test_{name}.py" for name in ("gpu_ops", "gpu_field_flow", "gpu_sequences", "cuda")]


def environment(build: Path = BUILD, **settings: str | int | None) -> dict[str, str]:
    """For a process whose CUDA kernels are simulated; `settings` become VFRNN_SIMULATOR_NAME, None leaves it out."""
    named = {f"VFRNN_SIMULATOR_{name.upper()}": str(value) for name, value in settings.items() if value is not None}
    return {
        **os.environ,
        "VFRNN_CUDA_SIMULATED": str(build / "libvfrnn_cuda_simulated.so"),
        "LD_PRELOAD": str(build / "libtensor_bounds.so"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python")]),
        "OMP_NUM_THREADS": "1",
        **named,
    }


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of CMake's build (default %(default)s)")
    parser.add_argument("--sass", action="store_true", help="execute the SASS, not the PTX")
    parser.add_argument("--device", help="compute capability, such as 8.6 (default 9.0)")
    parser.add_argument("--seed", type=int, help="threads in an order by chance")
    parser.add_argument("--race", action="store_true", help="a launch with a race fails")
    parser.add_argument("--early", action="store_true", help="asynchronous copies land at once, not when waited for")
    parser.add_argument("--log", type=Path, help="a line of JSON per launch")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]


def main() -> int:
    options, arguments = parse_arguments()
    settings = {
        "sass": 1 if options.sass else None,
        "device": options.device,
        "seed": options.seed,
        "race": 1 if options.race else None,
        "early": 1 if options.early else None,
        "log": options.log and options.log.resolve(),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
    return subprocess.run(command, env=environment(options.build.resolve(), **settings), cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
