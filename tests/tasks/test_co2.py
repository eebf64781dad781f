"""CarbonDioxide: a real series at irregular times."""

import pytest
import torch

from tests.tasks.cases import task_options
from vfrnn.tasks import CarbonDioxide


def test_carbon_dioxide_at_irregular_times():
    pytest.importorskip("statsmodels", reason="needs vfrnn-kernels[irregular]")
    task = CarbonDioxide(task_options())
    x, target = task.evaluation_batch("test")
    assert x.shape == (25, 500, 3)
    assert bool(x.isfinite().all() & target.isfinite().all())
    assert x[:24, :, 0].mean(0).abs().max() < 1e-5
    assert x[..., 1].sum(0).tolist() == [1.0] * 500
    months = x[..., 2]
    assert bool((months[0] == 0).all() & (months[1:24] >= 0.25).all())
    assert months.unique().numel() > 20
    again, _ = CarbonDioxide(task_options(batch_size=3)).evaluation_batch("test")
    assert torch.equal(x, again)
