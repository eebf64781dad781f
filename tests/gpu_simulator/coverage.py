"""`python -m tests.gpu_simulator.coverage LOG...`: which kernels of the CUDA library no launch in these logs was of.

The logs are those of `run --log`; the kernels those of sm_90a, by their names. A kernel that is listed waits for a
test of its size, or is to be deleted: the exit status is 1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.gpu_simulator.run import BUILD

#: A part of the names of what is never launched: the runtime is asked about it.
PROBE = "cluster_probe"


def built(folder: Path) -> set[str]:
    return {name for file in folder.glob("*.ptx") for name in re.findall(r"\.entry (\w+)", file.read_text())}


def main() -> int:
    launched = {json.loads(line)["kernel"] for log in sys.argv[1:] for line in Path(log).read_text().splitlines()}
    missing = sorted(name for name in built(BUILD / "code/90a") - launched if PROBE not in name)
    words = subprocess.run(["c++filt"], input="\n".join(missing), capture_output=True, text=True, check=True).stdout
    print(words, end="\n" if missing else "")
    print(f"{len(launched)} kernels were launched, {len(missing)} were not")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
