"""The simulator itself: it knows all of the code that was built, and names what it does not know."""

import shutil
from pathlib import Path

import pytest
import torch

from vfrnn_kernels.loader import CUDA_SIMULATED

pytestmark = pytest.mark.skipif(
    "simulated" not in (CUDA_SIMULATED or ""),
    reason="needs the simulator (python -m tests.gpu_simulator.run -- tests/gpu_simulator/test_code.py)",
)


@pytest.fixture
def code(monkeypatch):
    """Sets the folder of code, which is then read again."""

    def use(folder: Path) -> str:
        monkeypatch.setenv("VFRNN_SIMULATOR_CODE", str(folder))
        torch.ops.vfrnn_simulator.forget_code()
        return torch.ops.vfrnn_simulator.unsupported()

    yield use
    monkeypatch.undo()
    torch.ops.vfrnn_simulator.forget_code()


@pytest.mark.parametrize("sass", [False, True])
@pytest.mark.parametrize("arch", ["80", "90a", "100"])
def test_every_instruction_is_known(code, monkeypatch, arch, sass):
    folder = Path(CUDA_SIMULATED).parent / "code" / arch
    if not list(folder.glob("*.sass" if sass else "*.ptx")):
        pytest.skip(f"{'SASS' if sass else 'PTX'} of sm_{arch} is not built")
    monkeypatch.setenv("VFRNN_SIMULATOR_SASS", str(int(sass)))
    assert code(folder) == ""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("bar.sync", "bar.red.popc.u32", "unsupported modifier red: bar.red.popc.u32"),
        ("cvt.", "vadd4.", "vadd4"),
        ("%tid.x", "%smid", "unknown register %smid"),
    ],
)
def test_what_is_unknown_is_named(code, tmp_path, before, after, message):
    name = "field_generator-forward.ptx"
    built = Path(CUDA_SIMULATED).parent / "code/90a" / name
    shutil.copy(built, tmp_path)
    text = built.read_text()
    assert before in text
    (tmp_path / name).write_text(text.replace(before, after))
    found = code(tmp_path)
    assert message in found
    assert f"{name} line " in found
