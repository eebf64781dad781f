"""`python -m tools.report_in_browser REPORT [--screenshot PNG]`: the report of `vfrnn bench` in headless Chromium.

It must open from a file, log nothing to the console, ask for nothing, and show every picture with its data.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vfrnn_bench.figures import FIGURES, anchor

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


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
    run = chromium(page, "--dump-dom")
    found = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    sections = re.split(r"<h2 id=[\"']", run.stdout)[1:]
    shown = {section.split('"')[0].split("'")[0]: section for section in sections}
    for name in (*(anchor(title) for title, _, _ in FIGURES), *(["tasks"] if tasks else [])):
        drawn = len(re.findall(r'<g id="data-\d+"', shown.get(name, "")))
        if drawn == 0:
            found.append(f"the section {name} shows no data")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--tasks", action="store_true", help="learning curves must be there too")
    parser.add_argument("--screenshot", type=Path)
    arguments = parser.parse_args()
    try:
        found = problems(arguments.report, arguments.tasks)
    except FileNotFoundError as error:
        print(f"skipped: {error}")
        return 0
    for line in found:
        print(line)
    if arguments.screenshot:
        chromium(arguments.report, "--window-size=1280,1500", f"--screenshot={arguments.screenshot.resolve()}")
    print(f"{arguments.report}: {'ok' if not found else 'FAILED'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
