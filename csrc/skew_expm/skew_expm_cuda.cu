// CUDA kernels of skew_expm.
