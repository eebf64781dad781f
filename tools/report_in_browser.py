"""`python -m tools.report_in_browser REPORT [--screenshot PNG]`: the report of `vfrnn bench` in headless Chromium.

It must open from a file, log nothing to the console, ask for nothing, and show every picture with its data. What it
says must be readable in light, in dark, on a telephone and on paper, where what is folded is open.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfrnn_bench.figures import FIGURES, anchor

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES = {"light": "--blink-settings=preferredColorScheme=1", "dark": "--blink-settings=preferredColorScheme=0"}
PHONE = 360  # pixels

#: Of text and of lines and bars, to the page (Web Content Accessibility Guidelines 2.2, 1.4.3 and 1.4.11).
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0

#: Of the page's source: whether it is printed, its title, and what is folded.
SECTION = r"<details id='[\w-]+'( class='printed')?><summary><h2>(.*?)</h2>(.*?)</details>"

#: Added to a copy of the page. It leaves what it finds in an element of its own.
PROBE = """
<script>
const found = {paper: "", text: {}, marks: {}, scrolls: 0};
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = colour => numbers(colour).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
const paper = getComputedStyle(document.body).backgroundColor;
const contrast = colour => {
  const [low, high] = [luminance(colour), luminance(paper)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
document.querySelectorAll("details").forEach(section => section.open = true);
const texts = "h1, h2, h3, p, li, td, th, span, figcaption";
document.querySelectorAll(texts).forEach(e => found.text[getComputedStyle(e).color] ??= e.textContent);
document.querySelectorAll("svg text").forEach(e => found.text[getComputedStyle(e).fill] ??= e.textContent);
document.querySelectorAll('svg [id$="-data"] :is(path, use)').forEach(e => {
  if (e.closest("defs")) return;  // drawn where it is used
  const style = getComputedStyle(e);
  for (const colour of [style.stroke, style.fill])
    if (colour !== "none") found.marks[colour] ??= e.closest(":is(details, figure)[id]").id;
});
found.paper = luminance(paper);
for (const kind of ["text", "marks"])
  found[kind] = Object.entries(found[kind]).map(([colour, where]) => [colour, contrast(colour), where.slice(0, 60)]);
document.documentElement.style.width = "WIDTHpx";
found.scrolls = document.body.scrollWidth;
const left = document.createElement("pre");
left.id = "probe";
left.textContent = JSON.stringify(found);
document.body.append(left);
</script>
"""


def chromium(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run with a profile of its own and no network."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr", "--virtual-time-budget=10000",
            *arguments, page.resolve().as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def problems(page: Path, tasks: bool) -> list[str]:
    """What is wrong with the page, in words."""
    found = list(_contents(page, tasks))
    with tempfile.TemporaryDirectory() as folder:
        for scheme in SCHEMES:
            found += _legibility(page, scheme, Path(folder))
        return found + list(_print(page, Path(folder)))


def _contents(page: Path, tasks: bool) -> Iterator[str]:
    run = chromium(page, "--dump-dom")
    yield from (line for line in run.stderr.splitlines() if "CONSOLE" in line)
    sections = re.split(r"<(?:details|figure) id=[\"']", run.stdout)[1:]
    shown = {section.split('"')[0].split("'")[0]: section for section in sections}
    for name in (*(anchor(title) for title, _, _ in FIGURES), "ratios", *(["tasks"] if tasks else [])):
        if not re.search(r'<g id="[\w-]+-data"', shown.get(name, "")):
            yield f"the section {name} shows no data"


def _legibility(page: Path, scheme: str, folder: Path) -> Iterator[str]:
    """Contrast of all that is drawn and written, and whether a telephone would have to scroll sideways."""
    copy = folder / f"{scheme}.html"
    copy.write_text(page.read_text().replace("</body>", PROBE.replace("WIDTH", str(PHONE)) + "</body>"))
    dumped = chromium(copy, "--dump-dom", SCHEMES[scheme]).stdout
    probe: dict[str, Any] = json.loads(html.unescape(dumped.split('<pre id="probe">')[1].split("</pre>")[0]))
    if (probe["paper"] < 0.5) != (scheme == "dark"):
        yield f"in {scheme}, the page is not {scheme}"
    for kind, least in (("text", TEXT_CONTRAST), ("marks", MARK_CONTRAST)):
        for colour, contrast, where in probe[kind]:
            if contrast < least:
                yield f"in {scheme}, {kind} in {colour} have a contrast of {contrast:.1f}, below {least}: {where!r}"
    if probe["scrolls"] > PHONE:
        yield f"in {scheme}, the page is {probe['scrolls']} pixels wide where a telephone has {PHONE}"


def _print(page: Path, folder: Path) -> Iterator[str]:
    """On paper: dark on light whatever the screen is, all sentences, and what is to be printed of what is folded."""
    import pypdfium2

    file = folder / "printed.pdf"
    chromium(page, SCHEMES["dark"], "--no-pdf-header-footer", f"--print-to-pdf={file}")
    pages = list(pypdfium2.PdfDocument(file))
    written = ["".join(one.get_textpage().get_text_range().split()) for one in pages]
    shade = pages[0].render(grayscale=True).to_numpy().mean()
    if shade < 200:
        yield f"on paper, the first page is dark: its mean brightness is {shade:.0f} of 255"
    text = page.read_text()
    first = text.split("<div class='first'>")[1].split("<details")[0]
    for sentence in re.findall(r"<p>(.*?)</p>", first):
        if "".join(html.unescape(sentence).split()) not in written[0]:
            yield f"on paper, the first page lacks {html.unescape(sentence)!r}"
    for shown, title, inside in re.findall(SECTION, text, re.DOTALL):
        caption = re.search(r"<(?:figcaption|td[^>]*)>([^<]+)<", inside)
        for part in (title, *([caption[1]] if caption and shown else [])):
            if ("".join(html.unescape(part).split()) in "".join(written)) != bool(shown):
                yield f"on paper, {part!r} of {title!r} is {'missing' if shown else 'there'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--tasks", action="store_true", help="learning curves must be there too")
    parser.add_argument("--screenshot", type=Path, help="in light; beside it one in dark, with -dark in its name")
    arguments = parser.parse_args()
    try:
        found = problems(arguments.report, arguments.tasks)
    except FileNotFoundError as error:
        print(f"skipped: {error}")
        return 0
    for line in found:
        print(line)
    if arguments.screenshot:
        path = arguments.screenshot.resolve()
        for scheme, file in (("light", path), ("dark", path.with_stem(f"{path.stem}-dark"))):
            chromium(arguments.report, SCHEMES[scheme], "--window-size=1280,1000", f"--screenshot={file}")
    print(f"{arguments.report}: {'ok' if not found else 'FAILED'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
