"""`vfrnn doctor`: what loaded, what did not and why, and a self-check of every op."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="what loaded, and a self-check",
        description="Versions, backends and why some did not load, and every op against float64.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 1 if an op fails its check or VFRNN_BACKEND names a backend that is not there."""
    from vfrnn import doctor

    for title, entries in (
        ("versions", doctor.versions()),
        ("backends", doctor.backends()),
        ("processor", doctor.processor()),
    ):
        print(title)
        for name, value in entries.items():
            print(f"  {name:<16} {value}")
    if problem := doctor.chosen_backend():
        print(f"VFRNN_BACKEND\n  {problem}")
        return 1
    print(f"self-check (float32 against float64, relative errors, at most {doctor.TOLERANCE:.0e})")
    checks = doctor.self_checks()
    for check in checks:
        verdict = "ok" if check.passed else "FAILED"
        errors = f"values {check.value_error:.1e}   gradients {check.gradient_error:.1e}"
        print(f"  {check.op:<19} {check.backend:<10} {errors}   {verdict}")
    return 0 if all(check.passed for check in checks) else 1
