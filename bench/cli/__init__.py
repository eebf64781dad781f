"""The subcommands `vfrnn bench` and `vfrnn profile`, which `vfrnn` finds as entry points."""

from __future__ import annotations

MISSING = "pip install 'vfrnn-kernels[bench]'"


def check_device(name: str) -> None:
    """
    Raises:
        RuntimeError: there is no such device here.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"--device {name}: {str(error).splitlines()[0]}") from None
