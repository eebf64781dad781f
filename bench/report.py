"""The report: one HTML file with its pictures inside, which opens with no network. It starts with three sentences, what
missed its target and one picture; all else is folded, and what matters of it is printed."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from vfrnn_bench import bars, names, sentences
from vfrnn_bench.drawing import DARK_STYLE, styled, svg
from vfrnn_bench.figures import FIGURES, anchor, learning_curves
from vfrnn_bench.page_style import PAGE_STYLE
from vfrnn_bench.runs import pairs, worst
from vfrnn_bench.tasks.results import HEAD, cells, published_line

from vfrnn.files import write_file

Json = dict[str, Any]


def picture(figure: Figure, name: str, caption: str) -> str:
    """A picture with what it shows, which a screen reader reads too."""
    drawn = svg(figure, name).replace("<svg", f'<svg role="img" aria-label="{html.escape(caption)}"', 1)
    return f"<figure>{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Cells are HTML; so many columns at the left are words."""

    def line(kind: str, row: Sequence[str]) -> str:
        marks = [" class='word'" if k < words else "" for k in range(len(row))]
        return (
            "<tr>" + "".join(f"<{kind}{mark}>{cell}</{kind}>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        )

    body = "".join(line("td", row) for row in rows)
    return f"<div class='table'><table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table></div>"


def folded(name: str, title: str, inside: str, printed: bool = True) -> str:
    """A section that opens at a click; on paper it is open, or not there."""
    shown = " class='printed'" if printed else ""
    return f"<details id='{name}'{shown}><summary><h2>{html.escape(title)}</h2></summary>{inside}</details>"


def verdict(ratio: float, target: float | None) -> str:
    """The ratio, coloured by its target."""
    text = f"{ratio:.3f}"
    if target is None:
        return text
    return f'<span class="met">{text}</span>' if ratio <= target else f'<span class="missed">{text} missed</span>'


def share(row: Json) -> str:
    """Of the rate of a large product, coloured by the least that is aimed at."""
    text, least = f"{row['share_of_ceiling']:.0%}", row["least_share"]
    if least is None:
        return text
    met = row["share_of_ceiling"] >= least
    return f'<span class="{"met" if met else "missed"}">{text} of {least:.0%}{"" if met else " missed"}</span>'


# ---- the first screen ------------------------------------------------------------------------------------------------


def start(result: Json) -> str:
    """The sentences, what missed its target, and the picture."""
    answers = "".join(
        f"<h2>{question}</h2><p>{html.escape(sentence)}</p>" for question, sentence in sentences.first(result)
    )
    return f"<div class='first'><div>{answers}</div>{_summary(result)}{targets(result)}</div>"


def targets(result: Json) -> str:
    """What missed its target, and where a peer is faster."""
    told, missed, slower = sentences.targets(result), sentences.misses(result), sentences.slower(result)
    if not told and not slower:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in missed)
    text = "".join(f"<p>{html.escape(line)}</p>" for line in (told, slower) if line)
    text += f"<ul>{items}</ul>" if items else ""
    kind = "" if missed or slower else " all-met"
    return f"<div class='targets{kind}' id='targets'><h2>What missed its target?</h2>{text}</div>"


def _summary(result: Json) -> str:
    title, caption, draw = FIGURES[0]
    figure = styled(lambda: draw(result))
    return "" if figure is None else picture(figure, anchor(title), caption).replace("<figure", "<figure id='summary'")


# ---- what is folded --------------------------------------------------------------------------------------------------


def ratio_section(result: Json) -> str:
    """A picture of every few ratios."""
    drawn = []
    for k, (title, rows) in enumerate(bars.pictures(result)):
        figure = styled(lambda rows=rows: bars.ratio_bars(rows))
        assert figure is not None
        missed = sum(row.missed for row in rows)
        caption = f"{title}. " + (f"{names.counted(missed, 'target')} missed." if missed else "No target was missed.")
        drawn.append(f"<h3>{html.escape(title)}</h3>{picture(figure, f'ratios-{k + 1}', caption)}")
    return folded("ratios", "Every ratio beside its target", "".join(drawn)) if drawn else ""


def figure_sections(result: Json) -> Iterator[str]:
    """The other pictures, where there is data."""
    for title, caption, draw in FIGURES[1:]:
        figure = styled(lambda draw=draw: draw(result))
        if figure is not None:
            yield folded(anchor(title), title, picture(figure, anchor(title), caption))


def case_tables(result: Json) -> str:
    """Every ratio, every provider of every workload, and who was not timed."""
    ratios = [
        [
            html.escape(names.workload(pair.workload)), html.escape(names.provider(pair.ours)),
            html.escape(names.provider(pair.peer, pair.workload)), verdict(pair.ratio, pair.target),
            "" if pair.target is None else f"{pair.target:.2f}",
        ]
        for pair in pairs(result)
    ]  # fmt: skip
    providers = [
        [
            *_named(case, row["provider"]), f"{row['median_ms']:.3f}", f"{row['spread']:.0%}", f"{row['gflops']:.1f}",
            share(row), f"{row['error']:.0e}",
        ]
        for case in result["cases"]
        for row in case["providers"]
    ]  # fmt: skip
    refused = [
        [*_named(case, name), html.escape(why)] for case in result["cases"] for name, why in case["refused"].items()
    ]
    if not ratios and not providers and not refused:
        return ""
    said = "<p>The ratio is our time over the peer's, so that less is better.</p>"
    head = ["workload", "provider", "median ms", "spread", "GFLOP/s", "of a large product's rate", "largest error"]
    text = folded(
        "ratios-table", "Table of ratios and targets",
        said + table(["workload", "ours", "the peer", "ratio", "target"], ratios, words=3),
    )  # fmt: skip
    said = "<p>Milliseconds, spread and GFLOP/s are of the first run; share and error are the worst of all runs.</p>"
    text += folded("times", "Table of times, rates and errors", said + table(head, providers, words=2), printed=False)
    if refused:
        why = table(["workload", "provider", "the reason"], refused, words=3)
        text += folded("not-timed", "What could not be timed", why)
    return text


def _named(case: Json, provider: str) -> list[str]:
    """Two cells: the workload and a provider of it."""
    full = names.workload(case["workload"]), names.provider(provider, case["workload"])
    return [html.escape(name) for name in full]


def task_section(tasks: list[Json]) -> str:
    """Learning curves and the table of every task, the published figures beside ours."""
    figure = styled(lambda: learning_curves(tasks))
    if figure is None:
        return ""
    caption = "The test metric is the mean over seeds, the band is their range, and the dotted line is a model without "
    text = picture(figure, "tasks", caption + "memory.")
    for task in tasks:
        rows = [[html.escape(title), *numbers] for title, *numbers in cells(task)]
        head = ["model", f"test {task['metric']}", *HEAD]
        text += f"<h3>{html.escape(task['name'])}</h3><p>{html.escape(task['what'])}</p>" + table(head, rows)
        text += "".join(f"<p>{html.escape(published_line(row))}</p>" for row in task["published"])
    return folded("tasks", "What is learned, and in what time", text)


def about(result: Json) -> str:
    """The machine and the runs, as a table."""
    m, ceiling, read = result["machine"], result["ceiling"], result["read"]
    rows = [
        ["device", m["device"]], ["instruction sets", ", ".join(read["isas"])], ["threads", m["threads"]],
        ["torch", m["torch"]], ["Python", m["python"]],
        ["commits", ", ".join(read["commits"]) or "measured outside a checkout"], ["suite", result["suite"]],
        ["runs", read["runs"]],
        ["rate of a large matrix product", f"{ceiling['gemm_flops'] / 1e9:.0f} GFLOP/s in the first run"],
        ["rate of a large copy", f"{ceiling['copy_bytes'] / 1e9:.1f} GB/s in the first run"],
    ]  # fmt: skip
    return folded(
        "machine", "The machine and the runs", table(["", ""], [[html.escape(str(c)) for c in row] for row in rows])
    )


def page(runs: Sequence[Json], tasks: list[Json]) -> str:
    """The whole report of one run, or of several of the same suite, the worst of which is told."""
    result = worst(runs)
    title = f"vfrnn measured beside its peers on {html.escape(result['machine']['device'])}"
    text = f"<h1>{title}</h1><p class='machine'>{html.escape(sentences.machine(result))}</p>"
    text += start(result) + ratio_section(result) + "".join(figure_sections(result))
    text += task_section(tasks) + case_tables(result) + about(result)
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
    head += f"<title>{title}</title>"
    # An icon of its own: a browser would ask for one, and log that it is missing.
    head += f"<style>\n{PAGE_STYLE}{DARK_STYLE}</style><link rel='icon' href='data:,'>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{text}</body></html>\n"


def write(runs: Sequence[Json], tasks: list[Json], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page(runs, tasks))
