// Binding of the CUDA kernels of recurrence: products over all steps are the framework's, the loop over time is ours.
#include "recurrence/cuda.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "common/cuda_tensors.h"
#include "recurrence/plan.h"

namespace vfrnn {
namespace {

enum Gradient { grad_x_bit = 0, grad_U_bit, grad_c_bit, grad_M_bit, grad_h0_bit, grad_beta_bit };

CudaType type_of(const Tensor& t) {
  if (t.scalar_type() == ScalarType::BFloat16) return CudaType::bf16;
  if (t.scalar_type() == ScalarType::Half) return CudaType::f16;
  if (t.scalar_type() == ScalarType::Double) return CudaType::f64;
  require(t.scalar_type() == ScalarType::Float, "the recurrence is float32, float64, float16 or bfloat16");
  return CudaType::f32;
}

// The best plan, or that of the route which the environment names.
RecurrencePlan plan(int n, CudaType type, int64_t B, bool backward) {
  const gpu::DeviceProperties device = device_properties();
  const char* forced = std::getenv("VFRNN_RECURRENCE_ROUTE");
  if (!forced || !*forced) return recurrence_plan(n, type, B, backward, device);
  for (const RecurrenceRoute route : {RecurrenceRoute::cta, RecurrenceRoute::cluster, RecurrenceRoute::steps}) {
    if (std::string(recurrence_route_names[int(route)]) != forced) continue;
    const auto found = recurrence_plan(route, n, type, B, backward, device);
    require(found.has_value(), "VFRNN_RECURRENCE_ROUTE=", forced, " cannot serve this call: no kernel of that route ",
            "takes n = ", n, " in this dtype on sm_", device.arch);
    return *found;
  }
  require(false, "VFRNN_RECURRENCE_ROUTE must be cta, cluster or steps, got ", forced);
  return {};
}

// Memory for a plan's scratch.
Tensor scratch_of(const RecurrencePlan& plan, const Tensor& like, int64_t B, int n, CudaType type) {
  const int64_t packed_bytes = int64_t(plan.N) * plan.N * bytes_of(type);
  const int64_t bytes = plan.route == RecurrenceRoute::steps ? recurrence_steps_scratch(B, n, type) : packed_bytes;
  return empty_tensor(like, {bytes}, ScalarType::Byte);
}
// (T, B, k) as (T B, k), and (a, b) as (b, a).
Tensor rows_of(const Tensor& t) {
  const int64_t shape[] = {t.size(0) * t.size(1), t.size(2)};
  return ts::reshape(t, shape);
}
Tensor transposed(const Tensor& t) {
  return ts::transpose(t, 0, 1);
}
// Steps first .. first + count - 1 as rows.
Tensor rows_of_steps(const Tensor& t, int64_t first, int64_t count) {
  Tensor whole = t;
  return rows_of(ts::narrow(whole, 0, first, count));
}
const void* data_of(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr() : nullptr;
}
int width_of(const Tensor& M) {
  constexpr int64_t largest = 1 << 20;  // n^2 numbers of M are beyond any memory
  require(M.size(0) <= largest, "n must be at most ", largest, ", got ", M.size(0));
  return int(M.size(0));
}

// t in the type of the state.
Tensor as_state(const Tensor& t, const Tensor& h0) {
  if (t.scalar_type() == h0.scalar_type()) return t;
  Tensor wide = empty_tensor(h0, {t.size(0), t.size(1)});
  ts::copy_(wide, t);
  return wide;
}

// The kernels of all steps read and write pairs of neighbours: whether a tensor lets them, a tensor like it that does,
// with a zero behind the last entry of an odd n, and the same with its entries.
bool in_pairs(const Tensor& t) {
  bool even = t.size(t.dim() - 1) % 2 == 0;
  for (int64_t d = 0; d + 1 < t.dim(); ++d) even = even && (t.size(d) <= 1 || t.stride(d) % 2 == 0);
  return even && reinterpret_cast<uintptr_t>(t.const_data_ptr()) % uintptr_t(2 * t.element_size()) == 0;
}
Tensor room_for_pairs(const Tensor& like) {
  const int64_t last = like.dim() - 1, n = like.size(last);
  std::vector<int64_t> sizes(like.sizes().begin(), like.sizes().end());
  sizes[size_t(last)] += n % 2;
  Tensor room = ts::new_zeros(like, sizes);
  return ts::narrow(room, last, 0, n);
}
Tensor with_pairs(const Tensor& t) {
  if (in_pairs(t)) return t;
  Tensor copy = room_for_pairs(t);
  ts::copy_(copy, t);
  return copy;
}
void copy_unless_same(Tensor& to, const Tensor& from) {
  if (to.const_data_ptr() != from.const_data_ptr()) ts::copy_(to, from);
}
constexpr int64_t most_steps = (int64_t(1) << 31) - 2;

void run(RecurrenceForward p, CudaType type, Tensor& hs, void* stream) {
  const RecurrencePlan chosen = plan(p.n, type, p.B, false);
  Tensor scratch = scratch_of(chosen, hs, p.B, p.n, type);
  void* const s = scratch.mutable_data_ptr();
  if (chosen.route == RecurrenceRoute::steps) {
    p.hs = hs.mutable_data_ptr(), p.row = p.n;
    check_launch(recurrence_forward_steps(p, type, s, stream), "recurrence");
    return;
  }
  require(p.T <= most_steps, "the recurrence takes at most ", most_steps, " steps, got ", p.T);
  Tensor states = with_pairs(hs);
  p.hs = states.mutable_data_ptr(), p.row = p.n + p.n % 2;
  check_launch(recurrence_forward_persistent(p, type, chosen.shape, s, stream), "recurrence");
  copy_unless_same(hs, states);
}
void run(RecurrenceBackward p, CudaType type, const Tensor& grad_hs, const Tensor& hs, Tensor& grad_z, Tensor& grad_h0,
         void* stream) {
  const RecurrencePlan chosen = plan(p.n, type, p.B, true);
  const bool steps = chosen.route == RecurrenceRoute::steps;
  require(steps || p.T <= most_steps, "the recurrence takes at most ", most_steps, " steps, got ", p.T);
  Tensor scratch = scratch_of(chosen, hs, p.B, p.n, type);
  const Tensor gradients = steps ? grad_hs : with_pairs(grad_hs), states = steps ? hs : with_pairs(hs);
  Tensor rows = steps || in_pairs(grad_z) ? grad_z : room_for_pairs(grad_z);
  Tensor start = steps || in_pairs(grad_h0) ? grad_h0 : room_for_pairs(grad_h0);
  p.grad_hs = gradients.const_data_ptr(), p.grad_step = gradients.stride(0), p.grad_row = gradients.stride(1);
  p.hs = states.const_data_ptr(), p.grad_z = rows.mutable_data_ptr(), p.grad_h0 = start.mutable_data_ptr();
  p.row = steps ? p.n : p.n + p.n % 2;
  void* const s = scratch.mutable_data_ptr();
  check_launch(steps ? recurrence_backward_steps(p, type, s, stream)
                     : recurrence_backward_persistent(p, type, chosen.shape, s, stream),
               "recurrence_backward");
  copy_unless_same(grad_z, rows);
  copy_unless_same(grad_h0, start);
}

void recurrence_into(Tensor hs, const Tensor& x, const Tensor& U, std::optional<Tensor> c_, const Tensor& M_,
                     const Tensor& h0_, std::optional<Tensor> beta_, Activation activation) {
  const OnDevice device(x);
  const CudaType type = type_of(M_);
  const int64_t T = x.size(0), B = number_of_blocks(x.size(1), "recurrence");
  const int n = width_of(M_);
  if (T * B == 0) return;
  const Tensor M = packed(M_), h0 = packed(h0_);
  const std::optional<Tensor> c = packed(c_), beta = packed(beta_);
  const bool wide = h0.scalar_type() != M.scalar_type();
  Tensor u = rows_of(hs);
  // Beside a float32 state no result is rounded to 16 bits.
  product_into(u, as_state(rows_of(x), h0), transposed(as_state(U, h0)));
  RecurrenceForward problem{};
  problem.M = M.const_data_ptr(), problem.h0 = h0.const_data_ptr();
  problem.c = data_of(c), problem.beta = data_of(beta);
  problem.T = T, problem.B = B, problem.n = n;
  problem.activation = activation, problem.wide = wide;
  run(problem, type, hs, device.stream);
}

Tensor recurrence(const Tensor& x, const Tensor& U, std::optional<Tensor> c, const Tensor& M, const Tensor& h0,
                  std::optional<Tensor> beta, Activation activation) {
  Tensor hs = empty_tensor(h0, {x.size(0), x.size(1), M.size(0)});
  recurrence_into(hs, x, U, c, M, h0, beta, activation);
  return hs;
}

// The sums over all rows of grad_z and of sign(h) grad_z, (2, n).
Tensor sums_of(const Tensor& grad_z, const Tensor& hs, int n, CudaType type, bool wide, void* stream) {
  const int64_t rows = grad_z.size(0) * grad_z.size(1);
  const int64_t rows_per_part = std::max<int64_t>(256, (rows + 4095) / 4096), parts = (rows - 1) / rows_per_part + 1;
  Tensor sums = empty_tensor(grad_z, {parts, 2, n}, type == CudaType::f64 ? ScalarType::Double : ScalarType::Float);
  RecurrenceSums problem{};
  problem.grad_z = grad_z.const_data_ptr(), problem.hs = hs.const_data_ptr(), problem.sums = sums.mutable_data_ptr();
  problem.rows = rows, problem.rows_per_part = rows_per_part, problem.n = n, problem.type = type, problem.wide = wide;
  check_launch(recurrence_backward_sums(problem, stream), "recurrence_backward_sums");
  const int64_t over_parts[] = {0};
  return ts::sum(sums, over_parts);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients recurrence_backward(const Tensor& grad_hs_, const Tensor& x, const Tensor& U, std::optional<Tensor> c,
                              const Tensor& M_, const Tensor& h0, std::optional<Tensor> beta, const Tensor& hs_,
                              Activation activation, int64_t needs) {
  const OnDevice device(x);
  const CudaType type = type_of(M_);
  const int64_t T = x.size(0), B = number_of_blocks(x.size(1), "recurrence"), i = x.size(2);
  const int n = width_of(M_);
  const auto needed = [&](int bit) {
    return wanted(needs, bit) && (bit != grad_c_bit || c.has_value()) && (bit != grad_beta_bit || beta.has_value());
  };
  const bool runs = T * B > 0;
  const auto result = [&](int bit, const Tensor& like, std::initializer_list<int64_t> sizes) {
    return !needed(bit) ? empty_tensor(like, {0}) : runs ? empty_tensor(like, sizes) : zeros_tensor(like, sizes);
  };
  Tensor grad_x = result(grad_x_bit, x, {T, B, i}), grad_U = result(grad_U_bit, U, {n, i});
  Tensor grad_c = result(grad_c_bit, h0, {n}), grad_M = result(grad_M_bit, M_, {n, n});
  Tensor grad_h0 = result(grad_h0_bit, h0, {B, n}), grad_beta = result(grad_beta_bit, h0, {n});
  if (!runs || needs == 0) return {grad_x, grad_U, grad_c, grad_M, grad_h0, grad_beta};

  const Tensor M = packed(M_), hs = packed(hs_), grad_hs = with_adjacent_entries(grad_hs_);
  const bool wide = h0.scalar_type() != M.scalar_type();
  Tensor grad_z = empty_tensor(M, {T, B, n});
  Tensor start = needed(grad_h0_bit) ? grad_h0 : empty_tensor(h0, {B, n});
  RecurrenceBackward problem{};
  problem.M = M.const_data_ptr();
  problem.T = T, problem.B = B, problem.n = n;
  problem.activation = activation, problem.wide = wide;
  run(problem, type, grad_hs, hs, grad_z, start, device.stream);

  const Tensor rows = rows_of(grad_z);
  if (needed(grad_x_bit)) {
    Tensor to = rows_of(grad_x);
    product_into(to, rows, U);
  }
  if (needed(grad_U_bit)) product_into(grad_U, transposed(rows), rows_of(x));
  if (needed(grad_M_bit)) {
    const auto in_type_of_M = [&](const Tensor& t) { return wide ? ts::to(t, M.scalar_type()) : t; };
    product_into(grad_M, transposed(rows_of_steps(grad_z, 0, 1)), in_type_of_M(h0));
    if (T > 1) {
      const Tensor before = in_type_of_M(rows_of_steps(hs, 0, T - 1));
      add_product(grad_M, transposed(rows_of_steps(grad_z, 1, T - 1)), before);
    }
  }
  if (needed(grad_c_bit) || needed(grad_beta_bit)) {
    const Tensor sums = sums_of(grad_z, hs, n, type, wide, device.stream);
    if (needed(grad_c_bit)) ts::copy_(grad_c, ts::select(sums, 0, 0));
    if (needed(grad_beta_bit)) ts::copy_(grad_beta, ts::select(sums, 0, 1));
  }
  return {grad_x, grad_U, grad_c, grad_M, grad_h0, grad_beta};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("recurrence", TORCH_BOX(&recurrence));
  m.impl("recurrence_into", TORCH_BOX(&recurrence_into));
  m.impl("recurrence_backward", TORCH_BOX(&recurrence_backward));
}

}  // namespace vfrnn
