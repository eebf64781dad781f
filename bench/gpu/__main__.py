"""python -m vfrnn_bench.gpu OUT PART --seconds N: measures one part (ceilings, first, exponential, recurrence, steps,
fields, loops), or reports on what results.json holds (report).

An exit code other than 0: the device's context broke (an illegal address, say), or a kernel did not return. The same
command again goes on behind the provider that did it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from vfrnn_bench.gpu.cases import PARTS
from vfrnn_bench.gpu.ceilings import ceilings
from vfrnn_bench.gpu.measure import run_part
from vfrnn_bench.gpu.report import report
from vfrnn_bench.gpu.results_file import ResultsFile
from vfrnn_bench.machine import machine


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("part", choices=("ceilings", *PARTS, "report"))
    parser.add_argument("--seconds", type=float, default=60, help="after so many, no further case is begun")
    parser.add_argument("--device", default="cuda", help="cpu only to try this program out")
    parser.add_argument("--quick", action="store_true", help="a few tiny cases")
    parser.add_argument("--note", action="append", default=[], help="lines for the head of the report")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    file = ResultsFile(arguments.out)
    with warnings.catch_warnings():
        # The peers' remarks on the layout of their weights; what fails is written down.
        warnings.simplefilter("ignore")
        if arguments.part == "report":
            report(file, arguments.out, arguments.note)
        elif arguments.part == "ceilings":
            file.data["about"] = machine(device)
            file.save()
            file.data["ceilings"] = ceilings(device, arguments.quick)
            file.save()
        else:
            run_part(arguments.part, device, file, arguments.seconds, arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
