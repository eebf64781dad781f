// The gradients that a backward returns, by its mask `needs` (ops.cpp).
#pragma once

#include <cstdint>
#include <initializer_list>

#include "common/tensors.h"

namespace vfrnn {

// Of the dtype and device of `like`; a gradient that is not asked for has shape (0,) and a null pointer.
class NeededGradients {
 public:
  NeededGradients(const Tensor& like, int64_t needs) : like_(like), needs_(needs) {}

  bool operator()(int gradient) const { return wanted(needs_, gradient); }
  bool only(int gradient) const { return needs_ == int64_t(1) << gradient; }

  Tensor empty(int gradient, std::initializer_list<int64_t> sizes) const {
    return (*this)(gradient) ? empty_tensor(like_, sizes) : absent();
  }
  Tensor zeros(int gradient, std::initializer_list<int64_t> sizes) const {
    return (*this)(gradient) ? zeros_tensor(like_, sizes) : absent();
  }
  // t, which the kernels computed with the others.
  Tensor of(int gradient, const Tensor& t) const { return (*this)(gradient) ? t : absent(); }

  template <class T>
  T* data(int gradient, Tensor& t) const {
    return (*this)(gradient) ? t.mutable_data_ptr<T>() : nullptr;
  }

 private:
  Tensor absent() const { return empty_tensor(like_, {0}); }

  const Tensor& like_;
  int64_t needs_;
};

}  // namespace vfrnn
