// CUDA kernels of strang_step.
