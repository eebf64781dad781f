"""Tables and pictures, drawn from results.json alone: tables.txt, exponential.png, recurrence.png."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vfrnn_bench.gpu.results_file import ResultsFile

Row = dict[str, Any]

#: Characters of the summary on the terminal.
SUMMARY = 11_000


def report(file: ResultsFile, out: Path, notes: list[str]) -> None:
    """Writes the files and prints the summary, which the last lines of the terminal keep."""
    head = [*notes, *heading(file)]
    rows = file.data["rows"]
    tables = [
        *head,
        "",
        *summary(rows),
        "",
        *design(rows),
        "",
        *failures(file),
        "",
        "Everything: median of the rounds; ratio to each peer, median of the ratios of one round",
        *(full(row) for row in rows),
    ]
    (out / "tables.txt").write_text("\n".join(tables) + "\n")
    try:
        pictures(rows, out)
    except ImportError as error:
        head.append(f"no pictures: {error}")
    text = [*head, *summary(rows), *failures(file)]
    print(_cut(text))


def heading(file: ResultsFile) -> list[str]:
    """The machine and its ceilings."""
    about = file.data["about"].items()
    machine = ", ".join(f"{key} {value}" for key, value in about if not isinstance(value, dict))
    found = ", ".join(f"{key} {value:.4g}" for key, value in file.data["ceilings"].items())
    return [machine, f"ceilings: {found}"]


def summary(rows: list[Row]) -> list[str]:
    """Forward + backward of ours against every peer; a goal that is missed is marked."""
    ours = [row for row in rows if row["provider"].startswith("vfrnn") and row["mode"] == "step"]
    layout = "{:<9} {:<13} {:<33} {:>9} {:>8}  {}"
    lines = [*exponential_summary([row for row in ours if row["part"] == "exponential"]), ""]
    lines.append(layout.format("case", "dtype", "forward + backward of", "ms", "us/step", "time / that of the peer"))
    for row in ours:
        if row["part"] == "exponential":
            continue
        ratios = ", ".join(f"{value:.3f} {peer}{_goal(row, peer)}" for peer, value in row["ratios"].items())
        times = (f"{row['median_ms']:.3f}", f"{row['us_per_step']:.3f}")
        lines.append(layout.format(row["case"], row["dtype"], row["provider"], *times, ratios))
    return lines


def exponential_summary(rows: list[Row]) -> list[str]:
    """The ratio to torch.matrix_exp: a line per norm, batch and provider, a column per n."""
    sizes = sorted({row["n"] for row in rows})
    layout = "{:<30}" + " {:>8}" * len(sizes)
    lines = [layout.format("time / torch.matrix_exp, n =", *sizes)]
    found = {(row["provider"], row["batch"], row["norm"], row["n"]): row for row in rows}
    for provider, batch, norm in sorted({key[:3] for key in found}):
        cells = []
        for n in sizes:
            row = found.get((provider, batch, norm, n))
            value = None if row is None else row["ratios"].get("torch.matrix_exp")
            cells.append("" if row is None or value is None else f"{value:.3f}{_goal(row, 'torch.matrix_exp')[-1:]}")
        name = provider.removeprefix("vfrnn.skew_expm ").replace("CUDA graph", "graph")
        lines.append(layout.format(f"{name}, norm {norm:.3g}, x{batch}", *cells))
    return lines


def _goal(row: Row, peer: str) -> str:
    goal = row["targets"].get(peer)
    return f" (goal {goal:.2f}) !" if goal is not None and row["ratios"][peer] > goal else ""


def design(rows: list[Row]) -> list[str]:
    """The peers alone: what the design of the GPU kernels supposes about them."""
    lines = ["The peers: ms of forward, of forward + backward, and us per time step"]
    times = {_key(row): row for row in rows}
    for row in rows:
        if row["provider"].startswith("vfrnn") or row["mode"] != "step":
            continue
        forward = times.get(_key(row | {"mode": "forward"}))
        first = "" if forward is None else f"{forward['median_ms']:.3f}"
        step = f"{row['us_per_step']:.2f}" if row["part"] != "exponential" else ""
        cudnn = {True: "cuDNN", False: "not cuDNN"}.get(row.get("cudnn"), "")
        cells = (row["case"], row["dtype"], row["provider"], first, f"{row['median_ms']:.3f}", step, cudnn)
        lines.append("{:<22} {:<14} {:<26} {:>9} {:>9} {:>9} {}".format(*cells).rstrip())
    return lines


def failures(file: ResultsFile) -> list[str]:
    """What did not run, and what there was no time for."""
    lines = [f"FAILED {f['case']}: {f['provider']}: {f['error']}" for f in file.data["failures"]]
    skipped = file.data["skipped"]
    return lines + ([f"no time for: {', '.join(skipped)}"] if skipped else [])


def full(row: Row) -> str:
    """Everything about one row."""
    errors = ", ".join(f"{key} {value:.1e}" for key, value in row["errors"].items())
    ratios = ", ".join(f"{value:.3f} of {peer}" for peer, value in row["ratios"].items())
    return (
        f"{row['case']} {row['dtype']} {row['mode']}: {row['provider']} {row['median_ms']:.4f} ms "
        f"(+-{row['spread']:.0%}, {row['rounds']} rounds); {ratios or 'peer'}; errors: {errors}"
    )


def pictures(rows: list[Row], out: Path) -> None:
    """The exponential's ratio over n; the recurrence's time per step, R6 over n and the others beside their peer.

    Raises:
        ImportError: there is no matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    ours = [r for r in rows if r["part"] == "exponential" and r["mode"] == "step" and r["ratios"]]
    for axis, graph in zip(axes, (False, True), strict=True):
        chosen = [r for r in ours if r["provider"].endswith("CUDA graph") == graph]
        for norm, batch in dict.fromkeys((r["norm"], r["batch"]) for r in chosen):
            line = sorted(
                (r["n"], r["ratios"].get("torch.matrix_exp"))
                for r in chosen
                if (r["norm"], r["batch"]) == (norm, batch)
            )
            line = [(n, value) for n, value in line if value is not None]
            axis.loglog(*zip(*line, strict=True), "o-", label=f"norm {norm:.3g}, batch {batch}") if line else None
        axis.set(title="skew_expm" + (" in a CUDA graph" if graph else ""), xlabel="n")
        if chosen:
            axis.legend(fontsize="x-small")
    axes[0].set_ylabel("time of forward + backward / torch.matrix_exp")
    _save(figure, out / "exponential.png")

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5))
    steps = [r for r in rows if r["part"] == "recurrence" and r["mode"] == "step"]
    for provider, dtype in dict.fromkeys((r["provider"], r["dtype"]) for r in steps):
        line = sorted(
            (r["n"], r["us_per_step"])
            for r in steps
            if (r["provider"], r["dtype"]) == (provider, dtype) and r["case"].startswith("R6")
        )
        if line:
            style = "o-" if provider.startswith("vfrnn") else "x--"
            axes[0].semilogy(*zip(*line, strict=True), style, label=f"{provider} {dtype}")
    axes[0].set(title="R6 (T 4096, B 64), forward + backward", xlabel="n", ylabel="us per time step")
    if axes[0].lines:
        axes[0].legend(fontsize="x-small")
    bars = [r for r in rows if r["part"] in ("recurrence", "steps") and r["mode"] == "step" and r["ratios"]]
    bars = [r for r in bars if not r["case"].startswith("R6")]
    names = [f"{r['case']} {r['dtype']} {r['provider'].removeprefix('vfrnn.')}" for r in bars]
    axes[1].barh(names[::-1], [next(iter(r["ratios"].values())) for r in bars][::-1])
    axes[1].axvline(1, color="black", linewidth=0.8)
    axes[1].set(title="time / nn.RNN or orthogonal(nn.RNN)")
    axes[1].tick_params(axis="y", labelsize="xx-small")
    _save(figure, out / "recurrence.png")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("part", "case", "dtype", "mode", "provider"))


def _cut(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return text if len(text) <= SUMMARY else text[:SUMMARY].rsplit("\n", 1)[0] + "\n... (tables.txt has all of it)"
