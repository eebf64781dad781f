"""The list of parts in a wheel: of its version and requirements, valid by the schema, and the same bytes each time."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import sbom

ROOT = Path(__file__).parents[2]
INFO = "vfrnn_kernels-0.2.0+cpu.dist-info"
METADATA = """\
Metadata-Version: 2.4
Name: vfrnn-kernels
Version: 0.2.0+cpu
Requires-Dist: torch>=2.10
Requires-Dist: numpy
Requires-Dist: tqdm; extra == "train"
"""
LIBRARY = b"\x7fELF...GCC: (Debian 12.2.0-14) 12.2.0\x00..."


@pytest.fixture
def wheel(tmp_path):
    """A wheel of one library."""
    path = tmp_path / "vfrnn_kernels-0.2.0+cpu-cp311-cp311-manylinux_2_34_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vfrnn_kernels/libvfrnn_cpu.so", LIBRARY)
        archive.writestr(f"{INFO}/METADATA", METADATA)
        archive.writestr(f"{INFO}/RECORD", f"{INFO}/METADATA,sha256=abc,3\n{INFO}/RECORD,,\n")
    return path


def content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return json.loads(archive.read(f"{INFO}/sboms/vfrnn-kernels.cdx.json"))


def changed(wheel, change):
    """The wheel with what `change` makes of its SBOM."""
    found = content(wheel)
    change(found)
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, json.dumps(found) if name.endswith(".cdx.json") else data)
    return wheel


def test_a_wheel_says_what_it_is_made_of(wheel):
    assert sbom.faults(wheel) == ["sboms/vfrnn-kernels.cdx.json is missing"]
    sbom.put_into(wheel)
    assert sbom.faults(wheel) == []
    found = content(wheel)
    assert found["metadata"]["component"]["version"] == "0.2.0+cpu"
    assert {"name": "compiler", "value": "GCC: (Debian 12.2.0-14) 12.2.0"} in found["metadata"]["component"][
        "properties"
    ]
    assert [part["name"] for part in found["components"] if part.get("scope") == "required"] == ["numpy", "torch"]
    assert sbom.CUDA_RUNTIME not in {part["name"] for part in found["components"]}


def test_the_record_has_it_once(wheel):
    sbom.put_into(wheel)
    first = wheel.read_bytes()
    sbom.put_into(wheel)
    assert wheel.read_bytes() == first
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"{INFO}/RECORD").decode().splitlines()
        size = archive.getinfo(f"{INFO}/sboms/vfrnn-kernels.cdx.json").file_size
    assert lines[-1] == f"{INFO}/RECORD,,"
    assert [line.rpartition(",")[2] for line in lines if ".cdx.json" in line] == [str(size)]


def test_the_rights_of_the_machine_are_not_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel, "a") as archive:
        for name, rights in {"vfrnn/a.py": 0o100600, "vfrnn/b.py": 0o100700}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = rights << 16
            archive.writestr(entry, "")
    sbom.put_into(wheel)
    with zipfile.ZipFile(wheel) as archive:
        rights = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert rights.pop("vfrnn/b.py") == 0o100755
    assert set(rights.values()) == {0o100644}


def test_cuda_kernels_bring_the_runtime(wheel):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("vfrnn_kernels/libvfrnn_cuda.so", LIBRARY)
    sbom.put_into(wheel)
    assert sbom.faults(wheel) == []
    assert sbom.CUDA_RUNTIME in {part["name"] for part in content(wheel)["components"]}


def another_version(found):
    found["metadata"]["component"]["version"] = "0.1.0"


def another_requirement(found):
    next(p for p in found["components"] if p["name"] == "numpy")["properties"][0]["value"] = "numpy<2"


def a_part_less(found):
    found["components"] = [part for part in found["components"] if part["name"] != "pybind11"]
    found["dependencies"] = []


def invalid(found):
    found["components"][0]["type"] = "nonsense"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (another_version, "is of version 0.1.0, not 0.2.0+cpu"),
        (another_requirement, "has the requirements ['numpy<2', 'torch>=2.10'], METADATA ['numpy', 'torch>=2.10']"),
        (a_part_less, "does not name pybind11, which is compiled in"),
        (invalid, "is not CycloneDX 1.6"),
    ],
)
def test_a_fault_is_named(wheel, change, fault):
    sbom.put_into(wheel)
    (found,) = sbom.faults(changed(wheel, change))
    assert found.startswith(f"sboms/vfrnn-kernels.cdx.json {fault}")


def test_it_runs_as_a_script_elsewhere(wheel, tmp_path):
    """As cibuildwheel calls it."""
    command = [sys.executable, ROOT / "tools/sbom.py", "put", wheel]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert sbom.faults(wheel) == []


def test_every_part_with_a_licence_of_its_own_is_named():
    named = {"pytorch": "torch", "pybind11": "pybind11", "cuda-runtime": sbom.CUDA_RUNTIME}
    assert {path.stem for path in ROOT.glob("licenses/*.txt")} == set(named)
    assert set(named.values()) == {*sbom.COMPILED_IN, sbom.CUDA_RUNTIME}
