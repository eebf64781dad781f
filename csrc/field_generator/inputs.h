// The tensors of a call of field_generator, contiguous, for as long as the kernels use their pointers.
#pragma once

#include <optional>

#include "common/tensors.h"

namespace vfrnn {

struct GeneratorInputs {
  Tensor b, w, v;
  std::optional<Tensor> N, G;  // none on the complete mesh
  GeneratorInputs(const Tensor& b, const Tensor& w, const std::optional<Tensor>& N, const std::optional<Tensor>& G,
                  const Tensor& v)
      : b(packed(b)), w(packed(w)), v(packed(v)) {
    if (N.has_value()) this->N = packed(*N), this->G = packed(*G);
  }
  bool complete() const { return !N.has_value(); }
};

}  // namespace vfrnn
