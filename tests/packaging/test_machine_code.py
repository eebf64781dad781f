"""The loops of the CPU kernels' tiles, in the machine code: multiply-adds, and nothing that they would wait for."""

import shutil
from pathlib import Path

import pytest

from tools.hot_loops import ISAS, TILES, disassembled, tile_loops
from vfrnn_kernels import loader

#: Tiles that are functions of their own where they are high.
HIGH = ("product_tile", "outer_tile", "multiply_tile")
LOOP = """
0000000000001000 <vfrnn::avx2::product_tile<1, 6, 2, float>(vfrnn::avx2::Product<float> const&, long)>:
    1000:\tvmovups (%rdx),%ymm1
    1004:\tvmovups 0x20(%rdx),%ymm2
    1008:\tvbroadcastss (%rax),%ymm0
    100c:\tvfmadd231ps %ymm0,%ymm1,%ymm3
    1010:\tvfmadd231ps %ymm0,%ymm2,%ymm4
{planted}
    1020:\tadd    $0x4,%rax
    1024:\tcmp    %rsi,%rax
    1028:\tjne    1000 <vfrnn::avx2::product_tile<1, 6, 2, float>(vfrnn::avx2::Product<float> const&, long)+0x0>
"""


@pytest.fixture(scope="module")
def disassembly():
    if shutil.which("objdump") is None:
        pytest.skip("there is no objdump")
    return disassembled(loader.CPU_LIBRARY)


@pytest.mark.parametrize("isa", ISAS)
def test_tiles_wait_for_nothing_but_multiply_adds(disassembly, isa):
    loops = tile_loops(disassembly, isa)
    if not loops and f"vfrnn::{isa}::" not in disassembly:
        pytest.skip("the library is stripped, or of another processor")
    for tile in HIGH:
        assert any(f"::{tile}<" in loop.function for loop in loops), tile
    assert [fault for loop in loops for fault in loop.faults()] == []


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ("vaddss (%rax),%xmm5,%xmm5", "no load, broadcast or multiply-add"),
        ("vbroadcastss %xmm5,%ymm5", "broadcasts from a register"),
        ("vmovups %ymm5,0x40(%rsp)", "the stack"),
        ("mov    0x20(%rsp),%rdi", "the stack"),
        ("vmovaps %ymm5,%ymm6", "is no load"),
        ("vmovups %ymm5,(%rdi)", "is no load"),
        ("vaddps %ymm5,%ymm6,%ymm6", "no load, broadcast or multiply-add"),
        ("add    (%rdi),%rsi", "counts in memory"),
    ],
)
def test_what_is_planted_is_found(planted, why):
    (loop,) = tile_loops(LOOP.format(planted=f"    1014:\t{planted}"), "avx2")
    (fault,) = loop.faults()
    assert planted.split()[0] in fault
    assert why in fault


def test_a_clean_loop_has_no_fault():
    (loop,) = tile_loops(LOOP.format(planted=""), "avx2")
    assert loop.multiply_adds == 2
    assert loop.faults() == []
    assert tile_loops(LOOP.format(planted=""), "avx512") == []


def test_every_tile_is_somewhere_in_the_sources():
    sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "csrc").rglob("*.*"))
    assert [tile for tile in TILES if f" {tile}(" not in sources] == []
