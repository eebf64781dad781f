// The kernels of persistent.h in bfloat16.
#include "recurrence/persistent_launch.h"

namespace vfrnn {

int recurrence_forward_bf16(const RecurrenceForward& problem, int shape, void* scratch, void* stream) {
  return launch_forward<gpu::Bf16>(problem, shape, scratch, stream);
}
int recurrence_backward_bf16(const RecurrenceBackward& problem, int shape, void* scratch, void* stream) {
  return launch_backward<gpu::Bf16>(problem, shape, scratch, stream);
}

}  // namespace vfrnn
