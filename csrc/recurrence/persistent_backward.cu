// The backward of persistent.h.
#include "recurrence/persistent_launch.h"

namespace vfrnn {
namespace {

template <class Type>
int launch_backward(const RecurrenceBackward& b, CudaType type, int shape, void* scratch, void* stream) {
  const int bytes = int(sizeof(typename Type::Storage)), state_bytes = b.wide ? 4 : bytes;
  const int64_t row = b.n, step = b.B * row;
  if (const int error = launch_pack(b.M, scratch, b.n, shape_of<Type>(shape).N, type, true, stream)) return error;
  PersistentProblem p{};
  p.packed = static_cast<const uint4*>(scratch);
  p.input = b.grad_hs, p.input_step = b.grad_step, p.input_row = b.grad_row;
  p.states = b.hs, p.result = b.grad_z, p.grad_h0 = b.grad_h0;
  p.T = b.T, p.B = b.B, p.n = b.n, p.activation = b.activation, p.wide = b.wide;
  p.paired = starts_with_a_pair(b.grad_hs, b.grad_step, b.grad_row, b.n, state_bytes) &&
             starts_with_a_pair(b.hs, step, row, b.n, state_bytes) &&
             starts_with_a_pair(b.grad_z, step, row, b.n, bytes) &&
             starts_with_a_pair(b.grad_h0, row, row, b.n, state_bytes);
  return launch_shape<Type, true>(p, shape, stream, ShapeIndices<Type>{});
}

}  // namespace

int recurrence_backward_persistent(const RecurrenceBackward& problem, CudaType type, int shape, void* scratch,
                                   void* stream) {
  return with_type(type, [&](auto t) { return launch_backward<decltype(t)>(problem, type, shape, scratch, stream); });
}

}  // namespace vfrnn
