"""The layouts of field_flow's CUDA kernels, for devices that need not be there."""

import itertools

import pytest

host = pytest.importorskip("vfrnn_kernels._host", reason="the host module is not built")

#: arch, multiprocessors, shared_limit, and of a multiprocessor: bytes of shared memory, most blocks, most warps.
DEVICES = (
    (80, 108, 166912, 167936, 32, 64),
    (86, 84, 101376, 102400, 16, 48),
    (89, 142, 101376, 102400, 24, 48),
    (90, 132, 232448, 233472, 32, 64),
    (100, 148, 232448, 233472, 32, 64),
    (120, 170, 101376, 102400, 24, 48),
)
#: What the runtime takes of every block, and the unit in which it gives shared memory.
RESERVED, UNIT = 1024, 128
REGISTERS, WARP = 65536, 32


def together(layout: dict, memory: int, most_blocks: int, most_warps: int) -> int:
    """Blocks that a multiprocessor runs at the same time, by the rules of the occupancy calculator."""
    taken = -(-layout["shared"] // UNIT) * UNIT + RESERVED
    largest = 16 if layout["columns"] < 32 else 8  # warps of the block that the kernel was compiled for
    registers = min(255, REGISTERS // (largest * WARP))
    of_warp = -(-registers * WARP // 256) * 256
    by_registers = REGISTERS // of_warp // 4 * 4 // layout["warps"]  # a warp lies in one of four partitions
    return min(memory // taken, by_registers, most_blocks, most_warps // layout["warps"])


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: f"sm_{d[0]}")
@pytest.mark.parametrize("backward", [False, True])
def test_all_blocks_run_at_the_same_time(device, backward):
    arch, multiprocessors, limit, *of_multiprocessor = device
    for n, m, order in itertools.product((1, 17, 64, 65, 190, 256, 257, 500, 1024), (1, 12, 33, 64, 512), (1, 8, 12)):
        for B in (1, 100, 600, 10**6):
            layout = host.field_flow_layout(B, m, n, order, backward, arch, multiprocessors, limit)
            where = n, m, order, B, layout
            assert 0 < layout["shared"] <= limit, where
            assert multiprocessors <= layout["blocks"] <= multiprocessors * together(layout, *of_multiprocessor), where
            assert layout["slots"] == min(B, layout["blocks"]), where


def test_memory_is_counted_in_the_units_in_which_it_is_given():
    layout = host.field_flow_layout(600, 12, 190, 8, True)
    assert layout["shared"] % UNIT != 0  # which five blocks would have room for, were it given by the byte
    assert 233472 // (layout["shared"] + RESERVED) == 5
    assert layout["blocks"] == 4 * 132


def test_many_small_blocks_share_a_multiprocessor():
    assert host.field_flow_layout(10**6, 1, 1, 8, False)["blocks"] == 16 * 132


def test_wrong_arguments_are_named():
    for wrong in ((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1025, 1), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="batch, m, order and n must be at least 1, n at most 1024"):
            host.field_flow_layout(*wrong, False)
