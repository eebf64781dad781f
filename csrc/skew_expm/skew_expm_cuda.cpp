// Binding of the CUDA kernels of skew_expm.
