"""The mutations: what is changed in which kernels, and the tests that must see it (mutations.py)."""

from __future__ import annotations

from dataclasses import dataclass

OPS, CUDA = "tests/backends/test_gpu_ops.py", "tests/backends/test_cuda.py"


def small(name: str) -> tuple[str, ...]:
    """The least test of values and gradients of an op."""
    return (f"{OPS}::test_values_and_gradients[cuda-{name}-17]",)


def route(name: str, dtype: str) -> tuple[str, ...]:
    return (f"{CUDA}::test_routes[{name}-torch.{dtype}-tanh]",)


@dataclass(frozen=True)
class Kernels:
    """Of one file, those whose mangled names match; and the tests that launch one of them."""

    file: str
    names: str
    tests: tuple[str, ...]


def persistent(dtype: str, way: str, shapes: str) -> tuple[str, str]:
    types = {"bfloat16": "4Bf16", "float16": "3F16", "float32": "3F32"}
    return f"recurrence-persistent_{way}", rf"3gpu{types[dtype]}ELi{shapes}ELb{int(way == 'backward')}E"


TILED = ("tests/gpu_simulator/test_kernels.py::test_powers_of_a_step_by_tiles",)
CLUSTER = (f"{CUDA}::test_a_cluster[torch.bfloat16-tanh]",)
KERNELS = {
    f"cta {dtype} {way}": Kernels(*persistent(dtype, way, "[01]"), route("cta", dtype))
    for dtype in ("float32", "bfloat16", "float16")
    for way in ("forward", "backward")
}
KERNELS |= {
    f"cluster {way}": Kernels(*persistent("bfloat16", way, "(7|8|9)"), CLUSTER) for way in ("forward", "backward")
}
KERNELS |= {
    f"steps {dtype}": Kernels("recurrence-steps", "", route("steps", dtype)) for dtype in ("float32", "float16")
}
KERNELS |= {
    "pack": Kernels("recurrence-persistent_pack", "3F32", route("cta", "float32")),
    "backward sums": Kernels("recurrence-backward_sums", "", route("cta", "float32")),
    "skew_expm forward": Kernels("skew_expm-forward", "Li32ELi32", small("skew_expm")),
    "skew_expm backward": Kernels("skew_expm-backward", "Li32ELi32", small("skew_expm")),
    "tiled product": Kernels("skew_expm-tiled_product", "", TILED),
    "spectral forward": Kernels("spectral_recurrence-forward", "chainIf", small("spectral_recurrence")),
    "spectral backward": Kernels("spectral_recurrence-backward", "chainIf", small("spectral_recurrence")),
    "field_flow forward": Kernels("field_flow-forward", "", small("field_flow")),
    "field_flow backward": Kernels("field_flow-backward", "", small("field_flow")),
    "field_generator forward": Kernels("field_generator-forward", "", small("field_generator")),
    "field_generator backward": Kernels("field_generator-backward", "", small("field_generator")),
    "complete forward": Kernels("field_generator-complete_forward", "", small("field_generator complete")),
    "complete backward": Kernels("field_generator-complete_backward", "", small("field_generator complete")),
}

FOUR, TWO = r"\{([^,{]*),([^,]*),([^,]*),([^,}]*)\}", r"\{([^,{]*),([^,}]*)\}"
MMA = r"(mma\.sync\S+\s+\{[^}]*\}, )" + FOUR
#: By mode: pattern and what takes its place. Registers of a: rows g and g + 8, then the second half of the sum.
CHANGES = {
    "ptx": {
        "bar.sync gone": (r"bar\.sync\s+0;", ""),
        "bar.warp.sync gone": (r"bar\.warp\.sync[^;]*;", ""),
        "barrier.cluster gone": (r"barrier\.cluster\.(arrive|wait)[^;]*;", ""),
        "mbarrier waits do not wait": (r"@!p bra\s+WAIT_\d+;", ""),
        "16 bytes expected": (r"(mbarrier\.arrive\.expect_tx\S+ _, \[[^\]]*\], )[^;]*;", r"\g<1>16;"),
        "st.async 16 bytes further": (r"(st\.async\S+\s+\[%r\d+)\]", r"\1+16]"),
        "mapa of another block": (r"(mapa\.shared::cluster\.u32\s+%r\d+, %r\d+, )[^;]*;", r"\g<1>1;"),
        "cp.async not waited for": (r"cp\.async\.wait_group\s+\d+;", "cp.async.wait_group 7;"),
        "a's rows and halves exchanged": (MMA, r"\1{\2,\4,\3,\5}"),
        "a's rows exchanged": (MMA, r"\1{\3,\2,\5,\4}"),
        "b's halves exchanged": (MMA + r", " + TWO, r"\1{\2,\3,\4,\5}, {\7,\6}"),
        "numbers of a load exchanged": (r"(ld\.(?:shared|global)\.v4\.\w+\s+)" + FOUR, r"\1{\3,\2,\4,\5}"),
        "numbers of a pair exchanged": (r"(ld\.(?:shared|global)\.v2\.\w+\s+)" + TWO, r"\1{\3,\2}"),
        "a load 16 bytes further": (r"(ld\.shared\.v4\.\w+\s+\{[^}]*\},\s*\[[^\]+]*)\]", r"\1+16]"),
        "a load 4 bytes further": (r"(ld\.shared\.(?:b32|f32|u32)\s+[^\[]*\[[^\]+]*)\]", r"\1+4]"),
        "a store 4 bytes further": (r"(st\.shared\.(?:b32|f32|u32)\s+\[[^\]+]*)\]", r"\1+4]"),
        "a store 2 bytes further": (r"(st\.shared\.(?:b16|u16)\s+\[[^\]+]*)\]", r"\1+2]"),
        "a global load 4 bytes further": (r"(ld\.global\.(?:\w+\.)*?[bfu]32\s+[^\[]*\[[^\]+]*)\]", r"\1+4]"),
        "a global store 4 bytes further": (r"(st\.global\.(?:b32|f32|u32)\s+\[[^\]+]*)\]", r"\1+4]"),
        "shfl to another lane": (r"shfl\.sync\.bfly", "shfl.sync.down"),
    },
    "sass": {
        "BAR.SYNC gone": (r"BAR\.SYNC\S* 0x0", "YIELD"),
        "mbarrier waits do not wait": (r"SYNCS\.PHASECHK\S* (P\d), [^;]*;", r"ISETP.EQ.AND \1, PT, RZ, RZ, PT ;"),
        "LDGSTS not waited for": (r"DEPBAR\.LE SB0, 0x0", "DEPBAR.LE SB0, 0x7"),
        "HMMA takes a for b": (r"(HMMA\.\S+ R\d+, )(R\d+)(\S*), R\d+", r"\1\2\3, \2"),
        "LDS 16 bytes further": (r"(LDS\.128 R\d+, \[[^\]]*)\]", r"\1+0x10]"),
        "STS 4 bytes further": (r"(STS \[R\d+)\]", r"\1+0x4]"),
        "SHFL to another lane": (r"(SHFL\.BFLY PT, R\d+, R\d+, )0x10,", r"\g<1>0x8,"),
        "LDG 4 bytes further": (r"(LDG\.E\S* R\d+, desc\S* ?\[R\d+\.64)\]", r"\1+0x4]"),
    },
}


