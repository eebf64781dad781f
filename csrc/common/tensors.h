// What the ops need of the framework beyond torch/csrc/stable: new tensors, errors, checks of values, a dispatch over
// float and double, and activations by name.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "common/activations.h"

namespace vfrnn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace ts = torch::stable;

// The op raises RuntimeError with the message in `parts` unless `holds`.
template <class... Parts>
void require(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// make(), which returns a new tensor of these sizes. What the framework says of one that does not fit into memory stays
// behind its C interface.
template <class Make>
Tensor allocated(const std::vector<int64_t>& sizes, const Make& make) {
  try {
    return make();
  } catch (const std::exception&) {
    std::ostringstream shape;
    for (size_t k = 0; k < sizes.size(); ++k) shape << (k > 0 ? ", " : "") << sizes[k];
    require(false, "out of memory: a tensor of shape (", shape.str(), ") is needed");
    throw;
  }
}

// Of the dtype and device of `like`; uninitialised, or zero.
inline Tensor empty_tensor(const Tensor& like, std::initializer_list<int64_t> sizes) {
  const std::vector<int64_t> s(sizes);
  return allocated(s, [&] { return ts::new_empty(like, s); });
}
inline Tensor zeros_tensor(const Tensor& like, std::initializer_list<int64_t> sizes) {
  const std::vector<int64_t> s(sizes);
  return allocated(s, [&] { return ts::new_zeros(like, s); });
}
// A copy of t whose entries are in the order of its rows.
inline Tensor contiguous_copy(const Tensor& t) {
  std::vector<int64_t> sizes;
  for (int64_t k = 0; k < t.dim(); ++k) sizes.push_back(t.size(k));
  return allocated(sizes, [&] { return ts::contiguous(t); });
}
// t itself when it is contiguous, else a contiguous copy.
inline Tensor packed(const Tensor& t) {
  return t.is_contiguous() ? t : contiguous_copy(t);
}
inline std::optional<Tensor> packed(const std::optional<Tensor>& t) {
  return t.has_value() ? std::optional<Tensor>(packed(*t)) : t;
}
// t itself when the entries of its rows are adjacent, else a contiguous copy.
inline Tensor with_adjacent_entries(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  return t.stride(last) == 1 || t.size(last) <= 1 ? t : contiguous_copy(t);
}

// Whether the mask `needs` of a backward asks for the gradient number `gradient` (ops.cpp).
inline bool wanted(int64_t needs, int gradient) {
  return (needs >> gradient & 1) != 0;
}

// The activation of that name.
inline Activation activation_of(const std::string& name) {
  std::string names;
  for (int k = 0; k < activation_count; ++k) {
    if (name == activation_names[k]) return Activation(k);
    names += (k > 0 ? ", " : "") + std::string(activation_names[k]);
  }
  throw std::runtime_error("activation must be one of " + names + ", got " + name);
}

// x - x is 0 exactly for the finite numbers
template <class T>
bool all_finite(const T* x, int64_t count) {
  T sum = 0;
  for (int64_t j = 0; j < count; ++j) sum = (x[j] - x[j] == 0) ? sum : T(1);
  return sum == 0;
}

template <class T>
void check_finite(const char* name, const Tensor& t) {
  require(all_finite(t.const_data_ptr<T>(), t.numel()), name, " must be finite, got NaN or infinity");
}

// exp(-dt delta / (4 substeps)) is a number of T where the largest of these exponents is `largest`.
template <class T>
void check_scales(double largest) {
  const double most = std::log(double(std::numeric_limits<T>::max()));
  require(largest <= most, "-dt * delta / (4 * substeps) must be at most ", most,
          ", or its exponential overflows, got ", largest);
}

// f(T{}) with T = float or double by the dtype of t. op.py has checked that it is one of the two.
template <class F>
auto dispatch_real(const Tensor& t, F&& f) {
  if (t.scalar_type() == ScalarType::Double) {
    return f(double{});
  }
  require(t.scalar_type() == ScalarType::Float, "the kernels of this op are float32 and float64");
  return f(float{});
}

}  // namespace vfrnn

// An op takes the `str` of its schema as an Activation, which is read here: PyTorch's conversion to std::string,
// compiled into whoever takes one, loses a string per call in its headers 2.10 to 2.13 (pytorch/pytorch issue 191340).
template <>
struct torch::stable::detail::ToImpl<vfrnn::Activation> {
  template <class... Versions>
  static vfrnn::Activation call(StableIValue value, Versions...) {
    struct Owned {
      StringHandle handle;
      ~Owned() { torch_delete_string(handle); }
    } const name{to<StringHandle>(value)};
    size_t length = 0;
    const char* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_length(name.handle, &length));
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(name.handle, &data));
    return vfrnn::activation_of(std::string(data, length));
  }
};
