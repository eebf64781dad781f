"""Where the time of one training step of a VFRNN goes: every stage timed alone, in turns with the whole step."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vfrnn_bench.gpu.timing import clock_of
from vfrnn_bench.timing import interleaved
from vfrnn_bench.workloads import SEQUENCES, Sequence

import vfrnn
from vfrnn.files import write_file

LIBRARY = torch.ops.vfrnn_kernels
#: Bits of `needs` of recurrence_backward (csrc/ops.cpp): x, U, c, M, h0, beta.
WEIGHTS, STATES = 0b001010, 0b110100


def workload(name: str) -> Sequence:
    """
    Raises:
        ValueError: there is no such sequence.
    """
    for w in SEQUENCES:
        if name in (w.name, w.name.replace("R", "S")):
            return w
    raise ValueError(f"workload must be one of {', '.join(w.name for w in SEQUENCES)}, got {name!r}")


class Step:
    """One training step of VFRNN on the complete mesh: forward, loss, backward, Adam."""

    def __init__(self, w: Sequence, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = vfrnn.VFRNN(w.i, w.n).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)
        self.x, self.grad = (t.to(device) for t in w.inputs())

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.profiler.record_function("forward"):
            output = self.model(self.x)[0]
        with torch.profiler.record_function("backward"):
            output.backward(self.grad)
        with torch.profiler.record_function("optimizer"):
            self.optimizer.step()

    def stages(self) -> dict[str, Callable[[], Any]]:
        """The step's kernels, called with its tensors; names with "without" serve differences only."""
        model, x = self.model, self.x
        with torch.no_grad():
            b, w, v = self._mesh()
            S, delta = LIBRARY.field_generator(b, w, None, None, v)
            dt = torch.ones(1, device=x.device)
            M, Q, saved = LIBRARY.strang_step(S, delta, dt, 1)
            plain, kept = LIBRARY.skew_expm(S, dt)
            U, c, beta = (getattr(model, f"{name}_l0").detach() for name in ("weight_ih", "bias", "beta"))
            h0 = x.new_zeros(x.shape[1], M.shape[-1])
            hs = LIBRARY.recurrence(x, U, c, M[0], h0, beta, "modrelu")
            grad_M = torch.randn_like(M)
        nothing, empty = x[..., :0].contiguous(), U[:, :0].contiguous()

        def backward(needs: int) -> Callable[[], Any]:
            return lambda: LIBRARY.recurrence_backward(
                self.grad, x, U, c, M[0], h0, beta, hs, "modrelu", needs
            )  # fmt: skip

        return {
            "generator": lambda: LIBRARY.field_generator(b, w, None, None, v),
            "exponential": lambda: LIBRARY.skew_expm(S, dt),
            "strang": lambda: LIBRARY.strang_step(S, delta, dt, 1),
            "recurrence": lambda: LIBRARY.recurrence(x, U, c, M[0], h0, beta, "modrelu"),
            "recurrence without input": lambda: LIBRARY.recurrence(nothing, empty, c, M[0], h0, beta, "modrelu"),
            "recurrence backward": backward(WEIGHTS | STATES),
            "recurrence backward without weights": backward(STATES),
            "exponential backward": lambda: LIBRARY.skew_expm_backward(grad_M, S, dt, plain, kept, 1),
            "strang backward": lambda: LIBRARY.strang_step_backward(grad_M, S, delta, dt, M, Q, saved, 1, 3),
            "generator backward": lambda: LIBRARY.field_generator_backward(
                grad_M, delta, b, w, None, None, v, S, delta, 0b10000
            ),
            "optimizer": self.optimizer.step,
        }

    def _mesh(self) -> tuple[Tensor, Tensor, Tensor]:
        n = self.model.hidden_size
        mesh = vfrnn.LatentMesh.complete(n).to(self.x.device)
        return mesh.b, mesh.w, self.model.field_l0.detach().unsqueeze(0)


def profile(w: Sequence, device: torch.device, rounds: int = 15) -> list[dict[str, Any]]:
    """The stages in the order of the step, with their share of it; `inside`: a kernel of ours or the optimizer."""
    step = Step(w, device)
    step()
    times = interleaved({"step": step, **step.stages()}, rounds, clock=clock_of(device))
    ms = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    stages = {
        "field generator": ms["generator"],
        "exponential": ms["exponential"],
        "divergence scale": ms["strang"] - ms["exponential"],
        "input product": ms["recurrence"] - ms["recurrence without input"],
        "recurrence forward": ms["recurrence without input"],
        "recurrence backward": ms["recurrence backward without weights"],
        "weight gradients": ms["recurrence backward"] - ms["recurrence backward without weights"],
        "exponential backward": ms["exponential backward"],
        "divergence scale backward": ms["strang backward"] - ms["exponential backward"],
        "field generator backward": ms["generator backward"],
        "optimizer": ms["optimizer"],
    }
    stages = {name: max(0.0, value) for name, value in stages.items()}  # a difference of noisy times may be negative
    rest = max(0.0, ms["step"] - sum(stages.values()))
    rows = [{"stage": name, "milliseconds": value, "inside": True} for name, value in stages.items()]
    rows.append({"stage": "autograd, Python, memory", "milliseconds": rest, "inside": False})
    return [row | {"share": row["milliseconds"] / ms["step"]} for row in rows] + [
        {"stage": "whole step", "milliseconds": ms["step"], "share": 1.0, "inside": False}
    ]


def trace(w: Sequence, device: torch.device, path: Path, steps: int = 3) -> None:
    """A Chrome trace of a few steps; on a GPU with NVTX ranges of every op, for Nsight."""
    step = Step(w, device)
    step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps):
            step()
    with tempfile.TemporaryDirectory() as folder:  # what writes it says nothing of a disk that is full
        whole = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(whole))
        write_file(path, whole.read_bytes())
    if device.type == "cuda":
        with torch.autograd.profiler.emit_nvtx():
            step()
