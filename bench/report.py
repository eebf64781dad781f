"""The report: one HTML file with its pictures inside, which opens with no network."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from vfrnn_bench.figures import FIGURES, anchor, learning_curves, styled
from vfrnn_bench.figures import STYLE as FIGURE_STYLE
from vfrnn_bench.tasks.results import HEAD, cells, published_line

Json = dict[str, Any]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .2rem .7rem; text-align: right }
th { border-bottom: 1px solid #888 } td:first-child, th:first-child { text-align: left }
tr:nth-child(even) td { background: #f6f6f6 } .missed { color: #b00020 } .met { color: #1b7837 }
figure { margin: 1rem 0 } figcaption { color: #555 } svg { max-width: 100%; height: auto }
nav a { margin-right: 1rem }
"""


def svg(figure: Figure) -> str:
    """The picture as an element of the page."""
    file = io.StringIO()
    with mpl.rc_context(FIGURE_STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def verdict(ratio: float, target: float | None) -> str:
    """The ratio, coloured by its target."""
    text = f"{ratio:.3f}"
    if target is None:
        return text
    return f'<span class="{"met" if ratio <= target else "missed"}">{text}</span>'


def share(row: Json) -> str:
    """Of the rate of a large product, coloured by the least that is aimed at."""
    text, least = f"{row['share_of_ceiling']:.0%}", row["least_share"]
    if least is None:
        return text
    return f'<span class="{"met" if row["share_of_ceiling"] >= least else "missed"}">{text} of {least:.0%}</span>'


def case_tables(result: Json) -> str:
    """Every provider of every workload, then every ratio."""
    providers = [
        [
            html.escape(case["workload"]), html.escape(row["provider"]), f"{row['median_ms']:.3f}",
            f"{row['spread']:.0%}", f"{row['gflops']:.1f}", share(row), f"{row['error']:.0e}",
        ]
        for case in result["cases"]
        for row in case["providers"]
    ]  # fmt: skip
    refused = [
        [html.escape(case["workload"]), html.escape(name), html.escape(reason)]
        for case in result["cases"]
        for name, reason in case["refused"].items()
    ]
    ratios = [
        [
            html.escape(case["workload"]), html.escape(row["ours"]), html.escape(row["peer"]),
            verdict(row["ratio"], row["target"]), "" if row["target"] is None else f"{row['target']:.2f}",
        ]
        for case in result["cases"]
        for row in case["ratios"]
    ]  # fmt: skip
    head = ["workload", "provider", "median ms", "spread", "GFLOP/s", "of a large GEMM", "error"]
    text = "<h2 id='ratios-table'>Ratios and targets</h2>" + table(
        ["workload", "ours", "peer", "ratio", "target"], ratios
    )
    text += "<h2 id='times'>Times</h2>" + table(head, providers)
    if refused:
        text += "<h2 id='not-timed'>Not timed</h2>" + table(["workload", "provider", "why"], refused)
    return text


def task_section(tasks: list[Json]) -> str:
    """Learning curves and the table of every task, the published figures beside ours."""
    figure = styled(lambda: learning_curves(tasks))
    if figure is None:
        return ""
    text = (
        f"<h2 id='tasks'>Learning</h2><figure>{svg(figure)}<figcaption>Test metric, mean over seeds; the band is the "
    )
    text += "range over seeds, the dotted line a model without memory.</figcaption></figure>"
    for task in tasks:
        rows = [[html.escape(title), *numbers] for title, *numbers in cells(task)]
        head = ["model", f"test {task['metric']}", *HEAD]
        text += f"<h3>{html.escape(task['name'])}</h3><p>{html.escape(task['what'])}</p>" + table(head, rows)
        text += "".join(f"<p>Published: {html.escape(published_line(row))}</p>" for row in task["published"])
    return text


def page(result: Json, tasks: list[Json]) -> str:
    """The whole report of a run."""
    m, ceiling = result["machine"], result["ceiling"]
    about = [
        ["device", m["device"]], ["instruction set", m["isa"]], ["threads", m["threads"]], ["torch", m["torch"]],
        ["Python", m["python"]], ["commit", m["commit"] or "not in a checkout"], ["suite", result["suite"]],
        ["large matrix product", f"{ceiling['gemm_flops'] / 1e9:.0f} GFLOP/s"],
        ["large copy", f"{ceiling['copy_bytes'] / 1e9:.1f} GB/s"],
    ]  # fmt: skip
    text = f"<h1>vfrnn bench: {html.escape(m['device'])}</h1>"
    text += table(["", ""], [[html.escape(str(cell)) for cell in row] for row in about])
    for title, caption, draw in FIGURES:
        figure = styled(lambda draw=draw: draw(result))
        if figure is not None:
            text += f"<h2 id='{anchor(title)}'>{title}</h2>"
            text += f"<figure>{svg(figure)}<figcaption>{caption}</figcaption></figure>"
    text += task_section(tasks) + case_tables(result)
    head = f"<meta charset='utf-8'><title>vfrnn bench: {html.escape(m['device'])}</title><style>{STYLE}</style>"
    # An icon of its own: a browser would ask for one, and log that it is missing.
    head += "<link rel='icon' href='data:,'>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{text}</body></html>\n"


def write(result: Json, tasks: list[Json], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(result, tasks))
