"""The backend "cuda" on a machine that need not have a GPU: choice, refusals."""

import pytest
import torch

import vfrnn_kernels.dispatch as dispatch
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.dispatch import BACKENDS, Backend, get_backend, select_backend
from vfrnn_kernels.loader import CUDA_SIMULATED, PACKAGE

CUDA = torch.device("cuda")
cuda = get_backend("cuda")


class OnGpu:
    """What the choice of a backend asks of a CUDA tensor."""

    device, dtype = CUDA, torch.float32


@pytest.fixture(autouse=True)
def a_device_that_serves(monkeypatch):
    monkeypatch.setattr(dispatch.cuda_device, "refusal", lambda index: None)


def test_what_it_serves():
    for op in OPS:
        refused = cuda.refuses(op, CUDA, torch.float32, 3000)
        assert "up to n = 1024, got n = 3000" in refused if "cuda" in OPS[op].largest_n else refused is None
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            refused = cuda.refuses(op, CUDA, dtype, None)
            assert refused is None if dtype in OPS[op].serves["cuda"] else f"got {dtype}" in refused
    assert (cuda.refuses("recurrence", torch.device("cpu"), torch.float32, None) is None) == (
        CUDA_SIMULATED is not None
    )


@pytest.mark.parametrize(("absent", "chosen"), [((), "cuda"), (("cuda",), "triton")])
def test_it_is_the_first_choice_on_a_gpu(monkeypatch, absent, chosen):
    monkeypatch.delenv("VFRNN_BACKEND", raising=False)
    monkeypatch.setattr(
        dispatch,
        "BACKENDS",
        tuple(Backend(b.name, "not there" if b.name in ("cpu", *absent) else None, b.refuses) for b in BACKENDS),
    )
    assert select_backend("recurrence", None, [OnGpu()]) == chosen


@pytest.mark.skipif(CUDA_SIMULATED is not None, reason="the simulator serves CPU tensors")
def test_a_library_that_did_not_load_says_why():
    if torch.version.cuda is None:
        assert "is not a CUDA build" in cuda.missing
    elif not (PACKAGE / "libvfrnn_cuda.so").exists():
        assert "not built" in cuda.missing
    else:
        pytest.skip("it loaded")
    with pytest.raises(RuntimeError, match=r"backend 'cuda' \(from backend\) cannot serve this call: not "):
        select_backend("recurrence", "cuda", [torch.zeros(1)])
