"""Threads on a machine shared with others: how many, and what happens when one gets no turn."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vfrnn_kernels import _host

ROOT = Path(__file__).parents[2]
UNLIMITED = 2**20


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")).write_text(text + "\n")


def cpus(tmp_path, membership):
    (tmp_path / "cgroup").write_text(membership)
    return _host.cgroup_cpus(str(tmp_path / "cgroup"), str(tmp_path / "fs"))


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", UNLIMITED), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1)]
)
def test_quota_of_a_second_version_group(tmp_path, quota, expected):
    group(tmp_path / "fs/a/b", cpu_max=quota)
    assert cpus(tmp_path, "0::/a/b\n") == expected


def test_the_least_quota_of_the_groups_around(tmp_path):
    group(tmp_path / "fs", cpu_max="800000 100000")
    group(tmp_path / "fs/a", cpu_max="300000 100000")
    group(tmp_path / "fs/a/b", cpu_max="max 100000")
    assert cpus(tmp_path, "0::/a/b\n") == 3
    assert cpus(tmp_path, "0::/\n") == 8


def test_in_a_container_the_groups_named_lie_outside(tmp_path):
    group(tmp_path / "fs", cpu_max="200000 100000")
    assert cpus(tmp_path, "0::/docker/0123456789\n") == 2


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quota_of_a_first_version_group(tmp_path, mount):
    group(tmp_path / "fs" / mount, cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    group(tmp_path / "fs" / mount / "job", cpu_cfs_quota_us="250000", cpu_cfs_period_us="100000")
    assert cpus(tmp_path, "4:memory:/other\n2:cpu,cpuacct:/job\n") == 3
    assert cpus(tmp_path, "4:memory:/job\n3:cpuset:/job\n") == UNLIMITED


@pytest.mark.parametrize("text", ["", "nonsense\n", "0:\n", "0::/a\n", "::\n"])
def test_what_is_not_there_limits_nothing(tmp_path, text):
    assert cpus(tmp_path, text) == UNLIMITED
    assert _host.cgroup_cpus(str(tmp_path / "absent"), str(tmp_path)) == UNLIMITED


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_affinity_is_a_limit():
    # The module alone, without torch and its threads.
    code = (
        "import importlib.util as u; s = u.spec_from_file_location('_host', __import__('sys').argv[1]); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.usable_cpus())"
    )
    one = {min(os.sched_getaffinity(0))}

    def found(affinity):
        result = subprocess.run(
            [sys.executable, "-c", code, _host.__file__], capture_output=True, text=True, check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, affinity),
        )  # fmt: skip
        return int(result.stdout)

    assert found(one) == 1
    assert found(os.sched_getaffinity(0)) <= len(os.sched_getaffinity(0))


def test_threads_bound_to_a_cpu_each_do_not_count_as_one():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one CPU")
    code = (
        "import torch; a = torch.ones(1000, 1000); a @ a; from vfrnn_kernels import _host; print(_host.usable_cpus())"
    )
    environment = {**os.environ, "OMP_PROC_BIND": "true", "OMP_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(result.stdout) >= min(2, _host.usable_cpus())


def test_a_thread_that_gets_no_turn_is_given_up(tmp_path):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no compiler")
    if not (ROOT / "csrc").exists():
        pytest.skip("the sources are out of reach")
    program = tmp_path / "giving_up"
    sources = [ROOT / "tests/ops/native/giving_up.cpp", ROOT / "csrc/recurrence/kernels.cpp"]
    options = ["-std=gnu++17", "-O1", "-pthread", "-DVFRNN_ISA=baseline", "-DVFRNN_ISAS=baseline", "-w"]
    options += [f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *options, *map(str, sources), "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def test_more_threads_than_cpus_give_the_same_bits():
    torch.manual_seed(0)
    x, U, M = torch.randn(50, 2, 4), torch.randn(256, 4), torch.randn(256, 256) / 20
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 16):
            torch.set_num_threads(threads)
            found.append(torch.ops.vfrnn_kernels.recurrence(x, U, None, M, torch.zeros(2, 256), None, "tanh"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(hs, found[0]) for hs in found)
