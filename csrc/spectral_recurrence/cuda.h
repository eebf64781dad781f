// Launchers of spectral_recurrence's CUDA kernel, made in forward.cu and backward.cu. T: float or double. No CUDA type,
// no torch type.
#pragma once

#include <cstdint>

#include "common/activations.h"

namespace vfrnn {

// h_t = act(M_t h_{t-1} + z_t), M_t from the planes of S and the time dt_t of every sample.
template <class T>
struct SpectralChain {
  const T* basis;              // (2 p, n): the planes' cosine vectors, then the sine vectors
  const T* transposed;         // (n, 2 p); not read where the basis is on the chip
  const T* omega;              // (p,)
  const T* delta;              // (n,) or null
  const T* dt;                 // (steps, samples)
  int64_t dt_step, dt_sample;  // its strides
  int64_t steps, samples;
  int n, p;
  int64_t substeps;
  Activation activation;
  // forward
  const T* h0;    // (samples, n)
  const T* beta;  // (n,) or null
  T* hs;          // (steps, samples, n): z_t, replaced by h_t; backward: the states
  // backward
  const T* grad_hs;  // (steps, samples, n), entries of a row adjacent
  int64_t grad_step, grad_sample;
  T* grad_z;   // (steps, samples, n)
  T* grad_h0;  // (samples, n)
};

// What stays in a block's shared memory: its samples' numbers and the basis, the former alone, or neither.
enum SpectralOnChip { nothing_on_chip, samples_on_chip, basis_on_chip };
template <class T, bool backward>
SpectralOnChip spectral_on_chip(int n, int shared_limit);

// Memory of the device, at a multiple of 16 bytes, for what is not on the chip.
template <class T, bool backward>
int64_t spectral_scratch(int64_t samples, int n, SpectralOnChip on_chip);

// All steps in one launch; samples >= 1.
template <class T, bool backward>
int launch_spectral_chain(const SpectralChain<T>& chain, SpectralOnChip on_chip, void* scratch, void* stream);

}  // namespace vfrnn
