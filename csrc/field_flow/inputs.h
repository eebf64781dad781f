// The arguments of field_flow, as its schema names them (ops.cpp).
#pragma once

#include <cstdint>

#include "common/tensors.h"

namespace vfrnn {

struct FlowInputs {
  const Tensor &h, &v, &b, &w, &N, &G, &dt, &divergence_scale;
  bool volume_preserving;
  int64_t order, substeps;  // 0 substeps: as many as a plan asks for
};

}  // namespace vfrnn
