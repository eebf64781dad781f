"""`vfrnn doctor`: what loaded, and whether every op is right on every backend."""

import platform
from dataclasses import replace

import torch

from vfrnn import doctor
from vfrnn.cli import main
from vfrnn.doctor import Check, self_checks
from vfrnn_kernels import loader
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
    monkeypatch.setattr(doctor, "build_info", lambda: {"cuda": "80, 90a, 100+PTX"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = doctor.backends()["cuda"]
    assert f"loaded from {loader.CUDA_LIBRARY}, for sm_80, sm_90a, sm_100+PTX" in line
    assert "torch sees no GPU" in line
    monkeypatch.setattr(doctor, "build_info", dict)
    assert "vfrnn_kernels._host does not load" in doctor.backends()["cuda"]


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
    assert doctor.chosen_backend() is None
    monkeypatch.setattr(doctor, "get_backend", lambda name, argument: Backend(name, "gone", lambda *call: None))
    assert doctor.chosen_backend() == "backend 'cuda' is not loaded: gone"
