// The kernels of one instruction set: a recurrence whose state moves by e exp(dt S) e, of a time dt of its own for
// every step and sample, over one block of samples. cpu.cpp packs and splits the batch over threads.
//
// S is given by its invariant planes: P of them, cosine and sine vectors, and the rate each plane turns at. Dimensions:
// recurrence/kernels.h; panels: common/panels.h.
//   analysis   panel q: (n, W), columns qW.. of [C, s]^T, the cosine vectors padded to whole panels, then the sine ones
//   synthesis  panel q: (2 P, W), columns qW.. of [C; s], unpadded
#pragma once

#include <stdint.h>

#include "common/activations.h"
#include "common/panels.h"

namespace vfrnn {

template <class T>
struct SpectralProblem {
  int64_t steps, n, planes, substeps;
  Activation activation;
  Rows<const T> dt;  // rows of one entry; sample 0: one time for all samples of a step
  const T *analysis, *synthesis;
  const T* quarters;  // quarter turns of every plane per unit of dt, padded to whole panels
  const T* growth;    // -delta / (4 substeps), padded to whole panels, or null: no divergence
  T* hs;              // (T, B, n) contiguous: forward, U x_t + c to be replaced by h_t; backward, the states
  int64_t hs_step;
  // forward
  Rows<const T> h0;  // h0.step is 0
  const T* beta;     // padded
  // backward
  Rows<const T> grad_hs;
  T* grad_z;   // (T, B, n) contiguous
  T* grad_h0;  // (B, n)
};

template <class T>
struct SpectralKernels {
  int64_t panel_width;
  int64_t (*workspace)(const SpectralProblem<T>&, int64_t rows);  // entries, for a block of up to `rows` samples
  // Samples begin..end, for all steps.
  void (*forward)(const SpectralProblem<T>&, int64_t begin, int64_t end, T* workspace);
  void (*backward)(const SpectralProblem<T>&, int64_t begin, int64_t end, T* workspace);
};

}  // namespace vfrnn
