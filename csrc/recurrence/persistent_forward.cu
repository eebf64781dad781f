// The forward of persistent.h.
#include "recurrence/persistent_launch.h"

namespace vfrnn {
namespace {

template <class Type>
int launch_forward(const RecurrenceForward& f, CudaType type, int shape, void* scratch, void* stream) {
  if (const int error = launch_pack(f.M, scratch, f.n, shape_of<Type>(shape).N, type, false, stream)) return error;
  PersistentProblem p{};
  p.packed = static_cast<const uint4*>(scratch), p.start = f.h0;
  p.input = p.result = f.hs;
  p.input_step = f.B * f.row, p.input_row = f.row;
  p.c = f.c, p.beta = f.beta;
  p.T = int(f.T), p.B = f.B, p.n = f.n, p.row = f.row, p.activation = f.activation;
  return launch_shape<Type, false>(p, f.wide, shape, stream);
}

}  // namespace

int recurrence_forward_persistent(const RecurrenceForward& problem, CudaType type, int shape, void* scratch,
                                  void* stream) {
  return with_type(type, [&](auto t) { return launch_forward<decltype(t)>(problem, type, shape, scratch, stream); });
}

}  // namespace vfrnn
