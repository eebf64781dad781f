// The activations by their names in Python: Kind is Activation, or CudaActivation.
#pragma once

#include <string>

#include "common/tensors.h"
#include "recurrence/kernels.h"

namespace vfrnn {

template <class Kind = Activation>
Kind activation_of(const std::string& name) {
  if (name == "modrelu") return Kind::modrelu;
  if (name == "tanh") return Kind::tanh;
  if (name == "relu") return Kind::relu;
  require(name == "identity", "activation must be modrelu, tanh, relu or identity, got ", name);
  return Kind::identity;
}

}  // namespace vfrnn