@dataclass(frozen=True)
class Mutation:
    """`which` of the places in each kernel, from 0; None: all of them."""

    mode: str
    kernels: str
    change: str
    which: int | None = None

    def __str__(self) -> str:
        return f"{self.mode} | {self.kernels} | {self.change if self.which is None else f'one: {self.change}'}"

    file = property(lambda self: KERNELS[self.kernels].file)
    kernel = property(lambda self: KERNELS[self.kernels].names)
    tests = property(lambda self: KERNELS[self.kernels].tests)
    pattern = property(lambda self: CHANGES[self.mode][self.change][0])
    replacement = property(lambda self: CHANGES[self.mode][self.change][1])


CTA = [name for name in KERNELS if name.startswith("cta ")]
MUTATIONS = [
    # barriers and waits
    *(Mutation("ptx", name, "bar.sync gone", 0) for name in ("cta float32 forward", "cta bfloat16 backward")),
    Mutation("ptx", "cta float32 forward", "bar.sync gone"),
    Mutation("ptx", "skew_expm forward", "bar.sync gone", 2),
    Mutation("ptx", "skew_expm backward", "bar.sync gone"),
    Mutation("ptx", "field_flow forward", "bar.sync gone"),
    Mutation("ptx", "field_generator forward", "bar.sync gone"),
    Mutation("ptx", "backward sums", "bar.sync gone"),
    *(
        Mutation("ptx", f"cluster {way}", change)
        for way in ("forward", "backward")
        for change in ("mbarrier waits do not wait", "16 bytes expected", "bar.warp.sync gone", "barrier.cluster gone")
    ),
    # operands of mma, in every type
    *(Mutation("ptx", name, "a's rows and halves exchanged", 0) for name in CTA),
    *(Mutation("ptx", name, "a's rows exchanged") for name in CTA),
    *(Mutation("ptx", name, "b's halves exchanged", 0) for name in CTA),
    *(Mutation("ptx", f"steps {dtype}", "a's rows and halves exchanged") for dtype in ("float32", "float16")),
    *(Mutation("ptx", f"skew_expm {way}", "a's rows and halves exchanged") for way in ("forward", "backward")),
    Mutation("ptx", "tiled product", "b's halves exchanged"),
    # asynchronous copies and stores
    *(Mutation("ptx", f"spectral {way}", "cp.async not waited for") for way in ("forward", "backward")),
    *(Mutation("ptx", "cluster forward", change) for change in ("st.async 16 bytes further", "mapa of another block")),
    # indices and layouts
    Mutation("ptx", "pack", "a global load 4 bytes further"),
    *(Mutation("ptx", name, "numbers of a load exchanged", 0) for name in CTA),
    Mutation("ptx", "field_flow forward", "shfl to another lane"),
    Mutation("ptx", "field_flow backward", "a store 4 bytes further", 0),
    Mutation("ptx", "field_generator backward", "a load 4 bytes further", 0),
    Mutation("ptx", "complete forward", "a store 4 bytes further", 0),
    Mutation("ptx", "complete backward", "a global load 4 bytes further", 0),
    Mutation("ptx", "spectral forward", "a store 4 bytes further", 0),
    # the same in SASS
    Mutation("sass", "skew_expm forward", "BAR.SYNC gone", 2),
    Mutation("sass", "cta bfloat16 forward", "BAR.SYNC gone"),
    Mutation("sass", "cluster forward", "mbarrier waits do not wait"),
    Mutation("sass", "spectral backward", "LDGSTS not waited for"),
    Mutation("sass", "cta float16 forward", "HMMA takes a for b", 0),
    Mutation("sass", "cta bfloat16 forward", "HMMA takes a for b", 0),
    Mutation("sass", "cta float32 backward", "HMMA takes a for b", 0),
    Mutation("sass", "cta bfloat16 backward", "LDS 16 bytes further", 0),
    Mutation("sass", "field_flow backward", "SHFL to another lane"),
    Mutation("sass", "field_generator forward", "STS 4 bytes further"),
    Mutation("sass", "spectral forward", "LDG 4 bytes further", 0),
]
