"""Compiles every CUDA kernel with the toolkit of the wheels, where nvcc is another's: `python -m tools.older_toolkit`.

Needs no GPU and no nvcc: the front end is NVRTC, the assembler ptxas, of the packages nvidia-cuda-nvrtc-cu12 and
nvidia-cuda-nvcc-cu12, of one version. Checked is that both take every kernel for every architecture of CMakeLists.txt,
and that no kernel of a recurrence spills. NVRTC's code is not nvcc's to the register (of one version neither), so that
other kernels are only reported.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import files, version
from pathlib import Path

from tools.cuda_resources import RECURRENCE

ROOT = Path(__file__).parent.parent
PACKAGES = {"libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12", "ptxas": "nvidia-cuda-nvcc-cu12"}
#: Questions to the runtime, without a kernel.
LEFT_OUT = {"common/gpu.cu"}

#: What NVRTC has not of the standard library and of the runtime, as far as launchers use it: they are compiled, for the
#: device, so that they instantiate kernels. Graphs of steps, which are the host's alone, are left out.
HEADERS = {
    "cstdint": """
        typedef short int16_t; typedef int int32_t; typedef long int64_t; typedef unsigned char uint8_t;
        typedef unsigned short uint16_t; typedef unsigned uint32_t; typedef unsigned long uint64_t, uintptr_t;
        #define INT32_MAX 2147483647""",
    "utility": """
        namespace std {
        template <class T, T... v> struct integer_sequence {};
        template <int n, int... v> struct up_to : up_to<n - 1, n - 1, v...> {};
        template <int... v> struct up_to<0, v...> { using type = integer_sequence<int, v...>; };
        template <class T, T n> using make_integer_sequence = typename up_to<n>::type;
        }""",
    "type_traits": """
        #pragma once
        namespace std {
        template <class T, T v> struct integral_constant {
          static constexpr T value = v;
          constexpr operator T() const { return v; }
        };
        template <class T, class U> struct is_same : integral_constant<bool, false> {};
        template <class T> struct is_same<T, T> : integral_constant<bool, true> {};
        template <class T, class U> inline constexpr bool is_same_v = is_same<T, U>::value;
        template <bool, class T, class F> struct conditional { using type = T; };
        template <class T, class F> struct conditional<false, T, F> { using type = F; };
        template <bool c, class T, class F> using conditional_t = typename conditional<c, T, F>::type;
        }""",
    "algorithm": "namespace std { template <class T> constexpr T min(T a, T b) { return b < a ? b : a; } }",
    "optional": "namespace std { template <class T> struct optional; }",
    "cmath": "",
    "mutex": "",
    "vector": "",
    "cuda_runtime.h": """
        #define INFINITY __int_as_float(0x7f800000)
        template <class... P, class... A>
        cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t*, void (*kernel)(P...), A...) {
          return kernel != nullptr ? cudaSuccess : cudaErrorInvalidValue;
        }""",
    "recurrence/step_graphs.h": re.sub(
        r"#define VFRNN_RETURN_ERROR.*?#undef VFRNN_RETURN_ERROR\n|"
        r"  constexpr int64_t few = .*?(?=  return run_steps_plainly)",
        "",
        (ROOT / "csrc/recurrence/step_graphs.h").read_text(),
        flags=re.DOTALL,
    ),
}


@functools.cache
def program(name: str) -> Path:
    """The file of that name in its package."""
    return next(Path(str(file.locate())) for file in files(PACKAGES[name]) or () if file.name == name)


@functools.cache
def nvrtc() -> ctypes.CDLL:
    """The front end."""
    return ctypes.CDLL(str(program("libnvrtc.so.12")))


def _text(handle: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(nvrtc(), f"nvrtcGet{what}Size")(handle, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc(), f"nvrtcGet{what}")(handle, text)
    return text.value.decode()


def _strings(values: list[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])


def ptx(source: Path, arch: str) -> str:
    """The kernels of a .cu file as PTX.

    Raises:
        RuntimeError: they do not compile; its message says where.
    """
    handle = ctypes.c_void_p()
    names, texts = _strings([*HEADERS]), _strings([*HEADERS.values()])
    code, name = source.read_bytes(), str(source).encode()
    nvrtc().nvrtcCreateProgram(ctypes.byref(handle), code, name, len(HEADERS), texts, names)
    options = [f"-arch=compute_{arch}", "-std=c++17", "-default-device", f"-I{ROOT / 'csrc'}"]
    failed = nvrtc().nvrtcCompileProgram(handle, len(options), _strings(options))
    log, found = _text(handle, "ProgramLog"), "" if failed else _text(handle, "PTX")
    nvrtc().nvrtcDestroyProgram(ctypes.byref(handle))
    if failed:
        raise RuntimeError(log)
    return found


def spills(code: str, arch: str) -> dict[str, int]:
    """Bytes of the stack of every kernel, by its mangled name.

    Raises:
        RuntimeError: ptxas does not take it.
    """
    program("ptxas").chmod(0o755)  # pip leaves it without
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(code)
        file.flush()
        found = subprocess.run(
            [program("ptxas"), f"-arch=sm_{arch}", "-v", "-c", file.name, "-o", os.devnull],
            capture_output=True,
            text=True,
        )
    if found.returncode != 0:
        raise RuntimeError(found.stderr)
    lines = re.findall(r"Compiling entry function '(\w+)'.*\n.*\n\s+(\d+) bytes stack", found.stdout + found.stderr)
    return {name: int(stack) for name, stack in lines}


def architectures() -> list[str]:
    """Those of CMakeLists.txt."""
    found = re.search(r'VFRNN_CUDA_ARCHS "(.+?)"', (ROOT / "CMakeLists.txt").read_text())
    assert found is not None
    return [entry.removesuffix("+PTX") for entry in found[1].split(";")]


def check(source: Path, arch: str) -> tuple[str, list[str]]:
    """A line about one file for one architecture, and what is wrong with it."""
    where = f"{source.relative_to(ROOT / 'csrc')} sm_{arch}"
    try:
        stacks = spills(ptx(source, arch), arch)
    except RuntimeError as error:
        return f"{where}: does not compile", [f"{where}: {str(error).strip()}"]
    wrong = [f"{where}: {name} spills {n} bytes" for name, n in stacks.items() if n and re.search(RECURRENCE, name)]
    wrong += [] if stacks else [f"{where}: no kernel was found"]
    others = {n for name, n in stacks.items() if n and not re.search(RECURRENCE, name)}
    return f"{where}: {len(stacks)} kernels{f', stacks up to {max(others)} bytes' if others else ''}", wrong


def main() -> int:
    """Run; the exit code."""
    sources = sorted(path for path in ROOT.glob("csrc/*/*.cu") if str(path.relative_to(ROOT / "csrc")) not in LEFT_OUT)
    calls = [(source, arch) for source in sources for arch in architectures()]
    wrong = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line, faults in pool.map(check, *zip(*calls, strict=True)):
            print(line, flush=True)
            wrong += faults
    print(f"{len(calls)} compilations by CUDA {version(PACKAGES['ptxas'])}, {len(wrong)} faults", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
