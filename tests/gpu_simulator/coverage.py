"""`python -m tests.gpu_simulator.coverage LOG...`: which kernels of the CUDA library no launch in these logs was of.

The logs are those of `run --log`; the kernels those of sm_90a, by their names. The exit status is the number of those
that nothing launched, but for what has a reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.gpu_simulator.run import BUILD

#: Kernels that nothing launches, by a part of their name, and why.
NEVER = {"cluster_probe": "asks the runtime what it can run"}


def built(folder: Path) -> set[str]:
    return {name for file in folder.glob("*.ptx") for name in re.findall(r"\.entry (\w+)", file.read_text())}


def main() -> int:
    launched = {json.loads(line)["kernel"] for log in sys.argv[1:] for line in Path(log).read_text().splitlines()}
    missing = sorted(built(BUILD / "code/90a") - launched)
    missing = [name for name in missing if not any(part in name for part in NEVER)]
    words = subprocess.run(["c++filt"], input="\n".join(missing), capture_output=True, text=True, check=True).stdout
    print(words, end="\n" if missing else "")
    print(f"{len(launched)} kernels were launched, {len(missing)} were not")
    return min(len(missing), 99)


if __name__ == "__main__":
    sys.exit(main())
