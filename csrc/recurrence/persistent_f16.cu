// The kernels of persistent.h in float16.
#include "recurrence/persistent_launch.h"

namespace vfrnn {

int recurrence_forward_f16(const RecurrenceForward& problem, int shape, void* scratch, void* stream) {
  return launch_forward<gpu::F16>(problem, shape, scratch, stream);
}
int recurrence_backward_f16(const RecurrenceBackward& problem, int shape, void* scratch, void* stream) {
  return launch_backward<gpu::F16>(problem, shape, scratch, stream);
}

}  // namespace vfrnn
