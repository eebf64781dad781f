// The kernels of recurrence_persistent.h in bfloat16.
#include "recurrence/recurrence_persistent.h"

namespace vfrnn {

int recurrence_forward_bf16(const RecurrenceForward& problem, int shape, void* stream) {
  return launch_forward<gpu::Bf16>(problem, shape, stream);
}
int recurrence_backward_bf16(const RecurrenceBackward& problem, int shape, void* stream) {
  return launch_backward<gpu::Bf16>(problem, shape, stream);
}

}  // namespace vfrnn
