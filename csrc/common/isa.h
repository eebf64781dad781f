// The instruction sets a kernel source is compiled for, and the one this process uses.
#pragma once

namespace vfrnn {

enum class Isa { baseline, avx2, avx512 };

// The best set of this CPU, or the one VFRNN_ISA names ("baseline", "avx2", "avx512"). Read once; throws
// std::runtime_error when VFRNN_ISA names a set that is unknown or that this CPU lacks.
Isa active_isa();
const char* isa_name(Isa isa);

// One of three tables of the same kernels, each compiled for its instruction set.
template <class Table>
const Table& select_isa(const Table& baseline, const Table& avx2, const Table& avx512) {
  switch (active_isa()) {
    case Isa::avx512:
      return avx512;
    case Isa::avx2:
      return avx2;
    default:
      return baseline;
  }
}

}  // namespace vfrnn
