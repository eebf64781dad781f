"""`make results`: the README's tables and pictures from bench/results and from the declarations of the ops, so that no
number in it is typed by hand.

A block starts with `<!-- results NAME -->` and ends with `<!-- /results -->`. A machine's folder holds `full-*.json`
(`make bench-cpu`, of each instruction set; of several, the worst is told), `tasks/` (`python -m vfrnn_bench.tasks`),
and its report and pictures, which are made here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vfrnn_bench import figures, report
from vfrnn_bench.tasks.results import HEAD, cells, load_tasks, published_line, shown
from vfrnn_bench.workloads import SMALL_EXPONENTIALS

from vfrnn.tasks.models import TITLES
from vfrnn_kernels.declaration import OPS, Op

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
MACHINE = "cpu-amd-epyc"
BLOCK = re.compile(r"(<!-- results (\S+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)


class Results:
    """What was measured on one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[Json] = [json.loads(path.read_text()) for path in sorted(folder.glob("full-*.json"))]
        self.tasks = load_tasks(folder / "tasks") if (folder / "tasks").exists() else []

    def ratio(self, workload: str, ours: str, peer: str) -> float | None:
        """The worse of the runs."""
        found = [
            row["ratio"]
            for run in self.runs
            for case in run["cases"]
            if case["workload"] == workload
            for row in case["ratios"]
            if (row["ours"], row["peer"]) == (ours, peer)
        ]
        return max(found) if found else None

    def share(self, workload: str, ours: str) -> str:
        """Of the rate of a large product, the least of the runs."""
        found = [
            row["share_of_ceiling"]
            for run in self.runs
            for case in run["cases"]
            if case["workload"] == workload
            for row in case["providers"]
            if row["provider"] == ours and row["least_share"] is not None
        ]
        return f"{min(found):.2f}" if found else ""

    def cell(self, workload: str, ours: str, peer: str) -> str:
        value = self.ratio(workload, ours, peer)
        return "" if value is None else f"{value:.2f}" if value >= 0.01 else f"{value:.3f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def machine(results: Results) -> str:
    """Which processor, instruction sets and commits."""
    first = results.runs[0]["machine"]
    isas = " and ".join(dict.fromkeys(run["machine"]["isa"] for run in results.runs))
    commits = ", ".join(dict.fromkeys(run["machine"]["commit"] for run in results.runs))
    limited = any(run["machine"].get("limits") for run in results.runs)
    text = (
        f"{first['device']}, {first['threads']} threads, {isas}, torch {first['torch']}, float32, commits {commits}. "
    )
    text += f"{len(results.runs)} runs; every cell is the worst of them"
    return text + (", the peers held to the same instruction set as ours.\n" if limited else ".\n")


def sequences(results: Results) -> str:
    names = ["R1", "R2", "R3", "R4", "R5", "R7"]
    ours, field, orthogonal = "vfrnn.RNN", "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)"
    lines: tuple[tuple[str, str, str, Callable[[str], str]], ...] = (
        ("`vfrnn.RNN` over `torch.nn.RNN`", ours, "torch.nn.RNN", str),
        ("over a tuned Python loop", ours, "loop", str),
        ("over that loop with a compiled step", ours, "loop, compiled step", str),
        ("inference over `torch.nn.RNN`", ours, "torch.nn.RNN", lambda name: f"{name} inference"),
        ("modReLU over tanh, both ours", "vfrnn modrelu", "vfrnn tanh", lambda name: f"{name} activation"),
        ("`vfrnn.VFRNN` over `orthogonal(torch.nn.RNN)`, training step", field, orthogonal,
         lambda name: name.replace("R", "S")),
        ("`vfrnn.VFRNN` over geotorch in a loop, cached, training step", field, "geotorch, cached",
         lambda name: name.replace("R", "S")),
        ("`vfrnn.VFRNN` over `vfrnn.OrthogonalRNN`, training step", field, "vfrnn.OrthogonalRNN",
         lambda name: name.replace("R", "S")),
    )  # fmt: skip
    rows = [
        [title, *(results.cell(workload(name), a, b) for name in names)] for title, a, b, workload in lines
    ]  # fmt: skip
    for title, workload in (("share of a large product's rate", str), ("inference: share", lambda n: f"{n} inference")):
        rows.append([f"`vfrnn.RNN`, {title}", *(results.share(workload(name), ours) for name in names)])
    return markdown(["", *names], rows)


