"""A child forked after native threads have run computes with one thread."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import torch

_had_native_threads = False


def _before_fork() -> None:
    global _had_native_threads
    tasks = Path("/proc/self/task")
    _had_native_threads = tasks.exists() and len(list(tasks.iterdir())) > threading.active_count()


def _in_forked_child() -> None:
    # OpenMP's threads do not survive a fork: the next parallel loop, ours or PyTorch's, would wait for them forever.
    if _had_native_threads:
        torch.set_num_threads(1)


def watch_forks() -> None:
    """Called once, at import."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_in_forked_child)
