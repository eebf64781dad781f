// Binding of the CUDA kernels of strang_step.