def shared(results: Results) -> str:
    """Beside busy processes, and over a long run."""
    rows = []
    for row in results.runs[0]["shared_machine"]:
        ratios = [
            r["ratio"]
            for run in results.runs
            for r in run.get("shared_machine", [])
            if r["workload"] == row["workload"]
        ]
        what = f"{row['workload']}, {row['threads']} threads beside {row['neighbours']} busy processes"
        rows.append([what, f"{max(ratios):.2f}"])
    text = markdown(["on a shared machine", "`vfrnn.RNN` over `torch.nn.RNN`"], rows) + "\n"
    grown = [row["grown_mib"] for run in results.runs for row in run.get("soak", [])]
    steps = results.runs[0]["soak"][0]["steps"] if grown else 0
    return text + f"Growth of memory in {steps} steps of changing lengths: at most {max(grown, default=0):.0f} MiB.\n"


def exponentials(results: Results) -> str:
    sizes = ("32", "64", "128", "190", "256", "512")
    pair = ("vfrnn.skew_expm", "torch.matrix_exp")
    rows = []
    for title, norm in (("1", "1"), ("pi", "3.14"), ("10", "10"), ("50", "50")):
        cells = [results.cell(f"E({n}) norm {norm}", *pair) for n in sizes]
        rows.append([f"spectral norm {title}", *cells, results.cell(f"E(64) x 64 norm {norm}", *pair)])
    head = ["`skew_expm` over `torch.matrix_exp`", f"n {sizes[0]}", *sizes[1:], "64 matrices, n 64"]
    text = markdown(head, rows) + "\n"
    rows = []
    for e in SMALL_EXPONENTIALS:
        cells = [results.cell(e.name + mode, *pair) for mode in (" forward", "")]
        rows.append([f"{e.batch} of {e.n} x {e.n}", *cells])
    return text + markdown(["many small matrices", "forward", "forward and backward"], rows)


def frames(results: Results) -> str:
    """Nothing where no frame was measured."""
    ours, sizes = "vfrnn.parametrizations.orthogonal", ("600 x 50", "6000 x 50", "20000 x 20")
    rows = []
    for peer in ("torch orthogonal, matrix_exp", "torch orthogonal, householder", "torch.linalg.qr"):
        cells = [results.cell(f"frame {size}", ours, peer) for size in sizes]
        rows += [[f"`{peer}`", *cells]] if any(cells) else []
    return markdown(["`parametrizations.orthogonal` over", *sizes], rows) if rows else ""


def fields(results: Results) -> str:
    rows = []
    for name, op in (("F1", "field_generator"), ("F2", "field_flow")):
        for suffix, what in (("", "the field learned"), (" mesh learned", "the mesh learned too")):
            cells = [results.cell(name + suffix, f"vfrnn.{op}", peer) for peer in ("eager", "compiled")]
            rows.append([f"`{op}`, {what}", *cells])
    text = markdown(["", "over eager PyTorch", "over `torch.compile`"], rows) + "\n"
    loops = (
        ("I1", "vfrnn.flow_recurrence", "the flow's formulas, step by step"),
        ("I2", "vfrnn.spectral_recurrence", "`torch.matrix_exp` for every step and sample"),
    )
    rows = [[f"`{op}` ({name})", what, results.cell(name, op, "eager loop")] for name, op, what in loops]
    return text + markdown(["T 200, batch 32, n 64", "over an eager loop of", "ratio"], rows)


def accuracy(results: Results) -> str:
    """The largest error of each provider over all sizes, by norm."""
    rows = []
    kinds = ("forward", "orthogonality", "gradient")
    every = [row for run in results.runs for row in run.get("accuracy", [])]
    for provider in dict.fromkeys(row["provider"] for row in every):
        for norm in dict.fromkeys(row["norm"] for row in every):
            errors = [row["errors"] for row in every if (row["provider"], row["norm"]) == (provider, norm)]
            worst = [max((e[kind] for e in errors if kind in e), default=None) for kind in kinds]
            rows.append([f"`{provider}`", f"{norm:.3g}", *("" if e is None else f"{e:.1e}" for e in worst)])
    return markdown(["float32, worst of n 32 to 512", "spectral norm", *kinds], rows)


def growth(results: Results) -> str:
    rows = []
    for row in results.runs[0]["time"]:
        for curve in row["curves"]:
            span = f"{row['over']} {row['values'][0]} to {row['values'][-1]}"
            exponents = (curve["exponent"], curve["exponent_of_larger_half"])
            rows.append([span, f"`{curve['provider']}`", *(f"{value:.2f}" for value in exponents)])
    text = markdown(["time over", "", "fitted exponent", "in the larger half"], rows) + "\n"
    rows = [[f"`{row['provider']}`", f"{row['copies_of_states']:.2f}"] for row in results.runs[0]["memory"]]
    text += markdown(["peak memory of a training step over T", "copies of the hidden states"], rows)
    rows = []
    for row in results.runs[0]["long_memory"]:
        values = zip(row["bytes"], row["seconds"], strict=True)
        rows.append([f"`{row['provider']}`", *(f"{b / 2**20:.0f} MiB, {s:.2f} s" for b, s in values)])
    steps = results.runs[0]["long_memory"][0]["steps"]
    return text + "\n" + markdown(["one sequence, n 64: peak, time of a step", *(f"T {T}" for T in steps)], rows)


