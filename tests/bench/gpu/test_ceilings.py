"""What a device reaches."""

import torch
from vfrnn_bench.gpu import ceilings
from vfrnn_bench.timing import Budget

from tests.bench.small import CPU


def test_ceilings_are_positive_and_leave_the_setting_as_it_was(monkeypatch):
    monkeypatch.setattr(ceilings, "BUDGET", Budget(0.0, least=1))
    before = torch.backends.cuda.matmul.allow_tf32
    found = ceilings.ceilings(CPU, quick=True)
    assert set(found) == {"gemm_bf16_tflops", "gemm_fp32_tflops", "gemm_tf32_tflops", "copy_tb_s", "launch_us"}
    assert min(found.values()) > 0
    assert torch.backends.cuda.matmul.allow_tf32 is before
