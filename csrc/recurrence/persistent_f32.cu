// The kernels of persistent.h in float32.
#include "recurrence/persistent_launch.h"

namespace vfrnn {

int recurrence_forward_f32(const RecurrenceForward& problem, int shape, void* scratch, void* stream) {
  return launch_forward<gpu::F32>(problem, shape, scratch, stream);
}
int recurrence_backward_f32(const RecurrenceBackward& problem, int shape, void* scratch, void* stream) {
  return launch_backward<gpu::F32>(problem, shape, scratch, stream);
}

}  // namespace vfrnn
