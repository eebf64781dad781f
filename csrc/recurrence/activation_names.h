// The activations by their names in Python.
#pragma once

#include <string>

#include "common/tensors.h"
#include "recurrence/recurrence.h"

namespace vfrnn {

inline Activation activation_of(const std::string& name) {
  if (name == "modrelu") return Activation::modrelu;
  if (name == "tanh") return Activation::tanh;
  if (name == "relu") return Activation::relu;
  require(name == "identity", "activation must be modrelu, tanh, relu or identity, got ", name);
  return Activation::identity;
}

}  // namespace vfrnn
