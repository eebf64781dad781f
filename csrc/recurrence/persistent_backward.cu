// The backward of persistent.h.
#include "recurrence/persistent_launch.h"

namespace vfrnn {
namespace {

template <class Type>
int launch_backward(const RecurrenceBackward& b, CudaType type, int shape, void* scratch, void* stream) {
  if (const int error = launch_pack(b.M, scratch, b.n, shape_of<Type>(shape).N, type, true, stream)) return error;
  PersistentProblem p{};
  p.packed = static_cast<const uint4*>(scratch);
  p.input = b.grad_hs, p.input_step = b.grad_step, p.input_row = b.grad_row;
  p.states = b.hs, p.result = b.grad_z, p.grad_h0 = b.grad_h0;
  p.T = int(b.T), p.B = b.B, p.n = b.n, p.row = b.row, p.activation = b.activation;
  return launch_shape<Type, true>(p, b.wide, shape, stream);
}

}  // namespace

int recurrence_backward_persistent(const RecurrenceBackward& problem, CudaType type, int shape, void* scratch,
                                   void* stream) {
  return with_type(type, [&](auto t) { return launch_backward<decltype(t)>(problem, type, shape, scratch, stream); });
}

}  // namespace vfrnn
