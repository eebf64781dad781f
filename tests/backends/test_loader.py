"""How the compiled libraries load, and what is said where one does not."""

import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from vfrnn_kernels import loader


def test_the_cpu_library_is_loaded():
    assert loader.CPU_LIBRARY_MISSING is None


def test_an_unknown_instruction_set_is_an_error_not_a_crash():
    code = "import torch, vfrnn_kernels; torch.ops.vfrnn_kernels.cpu_isa()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "VFRNN_ISA": "sse9"},
        timeout=120,
    )
    assert result.returncode == 1
    *others, best = torch.ops.vfrnn_kernels.cpu_isas()
    assert f"VFRNN_ISA must be {', '.join(others)}{' or ' * bool(others)}{best}, got sse9" in result.stderr


def test_the_kernels_serve_without_the_host_module(monkeypatch):
    """As where the libraries travel to another Python (bench/gpu/run.sh); signals then wait for the end of an op."""
    monkeypatch.setitem(sys.modules, "vfrnn_kernels._host", None)
    assert loader._load_cpu_library() is None


def test_a_host_module_of_another_build_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "vfrnn_kernels._host", ModuleType("vfrnn_kernels._host"))
    assert "incomplete: " in loader._watch_signals()
    assert "watch_signals" in loader._watch_signals()


def test_only_a_library_that_is_loaded_and_ours_can_be_watched(tmp_path):
    host = pytest.importorskip("vfrnn_kernels._host")
    with pytest.raises(ValueError, match=r"library must be the path of one that is loaded, got .*none\.so"):
        host.watch_signals(str(tmp_path / "none.so"))
    with pytest.raises(ValueError, match=r"must be libvfrnn_cpu\.so of this build"):
        host.watch_signals(host.__file__)


def test_a_library_that_does_not_load_says_which_and_what_to_do(tmp_path):
    broken = tmp_path / "libvfrnn_cpu.so"
    broken.write_text("not a library")
    reason = loader._load(broken)
    assert str(broken) in reason
    assert "does not load" in reason
    assert "reinstall vfrnn-kernels" in reason


@pytest.mark.parametrize(
    ("version", "reason"), [("2.9.1", "need torch >= 2.10, this is 2.9.1"), ("2.10.0+cpu", None), ("3.0.0", None)]
)
def test_a_torch_that_is_too_old_is_named(monkeypatch, version, reason):
    monkeypatch.setattr(loader, "CUDA_SIMULATED", None)
    monkeypatch.setattr(torch, "__version__", version)
    found = loader._load_cpu_library()
    assert found is None if reason is None else reason in found


def test_a_library_that_was_not_built_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(loader, "CUDA_SIMULATED", None)
    monkeypatch.setattr(loader, "CPU_LIBRARY", tmp_path / "libvfrnn_cpu.so")
    assert loader._load_cpu_library().startswith(f"not built: {tmp_path / 'libvfrnn_cpu.so'} does not exist")
    monkeypatch.setattr(loader, "CPU_LIBRARY_MISSING", "not built")
    assert loader._load_cuda_library().endswith("the CPU kernels, which are not built")


def test_a_cuda_library_needs_a_cuda_build_of_torch(monkeypatch, tmp_path):
    monkeypatch.setattr(loader, "CUDA_SIMULATED", None)
    monkeypatch.setattr(loader, "CPU_LIBRARY_MISSING", None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is not a CUDA build" in loader._load_cuda_library()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(loader, "CUDA_LIBRARY", tmp_path / "libvfrnn_cuda.so")
    assert "has no libvfrnn_cuda.so" in loader._load_cuda_library()


def test_triton_is_looked_for_and_not_imported(monkeypatch):
    monkeypatch.setattr(loader.importlib.util, "find_spec", lambda name: None)
    assert loader._find_triton().startswith("not installed: no package triton")


def test_what_was_built_says_how():
    assert {"version", "compiler"} <= set(loader.build_info())
