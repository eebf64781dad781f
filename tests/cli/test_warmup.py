"""`vfrnn warmup`: what it offers is what there is, and what it says."""

import pytest

from vfrnn.cli import main, warmup
from vfrnn_kernels.declaration import OPS


def test_every_op_is_offered_and_the_default(monkeypatch, capsys):
    asked = []

    def warm_up(n, dtypes, ops):
        asked.append((n, dtypes, list(ops)))
        yield "recurrence", 1.5
        yield "field_flow", "too many nodes"

    monkeypatch.setattr(warmup, "warm_up", warm_up)
    assert main(["warmup", "--hidden-size", "64", "2000"]) == 0
    assert asked == [(64, ["float32"], list(OPS)), (2000, ["float32"], list(OPS))]
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split() == ["recurrence", "n", "=", "64", "1.5", "s"]
    assert second.endswith("left out: too many nodes")
    assert main(["warmup", "--ops", "spectral_recurrence", "--dtype", "bfloat16"]) == 0
    assert asked[-1] == (128, ["bfloat16"], ["spectral_recurrence"])


def test_bad_options(capsys):
    assert main(["warmup", "--hidden-size", "0"]) == 1
    assert "--hidden-size must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["warmup", "--ops", "lstm"])
    assert "invalid choice: 'lstm'" in capsys.readouterr().err
