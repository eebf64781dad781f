"""The counts of a step of the CUDA kernels: how they are taken from machine code, and the recorded ones."""

import csv
import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="cuobjdump comes with Triton")

from tools import gpu_time

#: By `cuobjdump -sass`, of a kernel as small as can be: a wait for an mbarrier, a product, an activation, an arrival.
LISTING = Path(__file__).with_name("step.sass")


def listing(*instructions: str, stall: int = 2) -> list[str]:
    """Of one function; every instruction is 16 bytes and stalls alike."""
    lines = ["\t\tFunction : step"]
    for k, instruction in enumerate(instructions):
        lines.append(f"        /*{16 * k:04x}*/                   {instruction} ;  /* 0x{k:016x} */")
        lines.append(f"                                             /* 0x{stall << 41:016x} */")
    return lines


def body(*instructions: str, stall: int = 2) -> list[gpu_time.Instruction]:
    return gpu_time.functions(listing(*instructions, stall=stall))["step"]


def test_a_listing_of_the_compiler():
    (kernel,) = gpu_time.functions(LISTING.read_text().splitlines()).values()
    assert len(kernel) == 0x35
    wait = kernel[0x17]
    assert (wait.address, wait.name, wait.stall, wait.waits) == (0x170, "SYNCS.PHASECHK.TRANS64.TRYWAIT", 2, False)
    loop = gpu_time.time_loop(kernel)
    # what waits on lies behind the kernel's end, and is no part of the loop
    assert (loop[0].address, loop[-1].address) == (0x100, 0x290)
    assert gpu_time.counts(kernel, products=1) == {
        "stalls": 73,
        "instructions": 26,
        "waits": 3,
        "hmma": 1,
        "wavefronts": 4,
        "membar": 0,
        "cctl": 0,
    }


def test_the_costlier_branch_counts():
    step = ["HMMA.16816 R4, R8, R12, R4", "@P0 BRA 0x40", "FADD R0, R0, R0", "BRA 0x70"]
    other = ["MEMBAR.ALL.CTA", "CCTL.IVALL", "LDS.64 R0, [R1]", "BAR.SYNC 0x0", "@P1 BRA 0x0", "EXIT"]
    loop = body(*step, *other)
    found = gpu_time.counts(loop, products=1)
    assert (found["instructions"], found["stalls"]) == (7, 14)  # 0x0 0x10 0x40 0x50 0x60 0x70 0x80
    assert (found["membar"], found["cctl"], found["wavefronts"]) == (1, 1, 2)
    # the shorter branch stalls longer: its stalls, and the instructions of the other
    loop[2] = dataclasses.replace(loop[2], stall=15)
    found = gpu_time.counts(loop, products=1)
    assert (found["instructions"], found["stalls"], found["membar"]) == (7, 2 + 2 + 15 + 2 + 2 + 2, 1)


def test_a_round_of_two_steps_counts_half():
    step = ["HMMA.16816 R4, R8, R12, R4", "FADD R0, R0, R0", "BAR.SYNC 0x0"]
    found = gpu_time.counts(body(*step, *step, "@P1 BRA 0x0", "EXIT"), products=1)
    assert (found["instructions"], found["hmma"]) == (4, 1)  # 7 of two steps, rounded up


def test_a_loop_within_a_step_goes_as_many_rounds_as_its_products_need():
    product = "HMMA.16816 R4, R8, R12, R4"
    loop = body("FADD R0, R0, R0", product, product, "@P0 BRA 0x10", "BAR.SYNC 0x0", "@P1 BRA 0x0", "EXIT")
    found = gpu_time.counts(loop, products=8)
    assert (found["hmma"], found["instructions"], found["stalls"]) == (8, 4 * 3 + 3, 30)
    with pytest.raises(ValueError, match="0 products and 3 times 2 are not 1 times 7"):
        gpu_time.counts(loop, products=7)


@pytest.mark.parametrize(
    ("instructions", "why"),
    [
        (["FADD R0, R0, R0", "@P0 BRA 0x0", "HMMA.16816 R4, R8, R12, R4", "EXIT"], "no loop"),
        (["HMMA.16816 R4, R8, R12, R4", "FADD R0, R0, R0", "@P0 BRA 0x10", "BAR.SYNC 0x0", "@P1 BRA 0x0"], "rounds"),
        (["HMMA.16816 R4, R8, R12, R4", "BRX R0 -0x10", "BAR.SYNC 0x0", "@P1 BRA 0x0"], "where it goes to"),
        (["HMMA.16816 R4, R8, R12, R4", "@P1 BRA 0x0"], "no barrier"),
        (["HMMA R4, R8, R12, R4", "HMMA R4, R8, R12, R4", "BAR.SYNC 0x0", "@P1 BRA 0x0"], "2 products"),
    ],
    ids=["no loop", "a loop in a step", "a jump by a table", "no barrier", "other products"],
)
def test_what_cannot_be_counted_is_refused(instructions, why):
    with pytest.raises(ValueError, match=why):
        gpu_time.counts(body(*instructions), products=1)


def recorded() -> list[dict[str, str]]:
    with gpu_time.TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_count_that_rises_is_a_fault():
    rows = recorded()
    assert gpu_time.faults(rows, rows) == []
    for count in gpu_time.COUNTS:
        for change, faults in ((1, 1), (-1, 0)):
            changed = [{**rows[0], count: str(int(rows[0][count]) + change)}, *rows[1:]]
            assert len(gpu_time.faults(changed, rows)) == faults, count
    assert len(gpu_time.faults(rows[1:], rows)) == len(gpu_time.faults(rows, rows[1:])) == 1


def test_the_plan_reads_the_recorded_counts():
    assert gpu_time.HEADER.read_text() == gpu_time.header_of(recorded())


def test_no_step_flushes_a_cache_or_fences_all_memory():
    assert {(row["membar"], row["cctl"]) for row in recorded()} == {("0", "0")}
