"""`vfrnn doctor`: what loaded, and whether every op is right on every backend."""

import platform
from dataclasses import replace

import pytest
import torch

from vfrnn import doctor
from vfrnn.cli import main
from vfrnn.doctor import Check, self_checks
from vfrnn_kernels import cuda_device, loader
from vfrnn_kernels.dispatch import BACKENDS, Backend


def test_doctor_reports_and_passes(capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for word in ("torch", "instruction set", "threads", "recurrence", "triton", "cuda", "ok"):
        assert word in output
    assert "FAILED" not in output


def test_doctor_says_of_each_backend_where_from_for_what_or_what_to_do(monkeypatch):
    assert [backend.name for backend in BACKENDS] == list(doctor.backends())
    line = doctor.backends()["cpu"]
    assert line == f"loaded from {loader.CPU_LIBRARY}, for {platform.machine()}"
    if torch.version.cuda is None:
        assert "is not a CUDA build (install one to use a GPU)" in doctor.backends()["cuda"]
    monkeypatch.setattr(doctor, "BACKENDS", [replace(backend, missing=None) for backend in BACKENDS])
    monkeypatch.setattr(cuda_device, "build_info", lambda: {"cuda": "80, 90a, 100+PTX"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = doctor.backends()["cuda"]
    assert f"loaded from {loader.CUDA_LIBRARY}, for sm_80, sm_90a, sm_100+PTX" in line
    assert "torch sees no GPU" in line
    monkeypatch.setattr(cuda_device, "build_info", dict)
    assert "vfrnn_kernels._host does not load" in doctor.backends()["cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_device, "refusal", lambda index: "there is no NVIDIA driver")
    assert doctor.backends()["cuda"].endswith("; not used: there is no NVIDIA driver")


@pytest.mark.parametrize(
    ("toolkit", "said"),
    [
        (None, "unknown (vfrnn_kernels._host does not load)"),
        ("", "none: built without CUDA kernels"),
        ("12.9.86", "12.9.86, for driver 525 or newer"),
        ("13.0.88", "13.0.88, for driver 580 or newer"),
        ("14.0.1", "14.0.1, for a driver of CUDA 14 or newer"),
    ],
)
def test_doctor_names_the_toolkit_and_the_driver_it_needs(monkeypatch, toolkit, said):
    monkeypatch.setattr(doctor, "build_info", lambda: {} if toolkit is None else {"cuda_toolkit": toolkit})
    assert doctor.versions()["CUDA toolkit"] == said


def test_doctor_names_driver_and_devices_and_why_kernels_do_not_run(monkeypatch, tmp_path):
    assert doctor.processor()["driver"] == "none (a GPU of NVIDIA would need one)" or doctor.DRIVER.exists()
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "version")
    doctor.DRIVER.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\n")
    monkeypatch.setattr(doctor, "get_backend", lambda name: Backend(name, "gone", lambda *call: None))
    assert doctor.processor()["driver"] == "570.86.15"

    class Ops:
        cuda_versions = staticmethod(lambda: (12080, 12090))
        cpu_isa, cpu_isas = staticmethod(lambda: "avx2"), staticmethod(lambda: ["avx2"])

    device = cuda_device.CudaDevice(90, 90, 132, 232448, 16)
    monkeypatch.setattr(torch.ops, "vfrnn_kernels", Ops)
    monkeypatch.setattr(doctor, "get_backend", lambda name: Backend(name, None, lambda *call: None))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("H200", "T4")[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((9, 0), (7, 5))[index])
    monkeypatch.setattr(cuda_device, "refusal", lambda at: (None, "it needs compute capability 8.0")[at.index])
    monkeypatch.setattr(cuda_device, "cuda_device", lambda index: device)
    found = doctor.processor()
    assert found["driver"] == "570.86.15, serves CUDA up to 12.8"
    assert found["gpu 0"] == (
        "H200, sm_90, 132 multiprocessors, 227 KB for a block, clusters of 16; runs the code for sm_90"
    )
    assert found["gpu 1"] == "T4, sm_75; the CUDA kernels do not run: it needs compute capability 8.0"


def test_doctor_checks_every_op_on_every_backend():
    checks = self_checks()
    assert len(checks) == 16
    assert all(check.passed for check in checks)
    assert not Check("skew_expm", "cpu", float("nan"), 0.0).passed
    assert not Check("skew_expm", "cpu", 0.0, 1e-3).passed


def test_doctor_names_a_backend_that_does_not_exist(monkeypatch, capsys):
    monkeypatch.setenv("VFRNN_BACKEND", "warp")
    assert main(["doctor"]) == 1
    assert "VFRNN_BACKEND must be one of" in capsys.readouterr().out


def test_doctor_judges_the_backend_of_the_environment_on_its_own_device(monkeypatch):
    assert doctor.chosen_backend() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "get_backend", lambda name, argument: Backend(name, None, lambda *call: None))
    for name in ("cpu", "reference"):
        monkeypatch.setenv("VFRNN_BACKEND", name)
        assert doctor.chosen_backend() is None
    monkeypatch.setenv("VFRNN_BACKEND", "cuda")
    assert doctor.chosen_backend() == "backend 'cuda' has nothing to run on: torch sees no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_device, "refusal", lambda index: None)
    assert doctor.chosen_backend() is None
    monkeypatch.setattr(cuda_device, "refusal", lambda index: "there is no NVIDIA driver")
    assert doctor.chosen_backend() == "backend 'cuda' does not run here: there is no NVIDIA driver"
    monkeypatch.setattr(doctor, "get_backend", lambda name, argument: Backend(name, "gone", lambda *call: None))
    assert doctor.chosen_backend() == "backend 'cuda' is not loaded: gone"
