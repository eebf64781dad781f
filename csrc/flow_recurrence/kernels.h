// What flow_recurrence does with a row of states beside the flow, compiled once per instruction set (common/isa.h).
#pragma once

#include <stdint.h>

#include "common/activations.h"

namespace vfrnn {

template <class T>
struct FlowRecurrenceKernels {
  // h = act(h + moved + c); c is null for none, beta unless the activation is modrelu
  void (*activate)(Activation activation, const T* moved, const T* c, const T* beta, int64_t n, T* h);
  // grad_z = act'(z) (grad_h + carried) from h = act(z)
  void (*derivative)(Activation activation, const T* h, const T* grad_h, const T* carried, int64_t n, T* grad_z);
};

}  // namespace vfrnn
