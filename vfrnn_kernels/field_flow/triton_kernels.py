"""field_flow on a GPU: which kernels run (configurations), forward and backward. Kernels: triton_device.py,
triton_plan.py, triton_sums.py.

Forward: the flow, one program per sample; before it the plan where substeps are planned, and the contraction of a
field that all samples share. Backward: the adjoint of every sample, then sums over the samples, each by one program in
a fixed order. The number of substeps is a tensor that the forward saves, so that both use the same one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vfrnn_kernels.field_flow.op import GPU_LARGEST_N
from vfrnn_kernels.field_flow.triton_device import field_flow_bwd_kernel, field_flow_fwd_kernel
from vfrnn_kernels.field_flow.triton_plan import SPECS, contracted, describe, planned_count
from vfrnn_kernels.field_flow.triton_sums import field_flow_cells_kernel, field_flow_mesh_kernel, field_flow_sum_kernel
from vfrnn_kernels.triton_runtime import KernelSpec, block_size, cdiv

#: Entries of C, and of N~, that a program keeps in its registers (forward; backward), or takes at a time from L2: what
#: does not spill with 8 warps.
FORWARD_ENTRIES, BACKWARD_ENTRIES, TILE_ENTRIES = (4096, 8192), (4096,), 4096
SMALLEST_N, LARGEST_RESIDENT_N, LARGEST_N = 64, 256, GPU_LARGEST_N
#: Cells that the forward takes at a time beyond the resident sizes, and its warps: its registers hold more than the
#: backward's. What does not spill on any architecture.
FORWARD_CELLS = {512: (8, 16), 1024: (4, 8)}
#: States that the backward keeps of a flow; with more substeps it computes those between them again.
STATES = 32
#: Programs of the backward, each with its own sum over samples, where all samples share a field.
SLOTS = 256


def _tile(resident: bool, entries: int, block: int) -> dict[str, int | bool]:
    # Beyond the resident sizes the vectors of nodes themselves need the registers of half a tile.
    shrink = 1 if block <= LARGEST_RESIDENT_N else 2
    return {"RESIDENT": resident, "BC": entries // (shrink * block), "NB": block}


def _configuration(m: int, n: int, resident_entries: tuple[int, ...]) -> dict[str, int | bool]:
    # The whole mesh in registers where it fits, else a block of cells at a time
    block = block_size(n, SMALLEST_N)
    for entries in resident_entries:
        if m * block <= entries and block <= LARGEST_RESIDENT_N:
            return _tile(True, entries, block)
    return _tile(False, TILE_ENTRIES, block)


def _forward_spec(tile: dict[str, int | bool]) -> KernelSpec:
    sizes = "m n d field_stride order volume_preserving direction"
    cells, num_warps = FORWARD_CELLS.get(tile["NB"], (tile["BC"], 8))
    return describe(field_flow_fwd_kernel, "h v b w N G dt scale count out", sizes, tile | {"BC": cells}, num_warps)


def _backward_spec(tile: dict[str, int | bool], mesh: bool) -> KernelSpec:
    pointers = "grad h v b w N G dt scale count grad_h X Y row row_b parts states vectors coef_C coef_N"
    sizes = "B m n d field_stride order volume_preserving states"
    return describe(field_flow_bwd_kernel, pointers, sizes, {"MESH": mesh, **tile}, 8)


_CELLS = describe(field_flow_cells_kernel, "b w v G X grad_v part_w", "m n d", {"BC": 4, "BN": 128})
_MESH = describe(field_flow_mesh_kernel, "b w v X Y grad_N grad_G", "fields slots n d", {"BF": 16, "BN": 128})
_SUM = describe(field_flow_sum_kernel, "rows out", "rows columns", {"BR": 32, "BJ": 32})


def specs() -> Iterator[KernelSpec]:
    """Every kernel x configuration that the op can launch."""
    yield from (*SPECS, _CELLS, _MESH, _SUM)
    block = SMALLEST_N
    while block <= LARGEST_N:
        is_resident = block <= LARGEST_RESIDENT_N
        tiled = _tile(False, TILE_ENTRIES, block)
        for tile in (tiled, *(_tile(True, entries, block) for entries in FORWARD_ENTRIES if is_resident)):
            yield _forward_spec(tile)
        for tile in (tiled, *(_tile(True, entries, block) for entries in BACKWARD_ENTRIES if is_resident)):
            yield from (_backward_spec(tile, False), _backward_spec(tile, True))
        block *= 2


def field_flow(
    h: Tensor,
    v: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    dt: Tensor,
    divergence_scale: Tensor,
    volume_preserving: bool,
    order: int,
    substeps: int,
) -> tuple[Tensor, Tensor]:
    """h' (B, n) and the number of substeps (1,). A value out of range, or a plan that finds no number, makes NaN."""
    h, v, b, w, N, G = (t.contiguous() for t in (h, v, b, w, N, G))
    if substeps or not h.numel():
        count = torch.full((1,), max(substeps, 1), dtype=torch.int32, device=h.device)
    else:
        count = planned_count(v, b, w, N, G, dt, order)
    v, G = _one_field_contracted(v, G)
    return _flow(h, v, b, w, N, G, dt, divergence_scale, count, volume_preserving, order, 1), count


