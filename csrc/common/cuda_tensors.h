// What the bindings of the CUDA kernels need of the framework: the device and stream of a call, products of its own
// library, errors. With VFRNN_CUDA_SIMULATED the same bindings serve CPU tensors, for tests (tests/gpu_simulator).
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <array>
#include <string>

#include "common/device.h"
#include "common/tensors.h"

#if defined(VFRNN_CUDA_SIMULATED)
#define VFRNN_CUDA_KEY CPU
#else
#define VFRNN_CUDA_KEY CUDA
#endif

namespace vfrnn {

// Makes the device of `t` the current one for as long as it lives; `stream` is the framework's current one there.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
#if !defined(VFRNN_CUDA_SIMULATED)
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
#endif
  }
  void* stream = nullptr;

 private:
#if defined(VFRNN_CUDA_SIMULATED)
  struct NoGuard {
    explicit NoGuard(int64_t) {}
  } guard_;
#else
  ts::accelerator::DeviceGuard guard_;
#endif
};

// Of the device of an OnDevice that lives.
inline gpu::DeviceProperties device_properties() {
  gpu::DeviceProperties found{};
  const int error = gpu::device_properties(found);
  require(error == 0, "the device does not say what it is: ", gpu::error_message(error));
  return found;
}

// `count` of matrices, samples or fields, which a grid has a block for each of.
inline int64_t number_of_blocks(int64_t count, const char* op) {
  require(count <= INT32_MAX, op, ": a batch has at most ", INT32_MAX, " members on a GPU, got ", count);
  return count;
}

// What a launcher returned.
inline void check_launch(int error, const char* kernel) {
  require(error == 0, kernel, ": the launch failed: ", gpu::error_message(error));
}

// Of any dtype, on the device of `like`; uninitialised.
inline Tensor empty_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType dtype) {
  const std::vector<int64_t> s(sizes);
  return allocated(s, [&] { return ts::new_empty(like, s, dtype); });
}

namespace detail {
template <size_t count>
void call(const char* op, const char* overload, std::array<StableIValue, count>& stack) {
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION));
}
}  // namespace detail

// a b, the same into a tensor, and added to one (a new tensor), by the framework's own product, in the precision that
// its own switches ask for.
inline Tensor product(const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(a), torch::stable::detail::from(b)};
  detail::call("aten::mm", "", stack);
  return torch::stable::detail::to<Tensor>(stack[0]);
}
inline void product_into(Tensor& result, const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(result)};
  detail::call("aten::mm", "out", stack);
  torch::stable::detail::to<Tensor>(stack[0]);  // takes the reference that the call returned
}
// Two calls: addmm takes scalars, which the stable interface cannot pass.
inline void add_product(Tensor& result, const Tensor& a, const Tensor& b) {
  result = ts::subtract(result, product(a, b), -1.0);
}

}  // namespace vfrnn
