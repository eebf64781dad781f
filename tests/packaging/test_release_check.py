"""What a release is held to before it is published."""

import urllib.request
from pathlib import Path

import pytest

from tools.release_check import changelog_faults, index, versions

FILES = [Path(f"dist/vfrnn_kernels-{name}") for name in ("1.2.0.tar.gz", "1.2.0-cp311-x.whl", "1.2.0+cpu-cp311-x.whl")]


def test_the_versions_of_the_wheels():
    assert versions(FILES) == ["1.2.0+cpu", "1.2.0"]


@pytest.mark.parametrize(
    ("changelog", "faults"),
    [
        ("# Changelog\n\n## 1.2.0 (2026-01-31)\n\n## 1.1.0 (2025-01-01)\n", []),
        ("# Changelog\n", ["CHANGELOG.md has no heading of a version"]),
        ("## 1.2.0 (unreleased)\n", ["CHANGELOG.md must give the date of 1.2.0 as (YYYY-MM-DD)"]),
        ("## 1.1.0 (2025-01-01)\n", ["CHANGELOG.md begins with 1.1.0, the wheels are ['1.2.0']"]),
    ],
)
def test_the_changelog_belongs_to_the_release(changelog, faults):
    assert changelog_faults(changelog, versions(FILES)) == faults


def test_the_index_lists_the_files_and_serves_them(tmp_path):
    file = tmp_path / "vfrnn_kernels-1.2.0+cpu-cp311-x.whl"
    file.write_bytes(b"a wheel")
    with index([file], tmp_path / "served") as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}vfrnn-kernels/") as page:
            assert "vfrnn_kernels-1.2.0%2Bcpu-cp311-x.whl" in page.read().decode()
        with urllib.request.urlopen(f"{address}vfrnn-kernels/vfrnn_kernels-1.2.0%2Bcpu-cp311-x.whl") as served:
            assert served.read() == b"a wheel"
