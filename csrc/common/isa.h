// The instruction sets a kernel source is compiled for, and the one this process uses.
#pragma once

namespace vfrnn {

enum class Isa { baseline, avx2, avx512 };

// The best set of this CPU, or the one VFRNN_ISA names ("baseline", "avx2", "avx512"). Read once; throws
// std::runtime_error when VFRNN_ISA names a set that is unknown or that this CPU lacks.
Isa active_isa();
const char* isa_name(Isa isa);

// The kernels K of every instruction set. Each kernel source, compiled once per set, defines its own member at its end:
//   template <>
//   const MeshKernels<float> IsaTable<MeshKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <class K>
struct IsaTable {
  static const K baseline, avx2, avx512;

  // Those of the set this process uses.
  static const K& active() {
    switch (active_isa()) {
      case Isa::avx512:
        return avx512;
      case Isa::avx2:
        return avx2;
      case Isa::baseline:
        break;
    }
    return baseline;
  }
};

}  // namespace vfrnn
