"""`make results`: the README's tables and pictures from bench/results and from the declarations of the ops, so that no
number in it is typed by hand.

A block starts with `<!-- results NAME -->` and ends with `<!-- /results -->`. A machine's folder holds `full-*.json`
(`make bench-cpu`, of each instruction set; of several, the worst is told), `tasks/` (`python -m vfrnn_bench.tasks`),
and its report and pictures, which are made here.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vfrnn_bench import names, report, sentences
from vfrnn_bench.drawing import styled, svg_file
from vfrnn_bench.figures import FIGURES, anchor, learning_curves, learning_over_time
from vfrnn_bench.runs import pairs, worst
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

    @functools.cached_property
    def worst(self) -> Json:
        """The runs read as one."""
        return worst(self.runs)

    def ratio(self, workload: str, ours: str, peer: str) -> float | None:
        """The worst of the runs."""
        found = pairs(self.worst, lambda p: (p.workload, p.ours, p.peer) == (workload, ours, peer))
        return found[0].ratio if found else None

    def share(self, workload: str, ours: str) -> str:
        """Of the rate of a large product, the least of the runs."""
        found = [
            row["share_of_ceiling"]
            for case in self.worst["cases"]
            if case["workload"] == workload
            for row in case["providers"]
            if row["provider"] == ours and row["least_share"] is not None
        ]
        return f"{found[0]:.2f}" if found else ""

    def cell(self, workload: str, ours: str, peer: str) -> str:
        value = self.ratio(workload, ours, peer)
        return "" if value is None else f"{value:.2f}" if value >= 0.01 else f"{value:.3f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def machine(results: Results) -> str:
    """Which processor, instruction sets and commits."""
    commits = results.worst["read"]["commits"]
    measured = f"{sentences.machine(results.worst)} The commit{'' if len(commits) == 1 else 's'} "
    return measured + f"{'was' if len(commits) == 1 else 'were'} {names.listed(commits)}.\n"


def headline(results: Results) -> str:
    """What the report starts with."""
    answers = "".join(f"- **{question}** {sentence}\n" for question, sentence in sentences.first(results.worst))
    return f"{answers}\n{sentences.machine(results.worst)}\n"


def sequences(results: Results) -> str:
    names = ["R1", "R2", "R3", "R4", "R5", "R7"]
    ours, field, orthogonal = "vfrnn.RNN", "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)"
    lines: tuple[tuple[str, str, str, Callable[[str], str]], ...] = (
        ("`vfrnn.RNN` over `torch.nn.RNN`", ours, "torch.nn.RNN", str),
        ("`vfrnn.RNN` over a tuned Python loop", ours, "loop", str),
        ("`vfrnn.RNN` over that loop with a compiled step", ours, "loop, compiled step", str),
        ("`vfrnn.RNN` over `torch.nn.RNN`, inference", ours, "torch.nn.RNN", lambda name: f"{name} inference"),
        ("`vfrnn.OrthogonalRNN` with modReLU over the same with tanh", "vfrnn modrelu", "vfrnn tanh",
         lambda name: f"{name} activation"),
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
    for title, workload in (("a training step", str), ("inference", lambda n: f"{n} inference")):
        rows.append(
            [
                f"`vfrnn.RNN`, {title}: share of a large product's rate",
                *(results.share(workload(name), ours) for name in names),
            ]
        )
    return markdown(["", *names], rows)


def shared(results: Results) -> str:
    """Beside busy processes, and over a long run."""
    rows = []
    for row in results.worst["shared_machine"]:
        what = f"{row['workload']}, {row['threads']} threads beside {row['neighbours']} busy processes"
        rows.append([what, f"{row['ratio']:.2f}"])
    text = markdown(["on a shared machine", "`vfrnn.RNN` over `torch.nn.RNN`"], rows)
    soak = results.worst["soak"]
    if soak:
        grown = max(row["grown_mib"] for row in soak)
        text += f"\nIn {soak[0]['steps']:,} steps of changing lengths, memory grew by at most {grown:.0f} MiB.\n"
    return text


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
        rows += [[names.provider(peer), *cells]] if any(cells) else []
    return markdown(["`vfrnn.parametrizations.orthogonal` over", *sizes], rows) if rows else ""


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
    every = results.worst["accuracy"]
    for provider in dict.fromkeys(row["provider"] for row in every):
        for norm in dict.fromkeys(row["norm"] for row in every):
            errors = [row["errors"] for row in every if (row["provider"], row["norm"]) == (provider, norm)]
            worst = [max((e[kind] for e in errors if kind in e), default=None) for kind in kinds]
            rows.append([f"`{provider}`", f"{norm:.3g}", *("" if e is None else f"{e:.1e}" for e in worst)])
    return markdown(["float32, worst of n 32 to 512", "spectral norm", *kinds], rows)


def growth(results: Results) -> str:
    rows = []
    for row in results.worst["time"]:
        for curve in row["curves"]:
            span = f"{row['over']} {row['values'][0]} to {row['values'][-1]}"
            exponents = (curve["exponent"], curve["exponent_of_larger_half"])
            rows.append([span, f"`{curve['provider']}`", *(f"{value:.2f}" for value in exponents)])
    text = markdown(["time over", "", "fitted exponent", "in the larger half"], rows) + "\n"
    rows = [[f"`{row['provider']}`", f"{row['copies_of_states']:.2f}"] for row in results.worst["memory"]]
    text += markdown(["peak memory of a training step over T", "copies of the hidden states"], rows)
    rows = []
    for row in results.worst["long_memory"]:
        values = zip(row["bytes"], row["seconds"], strict=True)
        rows.append([f"`{row['provider']}`", *(f"{b / 2**20:.0f} MiB, {s:.2f} s" for b, s in values)])
    steps = results.worst["long_memory"][0]["steps"]
    return text + "\n" + markdown(["one sequence, n 64: peak, time of a step", *(f"T {T}" for T in steps)], rows)


def tasks(results: Results) -> str:
    text = ""
    for task in results.tasks:
        rows = [[f"`{title}`", *numbers] for title, *numbers in cells(task)]
        text += f"**{task['name']}**: {task['what']} {trained(task)}\n\n"
        text += markdown(["", f"test {task['metric']}", *HEAD], rows) + "\n"
        text += "".join(f"`{TITLES[model]}` is absent: {why}.\n\n" for model, why in task["absent"].items())
        text += "".join(f"{published_line(row)}\n\n" for row in task["published"])
        for model in task["models"]:
            scales = [scale for scale in model.get("divergence_scale_by_seed", []) if scale is not None]
            if scales:
                values = names.listed([f"{scale:.2g}" for scale in scales])
                text += f"The divergence scale that `{model['title']}` learned is {values}.\n\n"
        text += picture(results.folder / "tasks" / f"{task['name']}.svg", f"{task['name']} over seconds of training")
    return text


def trained(task: Json) -> str:
    """How the models of a task were trained, in sentences."""
    options, on = task["options"], task["machine"]
    hidden, batch = options["model_options"]["hidden_size"], options["task_options"]["batch_size"]
    machine = on["device"] + (f" ({on['isa']})" if on.get("isa") else "")
    threads = names.counted(on["threads"], "thread")
    epochs, seeds = names.counted(options["epochs"], "epoch"), names.counted(len(task["seeds"]), "seed")
    return (
        f"Each model has hidden size {hidden} and is trained for {epochs} in batches of {batch}, from {seeds}, on "
        f"{machine} with {threads}. The equal time is {task['equal_time_seconds']:.3g} s. "
        f"A model without memory would reach {shown(task['baseline'], task['metric'])}."
    )


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
    for title, caption, _ in FIGURES:
        lines.append(picture(results.folder / f"{anchor(title)}.svg", caption))
    lines.append(
        picture(
            results.folder / "learning.svg",
            "The test metric of every task over epochs: the mean over seeds, and their range.",
        )
    )
    return "".join(lines).rstrip("\n") + "\n"


def picture(path: Path, caption: str) -> str:
    """A paragraph; empty where it was not drawn."""
    return f"![{caption}]({path.relative_to(ROOT)})\n\n" if path.exists() else ""


BLOCKS = {block.__name__: block for block in (
    headline, status, machine, sequences, shared, exponentials, frames, fields, accuracy, growth, tasks, pictures,
)}  # fmt: skip


def draw(results: Results) -> None:
    """The report and the pictures of the machine's folder, from all runs."""
    report.write(results.runs, results.tasks, results.folder / "report.html")
    drawn = {anchor(title): styled(lambda d=d: d(results.worst)) for title, _, d in FIGURES}
    drawn["learning"] = styled(lambda: learning_curves(results.tasks))
    for task in results.tasks:
        drawn[f"tasks/{task['name']}"] = styled(lambda task=task: learning_over_time(task))
    for name, figure in drawn.items():
        if figure is not None:
            path = results.folder / f"{name}.svg"
            path.write_text(svg_file(figure, path.stem))


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
