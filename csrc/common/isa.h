// The instruction sets a kernel source is compiled for, and the one this process uses.
#pragma once

namespace vfrnn {

// VFRNN_ISAS: those of the processor, the least first (CMakeLists.txt): "baseline,avx2,avx512" or "neon".
enum class Isa { VFRNN_ISAS };

// The best set of this CPU, or the one VFRNN_ISA names. Read once; throws std::runtime_error when VFRNN_ISA names a set
// that is unknown or that this CPU lacks.
Isa active_isa();

// The kernels K of every instruction set. Each kernel source, compiled once per set, defines its own member at its end:
//   template <>
//   const MeshKernels<float> IsaTable<MeshKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <class K>
struct IsaTable {
  static const K VFRNN_ISAS;

  // Those of the set this process uses.
  static const K& active() { return at(int(active_isa()), VFRNN_ISAS); }

 private:
  template <class... Better>
  static const K& at(int isa, const K& least, const Better&... better) {
    if constexpr (sizeof...(better) > 0) {
      if (isa > 0) return at(isa - 1, better...);
    }
    return least;
  }
};

}  // namespace vfrnn
