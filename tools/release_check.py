"""Tries a release as a user will meet it: `python -m tools.release_check dist --torch torch==2.13.0`.

What `make wheels` built is held to PyPI's rules (twine) and to the changelog, then served as a package index on this
machine's loopback. From there pip installs each version into a new, empty environment, in which `vfrnn doctor` and a
tutorial of the documentation run.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs.extensions.downloads import script
from tools.wheel_install import ROOT, environment, run

PROJECT = "vfrnn-kernels"
TUTORIAL = ROOT / "docs/tutorials/swap.md"


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def index(files: list[Path], folder: Path) -> Iterator[str]:
    """A package index with these files, made in `folder`; its address."""
    project = folder / "simple" / PROJECT
    project.mkdir(parents=True)
    for file in files:
        shutil.copy(file, project)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple/"
    finally:
        server.shutdown()
        server.server_close()


def versions(files: list[Path]) -> list[str]:
    """Those of the wheels, the plain one last."""
    return sorted({file.name.split("-")[1] for file in files if file.suffix == ".whl"}, reverse=True)


def changelog_faults(changelog: str, found: list[str]) -> list[str]:
    """What keeps the changelog from belonging to wheels of these versions."""
    release = {version.split("+")[0] for version in found}
    newest = re.search(r"^## (\S+)(.*)$", changelog, re.MULTILINE)
    if newest is None:
        return ["CHANGELOG.md has no heading of a version"]
    wrong = (
        [] if release == {newest[1]} else [f"CHANGELOG.md begins with {newest[1]}, the wheels are {sorted(release)}"]
    )
    dated = re.fullmatch(r" \(\d{4}-\d\d-\d\d\)", newest[2])
    return wrong + ([] if dated else [f"CHANGELOG.md must give the date of {newest[1]} as (YYYY-MM-DD)"])


def try_version(folder: Path, python: Path, address: str, version: str) -> None:
    """Install it from the index, run the doctor and the tutorial.

    Raises:
        subprocess.CalledProcessError: one of them failed.
    """
    empty = folder / f"empty-{version}"
    empty.mkdir()
    wanted = f"{PROJECT}[train]=={version}"
    run(empty, python, "-m", "pip", "install", "-q", "--only-binary", PROJECT, "--extra-index-url", address, wanted)
    run(empty, python.parent / "vfrnn", "doctor")
    (empty / "tutorial.py").write_text(script(TUTORIAL.read_text()))
    run(empty, python, "tutorial.py", MPLBACKEND="Agg", OMP_NUM_THREADS="1")
    run(empty, python, "-m", "pip", "uninstall", "-q", "-y", PROJECT)
    print(f"{version}: installed from the index, its doctor and {TUTORIAL.name} ran", flush=True)


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--torch", required=True, help="requirement, as torch==2.13.0")
    arguments = parser.parse_args()
    files = sorted(arguments.dist.glob("*"))
    found = versions(files)
    wrong = changelog_faults((ROOT / "CHANGELOG.md").read_text(), found)
    wrong += [] if any(file.name.endswith(".tar.gz") for file in files) else [f"{arguments.dist} has no sdist"]
    if wrong or not found:
        print("release_check:", *(wrong or [f"{arguments.dist} has no wheel"]), sep="\n  ", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="vfrnn-release-") as name:
        folder = Path(name)
        try:
            run(ROOT, sys.executable, "-m", "twine", "check", "--strict", *files)
            python = environment(folder, arguments.torch)
            with index(files, folder) as address:
                for version in found:
                    try_version(folder, python, address, version)
        except subprocess.CalledProcessError as error:
            print(f"release_check: {' '.join(error.cmd)} failed", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