def _one_field_contracted(v: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    return contracted(v, G) if v.shape[0] == 1 else (v, G)


def _flow(
    h: Tensor,
    v: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    dt: Tensor,
    scale: Tensor,
    count: Tensor,
    volume_preserving: bool,
    order: int,
    direction: int,
) -> Tensor:
    (B, n), (m, d) = h.shape, G.shape[:2]
    out = torch.empty_like(h)
    if out.numel():
        stride = m * d if v.shape[0] > 1 else 0
        spec = _forward_spec(_configuration(m, n, FORWARD_ENTRIES))
        tensors = (h, v, b, w, N, G, dt, scale, count, out)
        spec.launch((B,), *tensors, m, n, d, stride, order, int(volume_preserving), direction)
    return out


def field_flow_backward(
    grad_moved: Tensor,
    h: Tensor,
    v: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    dt: Tensor,
    divergence_scale: Tensor,
    moved: Tensor,
    taken: Tensor,
    volume_preserving: bool,
    order: int,
    substeps: int,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients that are wanted of h, v, b, w, N, G, dt and divergence_scale."""
    grad, h, v, b, w, N, G = (t.contiguous() for t in (grad_moved, h, v, b, w, N, G))
    if not h.numel():
        tensors = {"h": h, "v": v, "b": b, "w": w, "N": N, "G": G, "dt": dt, "divergence_scale": divergence_scale}
        return {name: torch.zeros_like(tensors[name]) for name in wanted}
    field, gradient = _one_field_contracted(v, G)
    if wanted <= {"h"}:  # the adjoint of the flow of S is the flow of -S
        mesh_and_scalars = (field, b, w, N, gradient, dt, divergence_scale, taken)
        return {"h": _flow(grad, *mesh_and_scalars, volume_preserving, order, -1)}
    (B, n), (m, d), fields = h.shape, G.shape[:2], v.shape[0]
    mesh, slots = bool(wanted & {"N", "G"}), B if fields > 1 else min(B, SLOTS)
    grad_h, row_b, parts = torch.empty_like(h), torch.empty_like(h), h.new_empty(B, 2)
    states = min(substeps or STATES, STATES)
    X = h.new_empty(slots, m, n)
    Y = torch.empty_like(X) if mesh else X  # unread without `mesh`, like the coefficients below
    row, kept = h.new_empty(slots, n), h.new_empty(slots, states, n)
    vectors, coef_C = h.new_empty(slots, 3 * order, n), h.new_empty(slots, 2 * order, m)
    coef_N = torch.empty_like(coef_C) if mesh else coef_C
    axes = gradient.shape[1]
    sizes = (B, m, n, axes, m * axes if fields > 1 else 0, order, int(volume_preserving), states)
    flow_tensors = (grad, h, field, b, w, N, gradient, dt, divergence_scale, taken)
    buffers = (grad_h, X, Y, row, row_b, parts, kept, vectors, coef_C, coef_N)
    _backward_spec(_configuration(m, n, BACKWARD_ENTRIES), mesh).launch((slots,), *flow_tensors, *buffers, *sizes)

    grad_v, grad_b, grad_w = torch.empty_like(v), torch.empty_like(b), torch.empty_like(w)
    grad_N, grad_G = (torch.empty_like(N), torch.empty_like(G)) if mesh else (N, G)
    grad_scalars = h.new_empty(2)
    if fields == 1 and slots > 1 and wanted & {"v", "w", "G"}:
        total = h.new_empty(1, m, n)
        _sum_rows(X.view(slots, m * n), total)
        X = total
    if wanted & {"v", "w"}:
        part_w = grad_w if fields == 1 else h.new_empty(fields, m)
        _CELLS.launch((fields, cdiv(m, 4)), b, w, v, G, X, grad_v, part_w, m, n, d)
        if "w" in wanted and fields > 1:
            _sum_rows(part_w, grad_w)
    if mesh:
        _MESH.launch((m, cdiv(n, 128), d + 1), b, w, v, X, Y, grad_N, grad_G, fields, slots, n, d)
    if "b" in wanted:
        _sum_rows(row_b, grad_b)
    if wanted & {"dt", "divergence_scale"}:
        _sum_rows(parts, grad_scalars)
    found = {"h": grad_h, "v": grad_v, "b": grad_b, "w": grad_w, "N": grad_N, "G": grad_G}
    return found | {"dt": grad_scalars[0].clone(), "divergence_scale": grad_scalars[1].clone()}


def _sum_rows(rows: Tensor, out: Tensor) -> None:
    _SUM.launch((cdiv(rows.shape[1], 32),), rows, out, rows.shape[0], rows.shape[1])
