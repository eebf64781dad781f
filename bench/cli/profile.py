"""`vfrnn profile`: where the time of one training step goes, as a table, a picture and a Chrome trace."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from vfrnn_bench.cli import MISSING, check_device

from vfrnn.files import write_file


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "profile",
        help="where the time of a training step goes",
        description="Every stage of a training step of VFRNN timed alone, in turns with the whole step. Writes "
        "OUT/stages.json, OUT/stages.png and OUT/trace.json (open it in chrome://tracing or ui.perfetto.dev); on a "
        "GPU every op is an NVTX range too.",
    )
    parser.add_argument("--workload", default="R1", help="R1 (default) to R5")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/profile"), help="folder (default runs/profile)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write."""
    import torch

    try:
        from rich.console import Console
        from rich.table import Table
        from vfrnn_bench import drawing, figures, profile
    except ImportError as error:
        raise RuntimeError(f"{error}: {MISSING}") from error

    check_device(arguments.device)
    try:
        workload = profile.workload(arguments.workload)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
    device = torch.device(arguments.device)
    rows = profile.profile(workload, device)
    sizes = f"T {workload.T}, B {workload.B}, n {workload.n}, i {workload.i}"
    table = Table("stage", title=f"{workload.name}: {workload.what} ({sizes})")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for row in rows:
        table.add_row(row["stage"], f"{row['milliseconds']:.3f}", f"{row['share']:.0%}")
    Console().print(table)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stages = json.dumps({"workload": workload.name, "stages": rows}, indent=1) + "\n"
    write_file(arguments.out / "stages.json", stages)
    picture = io.BytesIO()
    drawing.styled(lambda: figures.stages(rows)).savefig(picture, format="png", dpi=150)
    write_file(arguments.out / "stages.png", picture.getvalue())
    profile.trace(workload, device, arguments.out / "trace.json")
    print(f"Wrote stages.json, stages.png and trace.json to {arguments.out}.")
    return 0
