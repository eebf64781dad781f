"""The same sources make the same sdist; a difference is seen."""

import os
import tarfile
from pathlib import Path

import pytest

from tests.packaging.test_setup import tree  # noqa: F401
from tools import reproducible


@pytest.fixture
def sources(tree):  # noqa: F811
    """Enough of the sources for an sdist."""
    for folder in ("vfrnn_kernels", "python/vfrnn", "bench"):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "__init__.py").touch()
    (tree / "MANIFEST.in").write_text("include CMakeLists.txt\nexclude setup.cfg\ngraft vfrnn_kernels\n")
    (tree / "vfrnn_kernels/run.sh").write_text("true\n")
    (tree / "vfrnn_kernels/run.sh").chmod(0o755)
    return tree


def sdist(source: Path, to: Path) -> Path:
    return reproducible.wheels.sdist(source, to)


def test_an_sdist_is_the_same_elsewhere_and_later(sources, tmp_path, monkeypatch, capsys):
    first = sdist(sources, tmp_path / "first")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    again = reproducible.unlike(first, tmp_path / "again")
    assert reproducible.compared(first, sdist(again, tmp_path / "second")) is None
    with tarfile.open(first) as archive:
        members = {member.name.split("/", 1)[1]: member for member in archive.getmembers()}
    assert {"setup.py", "PKG-INFO", "vfrnn_kernels/run.sh"} <= set(members)
    assert (members["vfrnn_kernels/run.sh"].mode, members["setup.py"].mode) == (0o755, 0o644)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members.values()} == {(315532800, 0, 0, "", "")}


def test_another_content_is_seen(sources, tmp_path):
    first = sdist(sources, tmp_path / "first")
    again = reproducible.unlike(first, tmp_path / "again")
    (again / "setup.py").write_text((again / "setup.py").read_text() + "\n")
    found = reproducible.compared(first, sdist(again, tmp_path / "second"))
    assert found.startswith(f"{first.name}: built again, it is another file, sha256 ")


def test_the_sources_elsewhere_have_other_rights_and_times(sources, tmp_path):
    first = sdist(sources, tmp_path / "first")
    again = reproducible.unlike(first, tmp_path / "again")
    assert os.stat(again / "setup.py").st_mode & 0o777 == 0o600
    assert os.stat(again / "vfrnn_kernels/run.sh").st_mode & 0o777 == 0o700
    assert os.stat(again / "setup.py").st_mtime != 315532800


def test_a_wheel_with_cuda_kernels_is_left_out(sources, tmp_path, capsys):
    first = sdist(sources, tmp_path / "first")
    assert reproducible.main([str(first), "vfrnn_kernels-0.2.0-cp311-cp311-manylinux_2_34_x86_64.whl"]) == 0
    assert "left out, it has CUDA kernels" in capsys.readouterr().out