def tasks(results: Results) -> str:
    text = ""
    for task in results.tasks:
        rows = [[f"`{title}`", *numbers] for title, *numbers in cells(task)]
        o = task["options"]
        sizes = f"hidden size {o['model_options']['hidden_size']}, batch {o['task_options']['batch_size']}"
        text += f"**{task['name']}**: {task['what']} {sizes}, {o['epochs']} epochs, {len(task['seeds'])} seed"
        on = task["machine"]
        machine = ", ".join(part for part in (on["device"], on.get("isa")) if part)
        text += f"{'' if len(task['seeds']) == 1 else 's'}, {machine}, {on['threads']} thread"
        text += f"{'' if on['threads'] == 1 else 's'}, "
        text += f"equal time {task['equal_time_seconds']:.3g} s; "
        text += f"without memory {shown(task['baseline'], task['metric'])}.\n\n"
        text += markdown(["", f"test {task['metric']}", *HEAD], rows) + "\n"
        text += "".join(f"`{TITLES[model]}` is absent: {why}.\n\n" for model, why in task["absent"].items())
        text += "".join(f"Published: {published_line(row)}.\n\n" for row in task["published"])
        for model in task["models"]:
            scales = [scale for scale in model.get("divergence_scale_by_seed", []) if scale is not None]
            if scales:
                values = ", ".join(f"{scale:.2g}" for scale in scales)
                text += f"Learned divergence scale of `{model['title']}`: {values}.\n\n"
        text += picture(results.folder / "tasks" / f"{task['name']}.svg", f"{task['name']} over seconds of training")
    return text


def status(results: Results) -> str:
    """What each backend computes in, from the declarations of the ops."""
    columns = {
        "cpu": "cpu: C++, tested and measured",
        "triton": "Triton: simulated (PTX), and interpreted but for bfloat16; never run on a GPU",
        "cuda": "CUDA: simulated (PTX, SASS); never run on a GPU",
    }
    rows = [[f"`{name}`", *(_served(op, backend) for backend in columns)] for name, op in sorted(OPS.items())]
    return markdown(["op", *columns.values()], rows)


def _served(op: Op, backend: str) -> str:
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in op.serves[backend])
    return f"{dtypes}; n up to {op.largest_n[backend]}" if backend in op.largest_n else dtypes


def pictures(results: Results) -> str:
    lines = []
    for title, caption, _ in figures.FIGURES:
        lines.append(picture(results.folder / f"{figures.anchor(title)}.svg", caption))
    lines.append(picture(results.folder / "learning.svg", "Learning curves"))
    return "".join(lines).rstrip("\n") + "\n"


def picture(path: Path, caption: str) -> str:
    """A paragraph; empty where it was not drawn."""
    return f"![{caption}]({path.relative_to(ROOT)})\n\n" if path.exists() else ""


BLOCKS = {block.__name__: block for block in (
    status, machine, sequences, shared, exponentials, frames, fields, accuracy, growth, tasks, pictures,
)}  # fmt: skip


def draw(results: Results) -> None:
    """The report and the pictures of the machine's folder, from the first full run."""
    report.write(results.runs[0], results.tasks, results.folder / "report.html")
    drawn = {figures.anchor(title): figures.styled(lambda d=d: d(results.runs[0])) for title, _, d in figures.FIGURES}
    drawn["learning"] = figures.styled(lambda: figures.learning_curves(results.tasks))
    for task in results.tasks:
        drawn[f"tasks/{task['name']}"] = figures.styled(lambda task=task: figures.learning_over_time(task))
    for name, figure in drawn.items():
        if figure is not None:
            (results.folder / f"{name}.svg").write_text(report.svg(figure))


def refreshed(text: str, results: Results) -> str:
    """The README with every block made anew.

    Raises:
        KeyError: a block has a name that is not in BLOCKS.
    """
    return BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]](results) + match[4], text)


def main() -> int:
    results = Results(ROOT / "bench" / "results" / MACHINE)
    draw(results)
    readme = ROOT / "README.md"
    readme.write_text(refreshed(readme.read_text(), results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
