"""The loops of the CPU kernels' tiles, in the machine code: multiply-adds, and nothing that they would wait for."""

import shutil
from pathlib import Path

import pytest
import torch

from tools.hot_loops import TILES, disassembled, tile_loops
from vfrnn_kernels import loader

#: Of the recurrences and of matrices.
KINDS = ("product_tile", "outer_tile", "multiply")
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


@pytest.mark.parametrize("isa", torch.ops.vfrnn_kernels.cpu_isas())
def test_tiles_wait_for_nothing_but_multiply_adds(disassembly, isa):
    loops = tile_loops(disassembly, isa)
    if not loops and f"vfrnn::{isa}::" not in disassembly:
        pytest.skip("the library is stripped, or of another processor")
    for tile in KINDS:
        assert any(f"::{tile}" in loop.function for loop in loops), tile
    assert [fault for loop in loops for fault in loop.faults()] == []


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ("vaddss (%rax),%xmm5,%xmm5", "none of what a tile needs"),
        ("vbroadcastss %xmm5,%ymm5", "none of what a tile needs"),
        ("vmovups %ymm5,0x40(%rsp)", "the stack"),
        ("mov    0x20(%rsp),%rdi", "the stack"),
        ("vmovaps %ymm5,%ymm6", "none of what a tile needs"),
        ("vmovups %ymm5,(%rdi)", "none of what a tile needs"),
        ("vaddps %ymm5,%ymm6,%ymm6", "none of what a tile needs"),
        ("add    (%rdi),%rsi", "none of what a tile needs"),
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


NEON = """
0000000000001000 <vfrnn::neon::product_tile<1, 9, 2, float>(vfrnn::neon::Product<float> const&, long)>:
    1000:\tldp\tq1, q0, [x1]
    1004:\tldr\ts15, [x0, #-64]
    1008:\tfmla\tv29.4s, v1.4s, v15.s[0]
    100c:\tfmla\tv28.4s, v0.4s, v15.s[0]
    1010:\t{planted}
    1014:\tadd\tx1, x1, #0x20
    1018:\tcmp\tx1, x2
    101c:\tb.ne\t1000 <vfrnn::neon::product_tile<1, 9, 2, float>(vfrnn::neon::Product<float> const&)+0x0>  // b.any
"""


@pytest.mark.parametrize(
    ("planted", "wrong"),
    [
        ("ld1r\t{v14.4s}, [x0]", False),
        ("ldr\tq5, [sp, #32]", True),
        ("str\tq5, [x0]", True),
        ("fmul\ts5, s5, s6", True),
        ("fadd\tv5.4s, v5.4s, v6.4s", True),
        ("ldr\tx5, [x0]", True),
        ("b\t1014 <vfrnn::neon::product_tile<1, 9, 2, float>+0x14>", False),  # clang leaves loops in their middle
        ("bl\t2000 <malloc@plt>", True),
    ],
)
def test_rules_of_neon(planted, wrong):
    (loop,) = tile_loops(NEON.replace("{planted}", planted), "neon")
    assert bool(loop.faults()) == wrong


def test_every_tile_is_somewhere_in_the_sources():
    sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "csrc").rglob("*.*"))
    assert [tile for tile in TILES if f" {tile}(" not in sources] == []
