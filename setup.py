"""Build: CMake compiles everything (CMakeLists.txt is the one list of sources and flags); this file only calls it.

Environment: VFRNN_CUDA=AUTO|ON|OFF and VFRNN_CUDA_ARCHS="80;90a;100+PTX;120" (read by CMakeLists.txt).
Never imports torch, never downloads.
"""

import gzip
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent.resolve()
# The time of every file in an archive, where the caller has not said one: 1980-01-01, the first day that zip knows.
os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")
OPTIONS = ("VFRNN_CUDA", "VFRNN_CUDA_ARCHS")


def stop(what: str) -> NoReturn:
    """Ends the build with one clear sentence."""
    sys.exit(f"vfrnn-kernels: {what}")


def torch_root() -> Path:
    """Where torch's headers and libraries are; found without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        stop("torch >= 2.10 must be installed to build (pip install torch), none was found")
    found = importlib.metadata.version("torch")
    if tuple(int(part) for part in found.split("+")[0].split(".")[:2]) < (2, 10):
        stop(f"torch >= 2.10 must be installed to build (pip install -U torch), found {found}")
    return Path(spec.origin).parent


def cmake() -> str:
    """The cmake to run, new enough."""
    path = shutil.which("cmake")
    if path is None:
        stop("cmake >= 3.24 is needed to build (pip install cmake), none was found")
    found = subprocess.check_output([path, "--version"], text=True).split()[2]
    if tuple(int(part) for part in found.split("-")[0].split(".")[:2]) < (3, 24):
        stop(f"cmake >= 3.24 is needed to build (pip install -U cmake), found {found} ({path})")
    return path


def pybind11_root() -> str:
    """Where pybind11's CMake files are."""
    try:
        import pybind11
    except ImportError:
        stop("pybind11 >= 2.13 is needed to build (pip install pybind11), none was found")
    return pybind11.get_cmake_dir()


def check_compilers() -> None:
    """There is what CMake will call."""
    if shutil.which("ninja") is None:
        stop("ninja is needed to build (pip install ninja), none was found")
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name.split()[0]) for name in ([wanted] if wanted else ["c++", "g++", "clang++"])):
        stop(f"a C++17 compiler is needed to build (package g++ or clang), {wanted or 'none'} was not found")
    if os.environ.get("VFRNN_CUDA") == "ON" and shutil.which(os.environ.get("CUDACXX", "nvcc")) is None:
        stop("VFRNN_CUDA=ON needs nvcc, which was not found (set CUDACXX, or VFRNN_CUDA=OFF for the CPU alone)")


def run(*steps: list[str]) -> bool:
    """Whether the steps succeed, one after the other."""
    return all(subprocess.call(step) == 0 for step in steps)


class CMakeBuild(build_ext):
    """Configure, build and install into the package folder; an editable install gets copies beside the sources."""

    def build_extension(self, ext: Extension) -> None:
        package = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        python = sys.implementation.cache_tag + sys.abiflags
        build = ROOT / "build" / f"cmake-{python}"  # kept, so that a rebuild is incremental
        build.mkdir(parents=True, exist_ok=True)
        program, root = cmake(), torch_root()
        check_compilers()
        configure = [
            program, "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_BUILD_TYPE={os.environ.get('VFRNN_BUILD_TYPE', 'Release')}",
            f"-DTORCH_ROOT={root}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11_root()}",
            f"-DCMAKE_INSTALL_PREFIX={package}",
            f"-DVFRNN_VERSION={self.distribution.get_version()}",
            # what is not said is CMakeLists.txt's default, not what an earlier build said
            *(f"-D{name}={os.environ[name]}" if name in os.environ else f"-U{name}" for name in OPTIONS),
        ]  # fmt: skip
        in_place = self.inplace or getattr(self, "editable_mode", False)
        for folder in (package, ROOT / "vfrnn_kernels") if in_place else (package,):
            (folder / "libvfrnn_cuda.so").unlink(missing_ok=True)  # an earlier build's: this one may have none
        install = [program, "--build", str(build), "--target", "install"]
        if not run(configure, install) and not (
            self.may_leave_out_cuda(build) and run([*configure, "-DVFRNN_CUDA=OFF"], install)
        ):
            stop("the build failed; what CMake or the compiler says is above")
        if in_place:
            # setuptools itself copies only the declared module
            for library in package.glob("*.so"):
                self.copy_file(str(library), str(ROOT / "vfrnn_kernels" / library.name))

    @staticmethod
    def may_leave_out_cuda(build: Path) -> bool:
        """Whether what failed had CUDA kernels that nobody asked for: the CPU kernels alone may be built."""
        cache = build / "CMakeCache.txt"
        if os.environ.get("VFRNN_CUDA", "AUTO") != "AUTO" or not cache.exists():
            return False
        found = re.search(r"^CMAKE_CUDA_COMPILER:\w+=(.+)$", cache.read_text(), re.MULTILINE)
        if found is None or found[1].endswith("NOTFOUND"):
            return False
        print("vfrnn-kernels: the build with CUDA kernels failed, see above; now without them", file=sys.stderr)
        return True


class ReproducibleSdist(sdist):
    """The same files make the same archive, to the byte: sorted, without owners, rights and times of the machine."""

    def make_archive(self, base_name: str, format: str, *, base_dir: str, **owners: object) -> str:
        if format != "gztar":
            stop(f"an sdist is a gztar, got {format}")
        path, folder, moment = Path(f"{base_name}.tar.gz"), Path(base_dir), int(os.environ["SOURCE_DATE_EPOCH"])
        files = sorted(entry for entry in folder.rglob("*") if entry.is_file())
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", 9, file, mtime=moment) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for entry in files:
                member = tarfile.TarInfo(entry.as_posix())
                member.size, member.mtime = entry.stat().st_size, moment
                member.mode = 0o755 if entry.stat().st_mode & 0o100 else 0o644
                with entry.open("rb") as content:
                    archive.addfile(member, content)
        return str(path)


setup(
    packages=[
        *find_packages(".", include=["vfrnn_kernels*"]),
        *find_packages("python"),
        "vfrnn_bench",
        *(f"vfrnn_bench.{package}" for package in find_packages("bench")),
    ],
    ext_modules=[Extension("vfrnn_kernels._host", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "sdist": ReproducibleSdist},
)
