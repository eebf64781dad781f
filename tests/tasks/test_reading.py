"""Files and folders of series: which are read, and what is said of those that are not there or not one pair."""

import hashlib
import shutil

import pytest

from tests.tasks.cases import write_series
from vfrnn.tasks.reading import read_series

TEXT = "@classLabel true up down\n@data\n1,2:up\n3:down\n"


def test_a_file_has_no_test_split(tmp_path):
    path = tmp_path / "a.TS"
    path.write_text(TEXT)
    found = read_series(path)
    assert (len(found.collection.values), found.tests) == (2, 0)
    assert found.fingerprint == hashlib.sha256(TEXT.encode()).hexdigest()


def test_a_folder_has_one(tmp_path):
    (tmp_path / "a_TRAIN.ts").write_text(TEXT)
    (tmp_path / "a_TEST.ts").write_text(TEXT + "5:down\n")
    (tmp_path / "a_TRAIN.arff").write_text("another format")
    found = read_series(tmp_path)
    assert (len(found.collection.values), found.tests) == (5, 3)
    before = found.fingerprint
    (tmp_path / "a_TEST.ts").write_text(TEXT + "6:down\n")
    assert read_series(tmp_path).fingerprint != before


def test_a_folder_of_npz(tmp_path):
    shutil.copy(write_series(tmp_path), tmp_path / "train.npz")
    (tmp_path / "waves.npz").rename(tmp_path / "test.npz")
    found = read_series(tmp_path)
    assert (len(found.collection.values), found.tests) == (46, 23)


def test_of_several_pairs_the_one_called_like_the_folder(tmp_path):
    folder = tmp_path / "PLAID"
    folder.mkdir()
    for name in ("PLAID", "PLAID_eq"):
        for part in ("TRAIN", "TEST"):
            (folder / f"{name}_{part}.ts").write_text(TEXT + "9:up\n" * (name == "PLAID"))
    assert read_series(folder).tests == 3
    folder.rename(tmp_path / "other")
    with pytest.raises(
        RuntimeError, match=r"must hold one pair .*, got 'PLAID_TEST\.ts', 'PLAID_TRAIN\.ts', 'PLAID_eq_TEST"
    ):
        read_series(tmp_path / "other")


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none does not exist: data must be a \.ts or \.npz file, or a folder"):
        read_series(tmp_path / "none")
    with pytest.raises(
        RuntimeError, match=r"must hold one pair NAME_TRAIN\.ts and NAME_TEST\.ts, or .*, got no such file"
    ):
        read_series(tmp_path)
    (tmp_path / "a_TRAIN.ts").write_text(TEXT)
    with pytest.raises(RuntimeError, match=r"must hold one pair .*, got 'a_TRAIN\.ts'"):
        read_series(tmp_path)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(RuntimeError, match=r"a\.csv must be one of '\.ts', '\.npz', got '\.csv'"):
        read_series(tmp_path / "a.csv")


def test_errors_name_the_file_and_the_line(tmp_path):
    (tmp_path / "a_TRAIN.ts").write_text(TEXT)
    (tmp_path / "a_TEST.ts").write_text(TEXT + "x:up\n")
    with pytest.raises(RuntimeError, match=r"a_TEST\.ts, line 5, dimension 1, value 1 must be a finite number"):
        read_series(tmp_path)
    (tmp_path / "a_TEST.ts").write_bytes(TEXT.encode() + b"1:\xff\n")
    with pytest.raises(RuntimeError, match=r"a_TEST\.ts, line 5 must be text in UTF-8, got byte 0xff"):
        read_series(tmp_path)
